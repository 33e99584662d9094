//! How fast Lightpost is, measured beside Postfix on the same machine in the same run.
//!
//! `cargo run --release -p bench -- accept|relay|backlog [--json]`. Ours are the release programs with real configuration
//! files and a database on the disk that Postfix's queue is on too; both sync before they acknowledge.

mod accept;
mod backlog;
mod lightpost;
mod load;
mod place;
mod postfix;
mod process;
mod relay;
mod report;
mod sink;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A failure: one line that says what is wrong and what to do.
type Result<T> = std::result::Result<T, String>;

/// Measures Lightpost beside Postfix.
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

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Durable accept on 20 connections: REST here, SMTP there.
    Accept {
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
    /// An agent with a large queue: start, memory, rate.
    Backlog {
        /// Queued mails.
        #[arg(long, default_value_t = 1_000_000)]
        mails: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = report::Progress::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(|error| format!("the system refuses a runtime: {error}"))
        .and_then(|runtime| runtime.block_on(run(&arguments, &progress)));
    match result.and_then(|rows| report::print(&rows, arguments.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, progress: &report::Progress) -> Result<Vec<report::Row>> {
    let place = place::Place::new(arguments.folder.as_deref(), arguments.keep)?;
    progress.say(&place.describe());
    let binary = lightpost::binary(progress)?;
    match arguments.what {
        What::Accept { mails } => accept::run(&place, &binary, mails, progress).await,
        What::Relay { mails } => relay::run(&place, &binary, mails, progress).await,
        What::Backlog { mails } => backlog::run(&place, &binary, mails, progress).await,
    }
}
