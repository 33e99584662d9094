//! Where the REST interface of a running program is.

use std::path::{Path, PathBuf};

use crate::{
    args::{CLIENT_CONFIG, Place},
    failure::{Failure, code},
};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Host and port, as in a URL's authority.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A REST interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: Address,
    /// What stands before `/v1`, without a slash at its end.
    pub(crate) prefix: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
}

impl Endpoint {
    /// Finds the interface that the options name, the agent's of this host by default.
    ///
    /// # Errors
    /// When the URL, the configuration or the token file cannot be used.
    pub(crate) fn find(place: &Place) -> Result<Self, Failure> {
        let (address, prefix) = match (&place.url, &place.socket) {
            (Some(url), _) => from_url(url)?,
            (None, Some(path)) => (Address::Unix(path.clone()), String::new()),
            (None, None) => {
                let file = place.config.as_deref().unwrap_or(Path::new(CLIENT_CONFIG));
                (from_config(file)?, String::new())
            }
        };
        let token = place.token_file.as_deref().map(token).transpose()?;
        Ok(Self {
            address,
            prefix,
            token,
        })
    }

    /// The value of the header field `Host`.
    pub(crate) fn host(&self) -> &str {
        match &self.address {
            Address::Tcp(authority) => authority,
            Address::Unix(_) => "localhost",
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Address::Tcp(authority) => write!(f, "http://{authority}{}", self.prefix),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn from_url(text: &str) -> Result<(Address, String), Failure> {
    let wrong = |what: &str| {
        Failure::new(
            code::USAGE,
            format!("--url {text}: {what}"),
            "write it as http://127.0.0.1:8025",
        )
    };
    let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "http" {
        return Err(wrong("only http is spoken here, on loopback or a Unix socket"));
    }
    let host = url.host_str().ok_or_else(|| wrong("it names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let prefix = url.path().trim_end_matches('/').to_owned();
    Ok((Address::Tcp(format!("{host}:{port}")), prefix))
}

/// The listener in a configuration file. Only its section is read, since who hands over mail may not be allowed to read the
/// certificates that the rest of the file names.
fn from_config(file: &Path) -> Result<Address, Failure> {
    let wrong = |what: String| {
        Failure::new(
            code::CONFIG,
            format!("{}: {what}", file.display()),
            "name another file with --config, or the listener with --url or --socket",
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
    let section = ["ingest", "admin"]
        .into_iter()
        .find_map(|name| table.get(name)?.as_table())
        .ok_or_else(|| wrong("has neither an [ingest] nor an [admin] section".into()))?;
    let text_of = |key: &str| section.get(key).and_then(toml::Value::as_str);
    if let Some(path) = text_of("socket") {
        let folder = file.parent().unwrap_or(Path::new("."));
        return Ok(Address::Unix(folder.join(path)));
    }
    let listen = text_of("listen").ok_or_else(|| wrong("names no listener".into()))?;
    let mut address: std::net::SocketAddr = listen
        .parse()
        .map_err(|_| wrong(format!("\"{listen}\" is not an address and port")))?;
    // A listener on every address is reached on loopback.
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    Ok(Address::Tcp(address.to_string()))
}

fn token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(
            code::NOINPUT,
            format!("{}: cannot be read: {error}", file.display()),
            "give read access to the token file",
        )
    })?;
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    let word = line.and_then(|line| line.split_whitespace().next_back());
    word.map(str::to_owned).ok_or_else(|| {
        Failure::new(
            code::CONFIG,
            format!("{}: holds no token", file.display()),
            "write the token into its first line",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let (address, prefix) = from_url("http://127.0.0.1:8025/").unwrap();
        assert_eq!(
            (address, prefix.as_str()),
            (Address::Tcp("127.0.0.1:8025".into()), "")
        );
        let (address, prefix) = from_url("http://[::1]/mail/").unwrap();
        assert_eq!(
            (address, prefix.as_str()),
            (Address::Tcp("[::1]:80".into()), "/mail")
        );
        for text in ["https://h", "127.0.0.1:8025", "unix:/x", ""] {
            assert_eq!(from_url(text).unwrap_err().code, code::USAGE, "{text}");
        }
    }

    #[test]
    fn listeners_in_configurations() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        for (text, expected) in [
            (
                "[ingest]\nlisten = \"127.0.0.1:8025\"",
                Some(Address::Tcp("127.0.0.1:8025".into())),
            ),
            (
                "[ingest]\nlisten = \"0.0.0.0:1\"",
                Some(Address::Tcp("127.0.0.1:1".into())),
            ),
            (
                "[admin]\nlisten = \"[::]:1\"",
                Some(Address::Tcp("[::1]:1".into())),
            ),
            (
                "[admin]\nlisten = \"[::]:1\"\nsocket = \"s\"",
                Some(Address::Unix(folder.path().join("s"))),
            ),
            ("[admin]", None),
            ("name = 1", None),
            ("[ingest", None),
            ("[ingest]\nlisten = \"here\"", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(from_config(&file).ok(), expected, "{text}");
        }
        assert_eq!(
            from_config(&folder.path().join("absent")).unwrap_err().code,
            code::CONFIG
        );
    }

    #[test]
    fn tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for (text, expected) in [
            ("abc\n", Some("abc")),
            ("# ours\n\npostfix abc\n", Some("abc")),
            ("\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(token(&file).ok().as_deref(), expected, "{text}");
        }
    }
}
