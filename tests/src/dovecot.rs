//! Dovecot: LMTP in, IMAP out.

use std::{collections::BTreeMap, fmt::Write as _, fs, net::SocketAddr, path::PathBuf};

use crate::{Process, Site, imap::Imap, peer, wait};

/// Every mailbox's password.
const PASSWORD: &str = "pass";

/// A running mailbox server.
#[derive(Debug)]
pub struct Dovecot {
    /// Where it takes mail.
    pub lmtp: SocketAddr,
    imap: SocketAddr,
    folder: PathBuf,
    configuration: PathBuf,
    name: String,
    process: Option<Process>,
}

impl Dovecot {
    /// Starts one, called `name`, with a mailbox for each of `users` (addresses); others are refused by LMTP.
    pub fn start(site: &Site, name: &str, users: &[&str]) -> Self {
        peer::require_root("Dovecot");
        peer::program("/usr/lib/dovecot/lmtp", "dovecot-lmtpd");
        peer::program("/usr/lib/dovecot/imap", "dovecot-imapd");
        let folder = site.make_folder(name);
        let (lmtp, imap) = (site.socket(), site.socket());
        let mut passwords = String::new();
        for user in users {
            writeln!(passwords, "{user}:{{PLAIN}}{PASSWORD}").unwrap();
        }
        site.write(&format!("{name}/users"), passwords);
        let mail = site.make_folder(&format!("{name}/mail"));
        std::os::unix::fs::chown(&mail, Some(65534), Some(65534)).unwrap();
        let configuration = site.write(
            &format!("{name}/dovecot.conf"),
            configuration(&folder, lmtp, imap),
        );
        let mut dovecot = Self {
            lmtp,
            imap,
            folder,
            configuration,
            name: name.to_owned(),
            process: None,
        };
        dovecot.start_again(site);
        dovecot
    }

    /// Starts it again after [`Dovecot::kill`].
    pub fn start_again(&mut self, site: &Site) {
        let dovecot = peer::program("/usr/sbin/dovecot", "dovecot-core");
        let arguments = [
            "-F".into(),
            "-c".into(),
            self.configuration.clone().into_os_string(),
        ];
        let mut process = Process::start(site, &self.name, &dovecot, arguments);
        process.wait_ready(|| wait::listens(self.lmtp) && wait::listens(self.imap));
        self.process = Some(process);
    }

    /// `kill -9` of all its processes.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A user's mail, read by IMAP.
    pub fn mails(&self, user: &str) -> Vec<Vec<u8>> {
        Imap::login(self.imap, user, PASSWORD).mails()
    }

    /// A part of each of a user's mails, its encoding undone by Dovecot.
    pub fn decoded(&self, user: &str, part: &str) -> Vec<Vec<u8>> {
        Imap::login(self.imap, user, PASSWORD).decoded(part)
    }

    /// Waits until a user has `count` mails, and returns them.
    #[track_caller]
    pub fn wait_mails(&self, user: &str, count: usize) -> Vec<Vec<u8>> {
        let mut mails = Vec::new();
        let came = wait::holds_within(std::time::Duration::from_secs(60), || {
            if self.on_disk(user).len() >= count {
                mails = self.mails(user);
            }
            mails.len() >= count
        });
        assert!(came, "{user} has {} mails instead of {count}", mails.len());
        assert_eq!(mails.len(), count, "{user} has too many mails");
        mails
    }

    /// The files of a user's Maildir: cheaper to count than to read by IMAP.
    pub fn on_disk(&self, user: &str) -> Vec<PathBuf> {
        ["new", "cur"]
            .iter()
            .flat_map(|part| {
                fs::read_dir(self.maildir(user).join(part))
                    .into_iter()
                    .flatten()
                    .flatten()
            })
            .map(|entry| entry.path())
            .collect()
    }

    /// How often each mail lies in the mailboxes of `users`, by its Message-ID.
    pub fn copies(&self, users: &[&str]) -> BTreeMap<String, usize> {
        let mut copies = BTreeMap::new();
        for file in users.iter().flat_map(|user| self.on_disk(user)) {
            let mail = fs::read(&file).unwrap();
            let text = String::from_utf8_lossy(&mail[..mail.len().min(8192)]).into_owned();
            let id = text
                .lines()
                .find_map(|line| line.strip_prefix("Message-ID: "))
                .unwrap();
            *copies.entry(id.to_owned()).or_default() += 1;
        }
        copies
    }

    /// A user's Maildir, where another server may deliver too.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.folder.join("mail").join(user).join("Maildir")
    }

    /// The folder with all mailboxes.
    pub fn mailboxes(&self) -> PathBuf {
        self.folder.join("mail")
    }
}

fn configuration(folder: &std::path::Path, lmtp: SocketAddr, imap: SocketAddr) -> String {
    let folder = folder.display();
    let (ip, lmtp, imap) = (lmtp.ip(), lmtp.port(), imap.port());
    format!(
        "base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = imap lmtp
listen = {ip}
ssl = no
disable_plaintext_auth = no
auth_username_chars =
auth_mechanisms = plain
mail_location = maildir:~/Maildir
mail_fsync = never
first_valid_uid = 1
mail_max_userip_connections = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    address = {ip}
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = {ip}
    port = {lmtp}
  }}
}}
service stats {{
  client_limit = 2000
}}
"
    )
}
