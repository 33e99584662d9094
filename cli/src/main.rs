//! `lightpost`: mail at one light time. This binary is glue: it reads arguments, starts what the libraries offer, prints.

mod args;
mod bsmtp;
mod check;
mod connection;
mod demo;
mod discover;
mod endpoint;
mod failure;
mod ion_agent;
mod output;
mod problem;
mod profile;
mod queue;
mod secrets;
mod serve;
mod submit;

use std::process::ExitCode;

use args::Command;

/// Many small, short-lived pieces by several threads: faster than the system's allocator when mail is accepted, for somewhat more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
use failure::{Failure, code};
use output::Output;

fn main() -> ExitCode {
    let arguments = match args::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let output = Output::new(arguments.json);
    let result = match arguments.command {
        Command::Client(options) => serve::client(&options),
        Command::Server(options) => serve::server(&options),
        Command::Check(options) => check::run(&options, output),
        Command::Submit(options) => return submit::run(options, output),
        Command::Queue(options) => queue::run(&options, output),
        Command::Discover(options) => discover::run(&options, output),
        Command::Profile(options) => profile::run(&options, output),
        Command::Bsmtp(options) => bsmtp::run(&options, output),
        Command::Demo(options) => demo::run(&options, output),
        Command::IonAgent => ion_agent::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

/// A runtime on this one thread: for commands that ask one thing and end.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| no_runtime(&error))
}

fn no_runtime(error: &std::io::Error) -> Failure {
    Failure::new(
        code::OSERR,
        format!("the system refuses a runtime: {error}"),
        "raise the limits on threads and open files",
    )
}
