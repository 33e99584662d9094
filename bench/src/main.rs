//! How fast Lightpost is.
//!
//! `cargo run --release -p bench -- accept|relay|bundle|backlog [--json]` (`accept --via smtp` for SMTP on both sides), beside Postfix on the same machine in the same run: ours are
//! the release programs with real configuration files and a database on the disk that Postfix's queue is on too; both sync
//! before they acknowledge.
//!
//! `cargo run --release -p bench -- distance|loss|disruption [--json]`, in light times: both programs in one process, in virtual
//! time, with everything but the clock and the UDP socket as it is shipped.

mod accept;
mod backlog;
mod bundle;
mod ion;
mod lightpost;
mod load;
mod octets;
mod place;
mod postfix;
mod process;
mod relay;
mod report;
mod sink;
mod smtp;

use std::{future::Future, path::PathBuf, process::ExitCode};

use bench::warped::{Role, Warp};
use clap::{Parser, Subcommand};

/// A failure: one line that says what is wrong and what to do.
type Result<T> = std::result::Result<T, String>;

/// Measures Lightpost.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Arguments {
    /// Print an array of flat JSON rows.
    #[arg(long, global = true)]
    json: bool,
    /// Where queues and databases are laid; on a real disk [default: bench/ beside the release binaries]
    #[arg(long, global = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Keep the files of the run.
    #[arg(long, global = true)]
    keep: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Durable accept on 20 connections: REST or SMTP here, SMTP there.
    Accept {
        /// How mail comes to us.
        #[arg(long, value_enum, default_value = "rest")]
        via: accept::Via,
        /// Mails to Postfix; ours get ten times as many.
        #[arg(long, default_value_t = 3000)]
        mails: usize,
    },
    /// From hand-over to the far SMTP server: through both programs here, through Postfix there.
    Relay {
        /// Mails to Postfix; ours get five times as many.
        #[arg(long, default_value_t = 2000)]
        mails: usize,
    },
    /// The same through both programs in bundles, beside HTTP/3; octets of a mail; through ION, where it is installed.
    Bundle {
        /// Mails each way.
        #[arg(long, default_value_t = 4000)]
        mails: usize,
        /// Only what goes through ION.
        #[arg(long)]
        only_ion: bool,
    },
    /// An agent with a large queue: start, memory, rate.
    Backlog {
        /// Queued mails.
        #[arg(long, default_value_t = 1_000_000)]
        mails: usize,
    },
    /// A mail of 4 KiB to the Moon and to Mars, in light times: cold, warm, resumed, after restarts; beside quinn's defaults and
    /// SMTP.
    Distance {
        /// Draw the table into this file, as SVG.
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
    },
    /// What lost datagrams cost that mail.
    Loss {
        /// Mails for each row.
        #[arg(long, default_value_t = 500)]
        seeds: u64,
    },
    /// Outages of six hours in a transfer of 20 MiB, and what comes right after them.
    Disruption,
    /// One of the two programs, in warped time; for the tests.
    #[command(hide = true)]
    Role {
        #[arg(value_parser = ["client", "server"])]
        name: String,
        folder: PathBuf,
        base: jiff::Timestamp,
        anchor: jiff::Timestamp,
        factor: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = report::Progress::new();
    match run(&arguments, &progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs in real time.
fn really<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system refuses a runtime: {error}"))?;
    runtime.block_on(what)
}

fn run(arguments: &Arguments, progress: &report::Progress) -> Result<()> {
    let json = arguments.json;
    match &arguments.what {
        What::Accept { .. } | What::Relay { .. } | What::Bundle { .. } | What::Backlog { .. } => {
            let rows = really(beside_postfix(arguments, progress))?;
            report::print(&rows, json, report::table)
        }
        What::Distance { picture } => {
            let rows = distances(arguments, progress)?;
            if let Some(file) = picture {
                let svg = bench::picture::svg(&rows);
                std::fs::write(file, svg).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            report::print(&rows, json, bench::table::distance)
        }
        What::Loss { seeds } => {
            let rows = bench::loss::rows(*seeds, |row| {
                progress.say(&format!(
                    "  {} at {} % loss: 99 % within {}",
                    row.name,
                    row.loss * 100.0,
                    row.p99_owlt
                ));
            })?;
            report::print(&rows, json, bench::table::loss)
        }
        What::Role {
            name,
            folder,
            base,
            anchor,
            factor,
        } => {
            let role = match name.as_str() {
                "client" => Role::Client,
                _ => Role::Server,
            };
            let (base, anchor, factor) = (*base, *anchor, *factor);
            role.run(folder, Warp { base, anchor, factor })
        }
        What::Disruption => {
            let rows = bench::disruption::rows(|row| {
                progress.say(&format!(
                    "  {}: {:.0} s, ideal {:.0} s",
                    row.name, row.ours, row.ideal
                ));
            })?;
            report::print(&rows, json, bench::table::disruption)
        }
    }
}

async fn beside_postfix(arguments: &Arguments, progress: &report::Progress) -> Result<Vec<report::Row>> {
    let place = place::Place::new(arguments.folder.as_deref(), arguments.keep)?;
    progress.say(&place.describe());
    let binary = lightpost::binary(progress)?;
    match arguments.what {
        What::Accept { via, mails } => accept::run(&place, &binary, (via, mails), progress).await,
        What::Relay { mails } => relay::run(&place, &binary, mails, progress).await,
        What::Bundle {
            mails,
            only_ion: true,
        } => ion::rows(&place, &binary, mails, progress).await,
        What::Bundle { mails, .. } => bundle::run(&place, &binary, mails, progress).await,
        What::Backlog { mails } => backlog::run(&place, &binary, mails, progress).await,
        What::Distance { .. } | What::Loss { .. } | What::Disruption | What::Role { .. } => Ok(Vec::new()),
    }
}

/// Virtual time, then the same in real time, then SMTP.
fn distances(arguments: &Arguments, progress: &report::Progress) -> Result<Vec<bench::distance::Row>> {
    let told = |row: &bench::distance::Row| {
        let gateway = row
            .gateway_owlt
            .map_or_else(|| "never".into(), |it| format!("{it:.3}"));
        progress.say(&format!("  {} at {} s: {gateway}", row.name, row.owlt_s));
    };
    let mut rows = bench::distance::rows(told)?;
    progress.say("in real time, 2 s away");
    rows.extend(really(bench::real::rows())?);
    let place = place::Place::new(arguments.folder.as_deref(), arguments.keep)?;
    match really(smtp::row(&place)) {
        Ok(row) => rows.push(row),
        // It is a comparison; without Postfix there is none.
        Err(cause) => progress.say(&format!("no row for SMTP: {cause}")),
    }
    Ok(rows)
}
