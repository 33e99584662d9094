//! OpenSMTPD with a configuration of its own, and in a mount namespace the folders whose places are built into it.

use std::net::SocketAddr;

use crate::{Process, Site, private_root, wait};

/// A running MTA.
#[derive(Debug)]
pub struct OpenSmtpd {
    /// Where it takes mail by SMTP.
    pub smtp: SocketAddr,
    process: Process,
}

impl OpenSmtpd {
    /// Starts one with the actions and matches of a snippet.
    pub fn start(site: &Site, snippet: &str) -> Self {
        let smtp = site.socket();
        let smtpd = private_root::unpacked("usr/sbin/smtpd", "opensmtpd");
        let programs = private_root::unpacked("usr/libexec", "opensmtpd");
        let configuration = site.write(
            "opensmtpd/smtpd.conf",
            format!(
                "listen on {} port {} hostname mx.earth.example\n{snippet}\naction \"nowhere\" relay host smtp://127.0.0.1:9\nmatch from any for any action \"nowhere\"\n",
                smtp.ip(),
                smtp.port()
            ),
        );
        let prepare = format!(
            "mount -t tmpfs -o mode=755 lightpost-test /var/spool
mount -t tmpfs -o mode=755 lightpost-test /run
mount -t tmpfs -o mode=755 lightpost-test /var/lib
mkdir -p /var/lib/opensmtpd/empty
mount --bind {} /usr/libexec",
            programs.display()
        );
        let configuration = configuration.display().to_string();
        let mut process =
            private_root::start(site, "opensmtpd", &prepare, &smtpd, &["-d", "-f", &configuration]);
        process.wait_ready(|| wait::listens(smtp));
        Self { smtp, process }
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.output()
    }
}
