//! Postfix in a configuration, queue and data folder of its own.

use std::{fs, net::SocketAddr, path::PathBuf};

use crate::{Process, Site, dovecot::Dovecot, peer, process, wait};

/// A running MTA.
#[derive(Debug)]
pub struct Postfix {
    /// Where it takes mail by SMTP.
    pub smtp: SocketAddr,
    folder: PathBuf,
    _process: Process,
}

/// What one is for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its folder's and its log's name.
    pub name: String,
    /// Its host name.
    pub host: String,
    /// Where it listens, when that has to be known before.
    pub listen: Option<SocketAddr>,
    /// Lines of the transport map: `moon.example lightpost:`.
    pub transports: Vec<String>,
    /// Domains that it relays for, by the transport map.
    pub relayed: Vec<String>,
    /// Mailboxes that it fills itself: address and Maildir.
    pub maildirs: Vec<(String, PathBuf)>,
    /// More lines for master.cf.
    pub services: String,
    /// More lines for main.cf.
    pub main: String,
}

impl Settings {
    /// One that hands mail for `domain` to a mailbox server by LMTP.
    #[must_use]
    pub fn lmtp(mut self, domain: &str, dovecot: &Dovecot) -> Self {
        self.relayed.push(domain.to_owned());
        self.transports.push(format!(
            "{domain} lmtp:inet:{}:{}",
            dovecot.lmtp.ip(),
            dovecot.lmtp.port()
        ));
        self
    }

    /// One that fills a Maildir which a mailbox server shows by IMAP: unlike Dovecot's LMTP it takes UTF-8 addresses.
    #[must_use]
    pub fn maildir(mut self, address: &str, dovecot: &Dovecot) -> Self {
        self.maildirs.push((address.to_owned(), dovecot.maildir(address)));
        self
    }

    /// One that hands mail for `domain` to a service of master.cf.
    #[must_use]
    pub fn service(mut self, domain: &str, service: &str) -> Self {
        self.relayed.push(domain.to_owned());
        self.transports.push(format!("{domain} {service}:"));
        self
    }
}

impl Postfix {
    /// Starts one.
    pub fn start(site: &Site, settings: &Settings) -> Self {
        peer::require_root("Postfix");
        let postfix = peer::program("/usr/sbin/postfix", "postfix");
        let folder = site.make_folder(&settings.name);
        let smtp = settings.listen.unwrap_or_else(|| site.socket());
        site.make_folder(&format!("{}/queue", settings.name));
        let data = site.make_folder(&format!("{}/data", settings.name));
        std::os::unix::fs::chown(&data, Some(owner("postfix")), None).unwrap();
        let file = |name: &str| format!("{}/{name}", settings.name);
        site.write(&file("transport"), settings.transports.join("\n") + "\n");
        let maildirs = settings
            .maildirs
            .iter()
            .map(|(address, maildir)| format!("{address} {}/\n", maildir.display()));
        site.write(&file("maildirs"), maildirs.collect::<String>());
        site.write(&file("main.cf"), main_cf(settings, &folder) + &settings.main);
        site.write(&file("master.cf"), master_cf(smtp) + &settings.services);
        for known in ["postfix-files", "dynamicmaps.cf"] {
            fs::copy(format!("/etc/postfix/{known}"), folder.join(known)).unwrap();
        }
        let mut check = std::process::Command::new(postfix);
        let checked = process::run(check.arg("-c").arg(&folder).arg("check"), b"");
        assert!(checked.status.success(), "postfix check: {}", checked.stderr);
        // Its master itself, and with -d, which keeps it in our process group: `postfix start-fg` would leave it.
        let master = peer::program("/usr/lib/postfix/sbin/master", "postfix");
        let arguments = ["-c".into(), folder.clone().into_os_string(), "-d".into()];
        let mut process = Process::start(site, &settings.name, &master, arguments);
        process.wait_ready(|| wait::listens(smtp));
        Self {
            smtp,
            folder,
            _process: process,
        }
    }

    /// How many mails wait in its queue.
    pub fn queued(&self) -> usize {
        ["incoming", "active", "deferred", "maildrop"]
            .iter()
            .map(|queue| files_below(&self.folder.join("queue").join(queue)))
            .sum()
    }

    /// Its log.
    pub fn log(&self) -> String {
        let log = self.folder.with_extension("mail.log");
        String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
    }
}

fn files_below(folder: &std::path::Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                files_below(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

fn owner(user: &str) -> u32 {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{user}:x:")));
    account.unwrap().split(':').next().unwrap().parse().unwrap()
}

fn main_cf(settings: &Settings, folder: &std::path::Path) -> String {
    let own: Vec<&str> = settings
        .maildirs
        .iter()
        .map(|(address, _)| address.rsplit('@').next().unwrap())
        .collect();
    format!(
        "compatibility_level = 3.6
config_directory = {folder}
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {log}
maillog_file_prefixes = {parent}
myhostname = {host}
mydestination =
local_recipient_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
transport_maps = texthash:{folder}/transport
relay_domains = {relayed}
virtual_mailbox_domains = {own}
virtual_mailbox_maps = texthash:{folder}/maildirs
virtual_mailbox_base = /
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_mailbox_limit = 0
alias_maps =
alias_database =
smtputf8_enable = yes
message_size_limit = 60000000
mailbox_size_limit = 0
smtp_dns_support_level = disabled
lmtp_dns_support_level = disabled
smtp_line_length_limit = 0
lmtp_line_length_limit = 0
biff = no
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 2s
",
        folder = folder.display(),
        log = folder.with_extension("mail.log").display(),
        parent = folder.parent().unwrap().display(),
        host = settings.host,
        relayed = settings.relayed.join(" "),
        own = own.join(" "),
    )
}

fn master_cf(smtp: SocketAddr) -> String {
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
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
",
        smtp.ip(),
        smtp.port()
    )
}
