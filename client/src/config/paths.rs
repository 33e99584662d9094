//! `[path.NAME]`: what physics says about a path, and what follows for waiting.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::HeaderValue;
use lightpost_config::{Section, duration_text};
use lightpost_intake::notify::NoticeSettings;
use lightpost_queue::schedule::{Notices, Policy};
use lightpost_transport::{
    Path,
    bundle::options::Form,
    ways::{Rules, Way},
};

use super::{Accepts, file, positive, span};

/// Octets of a small mail, about.
const SMALL_MAIL: f64 = 8192.0;
/// What a gateway takes to have a mail on its disk, about.
const STORING: Duration = Duration::from_millis(20);
/// Exchanges that are on their way at once at least, and at most, unless the operator says otherwise.
const LEAST_AT_ONCE: usize = 64;
const MOST_AT_ONCE: usize = 8192;

/// How objects are encoded on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// `Content-Encoding: zstd`.
    Zstd,
}

/// A path with the client's own settings for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathSettings {
    /// Its figures.
    pub path: Path,
    /// How long a mail is tried.
    pub lifetime: Duration,
    /// How objects are encoded.
    pub encoding: Encoding,
    /// Exchanges on their way at once, per gateway.
    pub concurrency: usize,
    /// Mails that are claimed at once.
    pub batch: usize,
    /// The wait after the first failed attempt.
    pub retry_first: Duration,
    /// The longest wait between attempts.
    pub retry_longest: Duration,
    /// How long a reply is awaited, where the operator fixed it.
    pub reply_within: Option<Duration>,
    /// What the far end takes.
    pub accepts: Accepts,
    /// When senders hear of late mail, where the operator fixed it.
    pub notices: NoticeSettings,
    /// Which transports it has, and when one takes over.
    pub rules: Rules,
    /// The bearer token for the gateways of this path.
    pub token: Option<Secret>,
}

impl PathSettings {
    /// How long a reply to an exchange of `octets` is awaited.
    pub fn reply(&self, octets: u64) -> Duration {
        self.reply_behind(octets, 0)
    }

    /// The same where `ahead` octets left before it and have no answer yet.
    pub fn reply_behind(&self, octets: u64, ahead: u64) -> Duration {
        match self.reply_within {
            Some(within) => within.saturating_add(self.path.sending(ahead)),
            None => self.path.reply_within(octets.saturating_add(ahead)),
        }
    }

    /// When senders hear that a mail of `octets` is late.
    pub fn notices(&self, octets: u64) -> Notices {
        self.notices
            .notices(self.lifetime, self.reply(octets), self.path.one_way_min)
    }

    /// The retry policy for an exchange of `octets`.
    pub fn policy(&self, octets: u64) -> Policy {
        Policy {
            first: self.retry_first,
            longest: self.retry_longest,
            factor: 2.0,
            lifetime: self.lifetime,
            reply: self.reply(octets),
        }
    }
}

/// A bearer token as a header value. Shows nothing of itself.
#[derive(Clone)]
pub struct Secret(HeaderValue);

impl Secret {
    /// The value of `Authorization`; marked as sensitive.
    pub fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }

    fn new(token: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads every `[path.NAME]`; `None` stands for one whose problems were noted.
pub(super) fn read(root: &Section<'_>) -> BTreeMap<String, Option<PathSettings>> {
    root.named("path")
        .into_iter()
        .map(|(name, section)| {
            let path = one(&name, &section);
            (name, path)
        })
        .collect()
}

fn one(name: &str, section: &Section<'_>) -> Option<PathSettings> {
    let path = Path::read(name, section);
    let rules = path.as_ref().map(|path| Rules::read(section, path));
    let bare = rules.as_ref().is_some_and(is_bare);
    let named = section.get::<String>("encoding");
    let encoding = section
        .parse("encoding", "write \"zstd\" or \"identity\"", |text| match text {
            "zstd" => Ok(Encoding::Zstd),
            "identity" => Ok(Encoding::Identity),
            _ => Err("is not an encoding".into()),
        })
        .unwrap_or(if bare { Encoding::Identity } else { Encoding::Zstd });
    if bare && named.as_deref() == Some("zstd") {
        section.wrong(
            "encoding",
            "is zstd, and a Batch SMTP object alone in a bundle says nothing of an encoding".into(),
            "remove it, or write `payload = \"http\"` in the path's bundle section".into(),
        );
    }
    let light = path
        .as_ref()
        .map_or(Duration::from_secs(1), |path| path.one_way_max);
    let outage = path.as_ref().map_or(Duration::ZERO, |path| path.outage_max);
    // One round trip at least: sooner, the cause of the failure cannot have become known to anyone on the far side.
    let first = (light * 4).max(Duration::from_secs(2));
    let longest = (outage / 4).max(first * 32).max(Duration::from_secs(120));
    let retry_first = span(section, "retry_first", first);
    let retry_longest = span(section, "retry_longest", longest.max(retry_first));
    let reply_within = section.get::<Duration>("reply_within");
    let lifetime = span(section, "lifetime", default_lifetime(light, outage));
    let concurrency = positive(
        section,
        "concurrency",
        section.get_or("concurrency", default_concurrency(path.as_ref())),
    );
    let batch = positive(section, "batch", section.get_or("batch", 64)).min(512);
    let token = token(section);
    let accepts = Accepts::read(section);
    let notices = NoticeSettings::read(section, NoticeSettings::default());
    let settings = PathSettings {
        path: path?,
        rules: rules?,
        lifetime,
        encoding,
        concurrency: concurrency.min(10_000),
        batch,
        retry_first,
        retry_longest,
        reply_within,
        accepts,
        notices,
        token,
    };
    check(section, &settings);
    Some(settings)
}

/// Whether objects travel without fields around them.
fn is_bare(rules: &Rules) -> bool {
    rules.order.contains(&Way::Bundle) && rules.bundle.form == Form::BatchSmtp
}

/// As many small mails as the line carries until the first of them is answered: fewer leave it idle, more only wait on it.
fn default_concurrency(path: Option<&Path>) -> usize {
    let Some(path) = path else { return LEAST_AT_ONCE };
    let answered = path.round_trip_max().saturating_add(STORING);
    let octets = path.rate_up.0 * answered.as_secs_f64() / 8.0;
    ((octets / SMALL_MAIL) as usize).clamp(LEAST_AT_ONCE, MOST_AT_ONCE)
}

/// Five days as elsewhere in mail, unless physics wants more.
fn default_lifetime(light: Duration, outage: Duration) -> Duration {
    Duration::from_secs(5 * 86_400).max((light * 2 + outage) * 4)
}

fn check(section: &Section<'_>, settings: &PathSettings) {
    let reply = settings.reply(0);
    if settings.lifetime < reply {
        section.wrong(
            "lifetime",
            format!(
                "{} is shorter than the time that one reply may take here, {}",
                duration_text(settings.lifetime),
                duration_text(reply)
            ),
            "make it several times as long, or mail is returned that has arrived".into(),
        );
    }
    if settings.retry_longest < settings.retry_first {
        section.wrong(
            "retry_longest",
            "is shorter than `retry_first`".into(),
            "make it as long or longer".into(),
        );
    }
    let light = settings.path.one_way_max * 2;
    if settings.reply_within.is_some_and(|reply| reply < light) {
        section.wrong(
            "reply_within",
            format!("no reply can come before {} on this path", duration_text(light)),
            "leave it out, it is derived from the light time and the outages".into(),
        );
    }
}

fn token(section: &Section<'_>) -> Option<Secret> {
    let path = file(section, "token")?;
    let text = std::fs::read_to_string(path).ok()?;
    let word = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .and_then(|line| line.split_ascii_whitespace().last());
    let secret = word.and_then(Secret::new);
    if secret.is_none() {
        section.wrong(
            "token",
            "the file holds no token".into(),
            "write the token as its only line".into(),
        );
    }
    secret
}
