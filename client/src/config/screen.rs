//! `[screen]`: what is looked at before a mail goes into the outbox, besides its envelope.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use lightpost_config::{Section, Size};

use super::{positive, routes::is_domain, seal, seal::Seal, span};

/// Longest header field that a mail is marked with.
const FIELD_MAX: usize = 200;

/// `[screen]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Screen {
    /// Whose trace fields are believed when the mail came through them.
    pub trusted_relays: Vec<IpNet>,
    /// How senders are authenticated.
    pub authentication: Option<Authentication>,
    /// What seals the results.
    pub seal: Option<Seal>,
    /// Who is asked about the content.
    pub rspamd: Option<Rspamd>,
}

/// `[screen.authentication]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authentication {
    /// The name under which results are given (RFC 8601 section 2.5); our own when `None`.
    pub authserv_id: Option<String>,
    /// Whether mail that fails DMARC is refused where its domain asks for that.
    pub enforce: bool,
    /// Whether mail is taken when the resolver does not answer; deferred otherwise.
    pub accept_when_down: bool,
    /// How long all questions about one mail may take.
    pub timeout: Duration,
}

/// `[screen.rspamd]`
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rspamd {
    /// Where mails are POSTed to, `/checkv2` included.
    pub url: String,
    /// How long one answer may take, the mail's way there included.
    pub timeout: Duration,
    /// Octets of the largest mail that is shown to it.
    pub max_size: u64,
    /// Whether mail is taken when it does not answer; deferred otherwise.
    pub accept_when_down: bool,
    /// Whether the action "greylist" defers the mail. Rspamd's own greylisting says "soft reject", which always does.
    pub greylist: bool,
    /// The header field for mail that is to be marked, without its line end.
    pub header: String,
}

/// Reads the section; `None` when the file lacks it.
pub(super) fn read(section: &Section<'_>) -> Option<Screen> {
    if !section.present() {
        return None;
    }
    let trusted_relays = networks(section, "trusted_relays").unwrap_or_else(loopback);
    let authentication = authentication(&section.section("authentication"));
    let seal = seal::read(&section.section("seal"));
    if authentication.is_none() && section.section("seal").present() {
        section.wrong(
            "seal",
            "there are no results to be sealed".into(),
            "add [screen.authentication], too".into(),
        );
    }
    let rspamd = rspamd(&section.section("rspamd"));
    Some(Screen {
        trusted_relays,
        authentication,
        seal,
        rspamd,
    })
}

fn loopback() -> Vec<IpNet> {
    let parsed = ["127.0.0.0/8", "::1/128"].map(str::parse);
    parsed.into_iter().flatten().collect()
}

/// A list of networks and addresses; `None` where the file has none.
pub(super) fn networks(section: &Section<'_>, key: &str) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for text in section.get::<Vec<String>>(key)? {
        match text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(net) => networks.push(net.trunc()),
            Err(_) => section.wrong(
                key,
                format!("\"{text}\" is not a network"),
                "write \"192.0.2.0/24\", \"2001:db8::/32\" or an address".into(),
            ),
        }
    }
    Some(networks)
}

fn authentication(section: &Section<'_>) -> Option<Authentication> {
    if !section.present() {
        return None;
    }
    let remedy = "write a domain, such as \"earth.example\"";
    let authserv_id = section.parse("authserv_id", remedy, |text| match is_domain(text) {
        true => Ok(text.to_owned()),
        false => Err("is not a domain".into()),
    });
    let enforce = section.parse("dmarc", "write \"enforce\" or \"observe\"", |text| match text {
        "enforce" => Ok(true),
        "observe" => Ok(false),
        _ => Err("is not a choice".into()),
    });
    Some(Authentication {
        authserv_id,
        enforce: enforce.unwrap_or(true),
        accept_when_down: choice(section, "when_down").unwrap_or(false),
        timeout: span(section, "timeout", Duration::from_secs(15)),
    })
}

fn rspamd(section: &Section<'_>) -> Option<Rspamd> {
    if !section.present() {
        return None;
    }
    section.require::<String>("url");
    let url = section.parse(
        "url",
        "write where Rspamd's normal worker listens, such as \"http://127.0.0.1:11333\"",
        worker,
    );
    let accept_when_down = choice(section, "when_down").unwrap_or(false);
    let greylist = !choice(section, "greylist").unwrap_or(false);
    let header = section
        .parse(
            "header",
            "write one short field whose name begins with X-, such as \"X-Spam: Yes\"",
            field,
        )
        .unwrap_or_else(|| "X-Spam: Yes".into());
    let max_size = section.get_or("max_size", Size(20_000_000)).0;
    Some(Rspamd {
        timeout: span(section, "timeout", Duration::from_secs(15)),
        max_size: positive(section, "max_size", max_size),
        accept_when_down,
        greylist,
        header,
        url: url?,
    })
}

/// `"accept"` or `"defer"`: whether it is accepted.
fn choice(section: &Section<'_>, key: &str) -> Option<bool> {
    section.parse(key, "write \"accept\" or \"defer\"", |text| match text {
        "accept" => Ok(true),
        "defer" => Ok(false),
        _ => Err("is not a choice".into()),
    })
}

fn worker(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "http" {
        return Err(format!("the scheme is {}, not http", url.scheme()));
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port()) else {
        return Err("has no host or no port".into());
    };
    let extra = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    if extra || !url.username().is_empty() || url.password().is_some() {
        return Err("has more than a host and a port".into());
    }
    Ok(format!("http://{host}:{port}/checkv2"))
}

fn field(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("has no colon")?;
    let own = name
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("x-"));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !own || name.len() < 3 || !name.chars().all(word) {
        return Err("is not a name that begins with X-".into());
    }
    let value = value.trim();
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    if value.is_empty() || !value.chars().all(plain) || text.len() > FIELD_MAX {
        return Err(format!("has to be printable ASCII of at most {FIELD_MAX} octets"));
    }
    Ok(format!("{name}: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_mark_and_urls() {
        for (text, expected) in [
            ("X-Spam: Yes", Some("X-Spam: Yes")),
            ("x-spam:yes ", Some("x-spam: yes")),
            ("Subject: spam", None),
            ("X-: a", None),
            ("X-Spam", None),
            ("X-Spam: ", None),
            ("X-Spam: a\r\nBcc: b", None),
            ("X-Späm: a", None),
        ] {
            assert_eq!(field(text).ok().as_deref(), expected, "{text:?}");
        }
        for (text, expected) in [
            ("http://127.0.0.1:11333", Some("http://127.0.0.1:11333/checkv2")),
            ("http://[::1]:11333/", Some("http://[::1]:11333/checkv2")),
            ("https://127.0.0.1:11333", None),
            ("http://127.0.0.1", None),
            ("http://u:p@127.0.0.1:11333", None),
            ("http://127.0.0.1:11333/checkv2", None),
            ("127.0.0.1:11333", None),
        ] {
            assert_eq!(worker(text).ok().as_deref(), expected, "{text}");
        }
    }
}
