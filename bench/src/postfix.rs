//! A Postfix of our own: configuration, queue and data in the run's folder, a high port, started and stopped here.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use lightpost_clock::Clock;

use crate::{
    Result,
    load::Connections,
    place::Place,
    process::{Process, free_address, is_root},
};

/// Debian's place for its commands.
const POSTFIX: &str = "/usr/sbin/postfix";
const SOURCE: &str = "/usr/sbin/smtp-source";

/// A running Postfix.
#[derive(Debug)]
pub(crate) struct Postfix {
    /// Where it takes mail.
    pub(crate) address: SocketAddr,
    etc: PathBuf,
    process: Option<Process>,
}

impl Postfix {
    /// Starts it. Mail goes to `relay`, or stays in the deferred queue without one.
    pub(crate) async fn start(place: &Place, relay: Option<SocketAddr>, clock: &Clock) -> Result<Self> {
        present(POSTFIX)?;
        if !is_root() {
            return Err("Postfix is started by root only; run the bench as root".into());
        }
        let etc = place.folder("postfix")?;
        let (queue, data) = (place.folder("postfix/queue")?, place.folder("postfix/data")?);
        let failed = |error: std::io::Error| format!("{}: {error}", etc.display());
        chown(&data, Some(user("postfix")?), None).map_err(failed)?;
        let address = free_address()?;
        fs::write(etc.join("main.cf"), main_cf(&etc, &queue, &data, address, relay)).map_err(failed)?;
        fs::write(etc.join("master.cf"), master_cf(address)).map_err(failed)?;
        for known in ["postfix-files", "dynamicmaps.cf"] {
            fs::copy(format!("/etc/postfix/{known}"), etc.join(known)).map_err(failed)?;
        }
        let mut command = Command::new(POSTFIX);
        command.arg("-c").arg(&etc).arg("start-fg");
        let mut process = Process::start("postfix", &mut command, &etc)?;
        process.listens(address, clock).await?;
        Ok(Self {
            address,
            etc,
            process: Some(process),
        })
    }

    /// Its version.
    pub(crate) fn version() -> String {
        let output = Command::new("/usr/sbin/postconf")
            .args(["-d", "-h", "mail_version"])
            .output();
        output.map_or_else(
            |_| "unknown".into(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop = Command::new(POSTFIX)
            .arg("-c")
            .arg(&self.etc)
            .arg("stop")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if stop.is_ok() {
            drop(self.process.take());
        }
    }
}

/// An error that names the package when a program of Postfix is missing.
fn present(program: &str) -> Result<()> {
    if Path::new(program).exists() {
        return Ok(());
    }
    Err(format!(
        "{program} is missing; install Debian's package postfix: apt-get install postfix"
    ))
}

fn user(name: &str) -> Result<u32> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts.lines().find(|line| line.split(':').next() == Some(name));
    let id = account.and_then(|line| line.split(':').nth(2)?.parse().ok());
    id.ok_or_else(|| format!("there is no user {name}; install Debian's package postfix"))
}

/// Pushes `mails` mails of `size` octets through `connections` connections, and tells how long it took until the last was
/// acknowledged.
pub(crate) async fn push(
    to: SocketAddr,
    (connections, kind): (usize, Connections),
    size: usize,
    mails: usize,
    clock: &Clock,
) -> Result<Duration> {
    present(SOURCE)?;
    let started = clock.instant();
    let mut child = tokio::process::Command::new(SOURCE)
        // -d: the next mail on the same connection.
        .args((kind == Connections::Kept).then_some("-d"))
        .args([
            "-s",
            &connections.to_string(),
            "-l",
            &size.to_string(),
            "-m",
            &mails.to_string(),
        ])
        .args([
            "-f",
            "alice@earth.example",
            "-t",
            "bob@moon.example",
            &to.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("smtp-source cannot be started: {error}"))?;
    let status = child
        .wait()
        .await
        .map_err(|error| format!("smtp-source: {error}"))?;
    let took = started.elapsed();
    if !status.success() {
        return Err(format!("smtp-source ended with {status}"));
    }
    Ok(took)
}

fn main_cf(etc: &Path, queue: &Path, data: &Path, address: SocketAddr, relay: Option<SocketAddr>) -> String {
    // Defaults wherever they concern durability; whatever slows a benchmark down on purpose is off.
    let onward = match relay {
        Some(relay) => format!(
            "relayhost = [{}]:{}\nsmtp_destination_concurrency_limit = 20\ndefault_destination_concurrency_limit = 20\n",
            relay.ip(),
            relay.port()
        ),
        None => "relayhost = [127.0.0.1]:9\ndefer_transports = smtp\n".into(),
    };
    format!(
        "compatibility_level = 3.6
config_directory = {}
queue_directory = {}
data_directory = {}
myhostname = postfix.earth.example
mydestination =
local_recipient_maps =
inet_interfaces = {}
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_tls_security_level = none
in_flow_delay = 0
alias_maps =
alias_database =
biff = no
{onward}",
        etc.display(),
        queue.display(),
        data.display(),
        address.ip(),
    )
}

fn master_cf(address: SocketAddr) -> String {
    format!(
        "{}:{} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
",
        address.ip(),
        address.port()
    )
}
