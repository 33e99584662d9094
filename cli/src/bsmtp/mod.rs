//! `lightpost bsmtp`: Batch SMTP objects from and to files and pipes.

mod decode;
mod encode;

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use crate::{
    args::{Bsmtp, BsmtpAction},
    failure::{Failure, code},
    output::Output,
};

/// Runs the command.
pub(crate) fn run(options: &Bsmtp, output: Output) -> Result<(), Failure> {
    match &options.action {
        BsmtpAction::Encode(options) => encode::run(options, output),
        BsmtpAction::Decode(options) => decode::run(options, output),
    }
}

/// The named file, or standard input.
fn reader(file: Option<&Path>) -> Result<Box<dyn Read>, Failure> {
    let Some(file) = file else {
        return Ok(Box::new(io::stdin().lock()));
    };
    match File::open(file) {
        Ok(open) => Ok(Box::new(open)),
        Err(error) => Err(Failure::new(
            code::NOINPUT,
            format!("{}: {error}", file.display()),
            "name a readable file",
        )),
    }
}

/// The named file, or standard output.
fn writer(file: Option<&Path>) -> Result<Box<dyn Write>, Failure> {
    match file {
        None => Ok(Box::new(io::stdout().lock())),
        Some(file) => File::create(file)
            .map(|file| Box::new(file) as Box<dyn Write>)
            .map_err(|error| broken(&file.display().to_string(), &error)),
    }
}

fn broken(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        code::IOERR,
        format!("{what}: {error}"),
        "free some room or name another place",
    )
}
