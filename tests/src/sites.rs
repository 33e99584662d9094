//! Two whole sites, Earth's and the Moon's: each a Postfix, a mailbox server, a client and a gateway by the files of `deploy/site`.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use crate::{
    Site,
    dovecot::Dovecot,
    peer,
    pki::Authority,
    postfix::{self, Postfix},
    programs::Program,
};

/// A domain of which each site believes that it is the other's, where a test asks for one.
pub const LOST: &str = "lost.example";
/// Somebody on Earth whose address is not ASCII, where a test asks for her mailbox.
pub const INTERNATIONAL: &str = "\u{e4}lice@earth.example";

/// A running site.
#[derive(Debug)]
pub struct Place {
    /// `earth` or `moon`.
    pub body: &'static str,
    /// The outgoing half.
    pub client: Program,
    /// The incoming half.
    pub server: Program,
    /// The MTA beside them.
    pub mta: Postfix,
    /// The mailboxes.
    pub dovecot: Dovecot,
}

/// What a test changes about the files of `deploy/site`, beside addresses and folders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// Domains of which each MTA believes that they are behind the other site.
    pub lost: &'a [&'a str],
    /// Tables to add to the configuration of Earth's client.
    pub client: &'a str,
    /// Whether Earth's MTA fills its mailboxes itself, [`INTERNATIONAL`]'s among them: Dovecot's LMTP takes no such address.
    pub international: bool,
    /// Domains below the Moon's that the Moon's MTA and client take for Earth's side, and whose mail the Moon's gateway gets back.
    pub circular: &'a [&'a str],
}

/// Where the parts of a site listen.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    api: SocketAddr,
    smtp: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    mta: SocketAddr,
}

impl Addresses {
    fn new(site: &Site) -> Self {
        Self {
            api: site.socket(),
            smtp: site.socket(),
            https: site.socket(),
            admin: site.socket(),
            mta: site.socket(),
        }
    }
}

/// A file of `deploy/site`, for this body: `README.md` there says what an operator exchanges.
fn sample(name: &str, body: &str) -> String {
    let text = fs::read_to_string(peer::root().join("deploy/site").join(name)).unwrap();
    if body == "earth" {
        return text;
    }
    let swap =
        |text: &str, one: &str, other: &str| text.replace(one, "\0").replace(other, one).replace('\0', other);
    swap(&swap(&text, "earth", "moon"), "\nrate_up", "\nrate_down")
}

/// Replaces, and fails the test where there is nothing to replace.
#[track_caller]
fn fitted(mut text: String, replacements: &[(&str, String)]) -> String {
    for (from, to) in replacements {
        assert!(text.contains(from), "no {from} in\n{text}");
        text = text.replace(from, to);
    }
    text
}

/// Starts Earth and the Moon. `alice@earth.example`, `bob@moon.example` and the postmasters have mailboxes; the Moon's MTA refuses other recipients at
/// RCPT, Earth's takes them and returns the mail itself.
pub fn start(site: &Site, changes: Changes<'_>) -> (Place, Place) {
    let authority = Authority::new(site, "ca");
    let (earth, moon) = (Addresses::new(site), Addresses::new(site));
    let plan = |body, far, own, other| Plan {
        site,
        body,
        far,
        own,
        other,
        lost: changes.lost,
        international: changes.international && body == "earth",
        tables: if body == "earth" { changes.client } else { "" },
        circular: if body == "moon" { changes.circular } else { &[] },
    };
    (
        plan("earth", "moon", earth, moon).start(&authority),
        plan("moon", "earth", moon, earth).start(&authority),
    )
}

/// One of the two sites.
struct Plan<'a> {
    site: &'a Site,
    body: &'static str,
    far: &'static str,
    own: Addresses,
    other: Addresses,
    lost: &'a [&'a str],
    international: bool,
    tables: &'a str,
    circular: &'a [&'a str],
}

impl Plan<'_> {
    fn start(&self, authority: &Authority) -> Place {
        let (site, body, own) = (self.site, self.body, self.own);
        let folders = self.folders(authority);
        let program = |role, api, other, text: &str| {
            Program::new(site, role, &format!("{body}-{role}"), api, &[other], text)
        };
        let mut client = program("client", own.api, own.smtp, &self.client(&folders));
        let mut server = program("server", own.admin, own.https, &self.server(&folders));
        let user = if body == "earth" { "alice" } else { "bob" };
        let users = [user, "postmaster"].map(|user| format!("{user}@{body}.example"));
        let mut names = users.each_ref().map(String::as_str).to_vec();
        if self.international {
            names.push(INTERNATIONAL);
        }
        let dovecot = Dovecot::start(site, &format!("{body}-dovecot"), &names);
        let mta = self.mta(&dovecot, &names);
        server.start(site);
        client.start(site);
        Place {
            body,
            client,
            server,
            mta,
            dovecot,
        }
    }

    /// The folders of the samples, and what they are here; with the certificates.
    fn folders(&self, authority: &Authority) -> [(&'static str, String); 2] {
        let folder = |name: &str| self.site.make_folder(&format!("{}/{name}", self.body));
        let (etc, var) = (folder("etc"), folder("var"));
        fs::copy(&authority.file, etc.join("ca.pem")).unwrap();
        for name in ["relay", "gw1"] {
            let identity = authority.issue(self.site, &format!("{name}.{}.example", self.body));
            fs::copy(identity.certificate, etc.join(format!("{name}.pem"))).unwrap();
            let key = etc.join(format!("{name}.key"));
            fs::copy(identity.key, &key).unwrap();
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        }
        [("/etc/lightpost", etc), ("/var/lib/lightpost", var)]
            .map(|(from, to)| (from, to.display().to_string()))
    }

    fn client(&self, folders: &[(&str, String)]) -> String {
        let (own, far) = (self.own, self.far);
        let uri = |address: SocketAddr| format!("https://{address}/inboundmail");
        let mut text = fitted(
            fitted(sample("client.toml", self.body), folders),
            &[
                ("127.0.0.1:8025", own.api.to_string()),
                ("127.0.0.1:8026", own.smtp.to_string()),
                ("127.0.0.1:25", own.mta.to_string()),
                (
                    &format!("https://gw1.{far}.example/inboundmail"),
                    uri(self.other.https),
                ),
            ],
        );
        text.push_str(self.tables);
        let lost = self.lost.iter().map(|domain| (domain, self.other.https));
        let circular = self.circular.iter().map(|domain| (domain, own.https));
        for (domain, gateway) in lost.chain(circular) {
            let uri = uri(gateway);
            text.push_str(&format!(
                "\n[[route]]\ndomain = \"{domain}\"\npath = \"{far}\"\ngateways = [\"{uri}\"]\n"
            ));
        }
        text
    }

    fn server(&self, folders: &[(&str, String)]) -> String {
        let own = self.own;
        let mut text = fitted(
            fitted(sample("server.toml", self.body), folders),
            &[
                ("[::]:443", own.https.to_string()),
                ("127.0.0.1:8028", own.admin.to_string()),
                ("127.0.0.1:25", own.mta.to_string()),
            ],
        );
        for domain in self.lost {
            text = fitted(text, &[("domains = [", format!("domains = [\"{domain}\", "))]);
        }
        if !self.circular.is_empty() {
            // Its own client may hand over to it, as after a careless copy of the other site's files.
            text.push_str(&format!(
                "\n[[peer]]\nname = \"relay.{}.example\"\nsenders = [\"*\"]\n",
                self.body
            ));
        }
        text
    }

    fn mta(&self, dovecot: &Dovecot, users: &[&str]) -> Postfix {
        let agent = format!("smtp:[{}]:{}", self.own.smtp.ip(), self.own.smtp.port());
        let map = fitted(
            sample("lightpost.transport", self.body),
            &[("smtp:[127.0.0.1]:8026", agent.clone())],
        );
        let main = sample("main.cf", self.body);
        let mut lines = main.lines();
        let relayed = lines
            .find_map(|line| line.strip_prefix("relay_domains = "))
            .unwrap();
        let mut settings = postfix::Settings {
            name: format!("{}-mta", self.body),
            host: format!("mx.{}.example", self.body),
            listen: Some(self.own.mta),
            transports: map.lines().map(str::to_owned).collect(),
            relayed: relayed.split(", ").map(str::to_owned).collect(),
            ..postfix::Settings::default()
        };
        for domain in self.lost.iter().chain(self.circular) {
            settings.relayed.push((*domain).to_owned());
            settings.transports.push(format!("{domain} {agent}"));
        }
        settings = if self.body == "earth" && !self.international {
            settings.lmtp("earth.example", dovecot)
        } else {
            let fill = |settings: postfix::Settings, user: &&str| settings.maildir(user, dovecot);
            users.iter().fold(settings, fill)
        };
        Postfix::start(self.site, &settings)
    }
}
