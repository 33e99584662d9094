//! The command line.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser, error::ErrorKind};
use lightpost_config::Rate;

use crate::failure::code;

/// Where the agent's configuration stands unless said otherwise.
pub(crate) const CLIENT_CONFIG: &str = "/etc/lightpost/client.toml";

/// Mail at one light time: takes mail from any MTA on Earth and carries it to the gateway of a celestial body.
///
/// Every site runs two programs: `lightpost client` takes mail from the local MTA, keeps it and sends it across;
/// `lightpost server` takes what comes from the other side, keeps it and hands it to the local MTA.
#[derive(Debug, Parser)]
#[command(
    name = "lightpost",
    version,
    max_term_width = 100,
    after_long_help = "\
Exit codes are those of sysexits.h: 0 done, 64 wrong arguments, 65 refused for good, 69 a service does not answer, 74 input or output \
failed, 75 try again later, 77 not allowed, 78 the configuration is wrong.

Try it without any configuration: lightpost demo"
)]
pub(crate) struct Arguments {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent beside the MTA: takes mail, keeps it, sends it across.
    #[command(after_long_help = CLIENT)]
    Client(Serve),
    /// Run the gateway: takes what comes across, keeps it, hands it to the local MTA.
    #[command(after_long_help = SERVER)]
    Server(Serve),
    /// Read a configuration file and name everything that is wrong with it.
    #[command(after_long_help = CHECK)]
    Check(Check),
    /// Hand over one mail from standard input, like sendmail.
    #[command(after_long_help = SUBMIT)]
    Submit(Submit),
    /// Look at and operate on the mail of a running agent or gateway.
    #[command(after_long_help = QUEUE)]
    Queue(Queue),
    /// Show the gateways of a domain in the order in which they are tried.
    #[command(after_long_help = DISCOVER)]
    Discover(Discover),
    /// Show the QUIC settings that follow from a path's light time, outages and rate, and why.
    #[command(after_long_help = PROFILE)]
    Profile(Profile),
    /// Write and read Batch SMTP objects (RFC 2442) without any network.
    #[command(after_long_help = BSMTP)]
    Bsmtp(Bsmtp),
    /// Watch mails cross eight light seconds on this machine: no root, no configuration, no other software.
    #[command(after_long_help = DEMO)]
    Demo(Demo),
    /// The process that talks to an ION node; started by the agent and the gateway themselves.
    #[command(hide = true)]
    IonAgent,
}

const CLIENT: &str = "\
The agent listens where [ingest] says (REST) and answers 202 when a mail is on disk. SIGTERM or SIGINT ends it; what is on its way is \
taken up again at the next start.

Examples:
  lightpost check --config /etc/lightpost/client.toml
  lightpost client --config /etc/lightpost/client.toml --log json";
const SERVER: &str = "\
The gateway listens where [listen] says (HTTP/3 on UDP, HTTP/2 and HTTP/1.1 on TCP). SIGTERM or SIGINT ends it; what it has \
acknowledged is on disk.

Examples:
  lightpost server --config /etc/lightpost/server.toml
  lightpost server --config server.toml --log-level info,lightpost_transport=debug";
const CHECK: &str = "\
Whether the file is an agent's or a gateway's shows in its sections; --as decides where it does not. Exit code 78 when anything is wrong.

Examples:
  lightpost check --config client.toml
  lightpost check --config server.toml --json | jq '.problems[]'";
const SUBMIT: &str = "\
Exit code 0: on disk at the agent, synced. 65: refused for good. 77: not allowed. 75: everything else, own mistakes included, because it \
is the one code for which every MTA keeps the mail and tries again.

An address may carry ESMTP parameters behind its closing bracket. `-f ''` and `-f '<>'` are the null reverse-path.

Examples:
  lightpost submit -f a@earth.example b@moon.example < mail.eml
  lightpost submit -f '<a@earth.example> RET=HDRS ENVID=7' '<b@moon.example> NOTIFY=FAILURE,DELAY' < mail.eml
  lightpost submit -t -i < mail.eml
  lightpost submit --batch --socket /run/lightpost/ingest.sock < batch.bsmtp

Postfix, master.cf (see deploy/mta/postfix):
  lightpost unix - n n - 20 pipe flags=q user=lightpost null_sender= eol=\\r\\n
    argv=/usr/bin/lightpost submit -f ${sender} -- ${recipient}
  main.cf: lightpost_destination_recipient_limit = 1";
const QUEUE: &str = "\
Talks to the REST interface of the running program: the agent's [ingest] listener or the gateway's [admin] listener, found in --config.

Examples:
  lightpost queue ls --status queued
  lightpost queue show 01JD2XVQ6Y0G3T6T1N9YFJ7KQZ
  lightpost queue retry 01JD2XVQ6Y0G3T6T1N9YFJ7KQZ --config /etc/lightpost/server.toml";
const DISCOVER: &str = "\
Static routes come first; without one that names gateways, the URI records of _bsmtp._https.DOMAIN are asked for, and when the resolver \
is silent the last known answer serves (`stale`).

Examples:
  lightpost discover moon.example --config client.toml";
const PROFILE: &str = "\
Examples:
  lightpost profile --config client.toml
  lightpost profile --config client.toml --path moon --json";
const BSMTP: &str = "\
Examples:
  lightpost bsmtp encode -f a@earth.example b@moon.example < mail.eml > object.bsmtp
  lightpost bsmtp decode object.bsmtp
  lightpost bsmtp decode --bodies out/ --json < object.bsmtp";
const DEMO: &str = "\
An agent, a gateway, a DNS server with the URI record and a mailbox, with a link of the asked light time, rate and loss between them. \
The very first mail pays for QUIC's handshake and arrives after three light times, later ones after one.

Examples:
  lightpost demo
  lightpost demo --owlt 1.3s --rate 2Mbit/s --loss 0.02
  lightpost demo --once --json --owlt 2s";

/// Options of the two programs.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// Logging options.
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    /// What is logged: error, warn, info, debug or trace, also per module: "info,lightpost_client=debug".
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Whose configuration a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// The agent.
    Client,
    /// The gateway.
    Server,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Whose configuration it is, when its sections do not tell.
    #[arg(long = "as", value_enum, value_name = "PROGRAM")]
    pub(crate) program: Option<Program>,
}

/// Where the REST interface of a running program is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Place {
    /// The program's REST listener by its URL, such as http://127.0.0.1:8025, instead of --config
    #[arg(long, value_name = "URL", group = "place")]
    pub(crate) url: Option<String>,
    /// The same by its Unix socket.
    #[arg(long, value_name = "PATH", group = "place")]
    pub(crate) socket: Option<PathBuf>,
    /// The program's configuration file, which names its listener [default: /etc/lightpost/client.toml]
    #[arg(long, value_name = "FILE", group = "place")]
    pub(crate) config: Option<PathBuf>,
    /// A file that holds the bearer token, alone or behind a name and a space.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Submit {
    /// The reverse-path, with ESMTP parameters if need be; empty for the null reverse-path.
    #[arg(
        short = 'f',
        value_name = "SENDER",
        required_unless_present_any = ["batch", "headers"],
        allow_hyphen_values = true
    )]
    pub(crate) sender: Option<String>,
    /// The recipients, each with its ESMTP parameters if need be.
    #[arg(value_name = "RECIPIENT", required_unless_present_any = ["batch", "headers"])]
    pub(crate) recipients: Vec<String>,
    /// Take recipients from To, Cc and Bcc, too, remove Bcc, and without -f take the reverse-path from From.
    #[arg(short = 't', conflicts_with = "batch")]
    pub(crate) headers: bool,
    /// Accepted for programs that call sendmail: a lone dot never ends a mail here.
    #[arg(short = 'i', hide = true)]
    pub(crate) ignore_dots: bool,
    /// Accepted for programs that call sendmail (-oi, -oem): none of these options changes anything here.
    #[arg(short = 'o', hide = true, value_name = "OPTION")]
    pub(crate) option: Vec<String>,
    /// Standard input is Batch SMTP (RFC 2442), which holds its own envelopes.
    #[arg(long, conflicts_with_all = ["sender", "recipients"])]
    pub(crate) batch: bool,
    /// What makes repeats of this hand-over one: the same id with the same mail is accepted once.
    #[arg(long, value_name = "KEY")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Queue {
    #[command(subcommand)]
    pub(crate) action: QueueAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueAction {
    /// List messages.
    Ls(List),
    /// Show one message with its history.
    Show(Message),
    /// Try waiting recipients now. What awaits a reply has left: it is repeated by itself, and this says when.
    Retry(Messages),
    /// Stop trying until released.
    Hold(Messages),
    /// End a hold.
    Release(Messages),
    /// Withdraw what has not left.
    Cancel(Messages),
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only messages with a recipient in this status.
    #[arg(long, value_parser = ["queued", "held", "leased", "awaiting", "delivered", "failed", "expired", "cancelled"])]
    pub(crate) status: Option<String>,
    /// Only messages with a recipient in this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) destination: Option<String>,
    /// Only messages from this reverse-path.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// Only messages after this id: the cursor that a listing ends with.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<ulid::Ulid>,
    /// At most so many messages.
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Message {
    /// The message's id, or one that it is known by elsewhere: an exchange's, the MTA's queue id, at a gateway the client's.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Messages {
    /// The messages' ids, or others that they are known by, as for `queue show`.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Discover {
    /// The domain of a recipient.
    pub(crate) domain: String,
    /// The agent's configuration file.
    #[arg(long, value_name = "FILE", default_value = CLIENT_CONFIG)]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Profile {
    /// The agent's or the gateway's configuration file.
    #[arg(long, value_name = "FILE", default_value = CLIENT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Only this path.
    #[arg(long, value_name = "NAME")]
    pub(crate) path: Option<String>,
    /// Whose configuration it is, when its sections do not tell.
    #[arg(long = "as", value_enum, value_name = "PROGRAM")]
    pub(crate) program: Option<Program>,
}

#[derive(Args, Debug)]
pub(crate) struct Bsmtp {
    #[command(subcommand)]
    pub(crate) action: BsmtpAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BsmtpAction {
    /// Turn a mail into an object.
    Encode(Encode),
    /// Show the envelopes of an object, and write its bodies.
    Decode(Decode),
}

#[derive(Args, Debug)]
pub(crate) struct Encode {
    /// The reverse-path, with ESMTP parameters if need be; empty for the null reverse-path.
    #[arg(short = 'f', value_name = "SENDER", allow_hyphen_values = true)]
    pub(crate) sender: String,
    /// The recipients, each with its ESMTP parameters if need be.
    #[arg(value_name = "RECIPIENT", required = true)]
    pub(crate) recipients: Vec<String>,
    /// The name in EHLO.
    #[arg(long, default_value = "localhost")]
    pub(crate) name: String,
    /// The mail [default: standard input]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Where the object goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Decode {
    /// The object [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Write the bodies as 1.eml, 2.eml, ... into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) bodies: Option<PathBuf>,
    /// Refuse line ends other than CRLF, as a gateway does.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// The one-way light time, at most a day.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = light_time)]
    pub(crate) owlt: Duration,
    /// The link's rate, each way.
    #[arg(long, value_name = "RATE", default_value = "1Mbit/s", value_parser = rate)]
    pub(crate) rate: Rate,
    /// The share of packets that is lost, 0 to 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = loss)]
    pub(crate) loss: f64,
    /// What carries the mail.
    #[arg(long, value_enum, default_value_t = Carrier::Quic)]
    pub(crate) transport: Carrier,
    /// End after the first mail.
    #[arg(long)]
    pub(crate) once: bool,
    /// What is logged on standard error.
    #[arg(long, value_name = "FILTER", default_value = "off")]
    pub(crate) log_level: String,
}

/// What carries mail in the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// HTTP/3 on QUIC.
    Quic,
    /// Bundle Protocol.
    Bundle,
}

/// The longest light time of the demo, which takes as long as it says.
const LONGEST: Duration = Duration::from_secs(86_400);

fn light_time(text: &str) -> Result<Duration, String> {
    match duration(text) {
        None => Err("write a duration with its unit, such as 1.3s, 8s or 22m".into()),
        Some(time) if time.is_zero() => {
            Err("light takes some time; write one such as 1.3s, 8s or 22m".into())
        }
        Some(time) if time > LONGEST => {
            Err("the demo takes as long as light does; write a day (1d) or less, such as 8s".into())
        }
        Some(time) => Ok(time),
    }
}

/// A duration as configuration files write it; the reader there works on TOML values only.
fn duration(text: &str) -> Option<Duration> {
    let quoted = format!("at = {text:?}");
    let read = lightpost_config::read_text(std::path::Path::new("--owlt"), &quoted, |root| {
        root.get::<Duration>("at")
    });
    read.ok()
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text).ok_or_else(|| "write a rate such as 64kbit/s or 2Mbit/s".into())
}

fn loss(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.5).contains(share));
    share.ok_or_else(|| "write a share from 0 to 0.5, such as 0.01".into())
}

/// Reads the arguments. Help and mistakes are printed here; the error is the exit code.
pub(crate) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    let arguments: Vec<OsString> = arguments.collect();
    Arguments::try_parse_from(&arguments).map_err(|error| {
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
            // An MTA must keep the mail when its call of `submit` has a mistake.
            _ if arguments.iter().skip(1).any(|word| word == "submit") => ExitCode::from(code::TEMPFAIL),
            _ => ExitCode::from(code::USAGE),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, ExitCode> {
        read(line.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn null_sender_and_parameters() {
        let arguments = parse(&["lightpost", "submit", "-f", "", "--", "<b@c> NOTIFY=NEVER"]).unwrap();
        let Command::Submit(submit) = arguments.command else {
            panic!("not submit");
        };
        assert_eq!(submit.sender.as_deref(), Some(""));
        assert_eq!(submit.recipients, ["<b@c> NOTIFY=NEVER"]);
    }

    #[test]
    fn mistakes_of_submit_keep_the_mail() {
        for line in [
            &["lightpost", "submit"][..],
            &["lightpost", "submit", "--nonsense", "a@b"],
            &["lightpost", "--json", "submit", "-f", "a@b"],
        ] {
            let exit = parse(line).unwrap_err();
            assert_eq!(
                format!("{exit:?}"),
                format!("{:?}", ExitCode::from(code::TEMPFAIL)),
                "{line:?}"
            );
        }
        let exit = parse(&["lightpost", "queue"]).unwrap_err();
        assert_eq!(format!("{exit:?}"), format!("{:?}", ExitCode::from(code::USAGE)));
    }

    #[test]
    fn figures_of_the_demo() {
        assert_eq!(light_time("1.3s"), Ok(Duration::from_millis(1300)));
        assert_eq!(light_time("1d"), Ok(LONGEST));
        for (text, expected) in [
            ("8", "with its unit"),
            ("0s", "light takes some time"),
            ("999d", "a day (1d) or less"),
        ] {
            let said = light_time(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert!(loss("0.6").is_err() && loss("0.01").is_ok());
        assert!(rate("fast").is_err());
    }
}
