//! `lightpost check`: everything that is wrong with a configuration file, at once.

mod database;

use std::path::Path;

use lightpost_clock::Clock;
use lightpost_config::{Problem, Problems};
use lightpost_queue::sqlite::inspect::Inspection;
use lightpost_server::Warning;
use serde_json::json;

use crate::{
    args::{Check, Program},
    failure::{Failure, code},
    output::{Output, Tone},
    secrets,
};

/// A configuration of one of the two programs.
pub(crate) enum Loaded {
    /// The agent's.
    Client(Box<lightpost_client::Config>),
    /// The gateway's.
    Server(Box<lightpost_server::Config>),
}

impl Loaded {
    fn database(&self) -> &Path {
        match self {
            Self::Client(config) => &config.database,
            Self::Server(config) => &config.database,
        }
    }
}

/// Why there is no configuration.
pub(crate) enum Unusable {
    /// These problems.
    Problems(Problems),
    /// Whose configuration it is cannot be told.
    Unknown(Failure),
}

/// Runs the command.
pub(crate) fn run(options: &Check, output: Output) -> Result<(), Failure> {
    match load(&options.config, options.program) {
        Ok(loaded) => look(&options.config, &loaded, output),
        Err(Unusable::Unknown(failure)) => Err(failure),
        Err(Unusable::Problems(problems)) => refuse(&problems, output),
    }
}

/// What a configuration names: certificates, secrets, the database.
fn look(file: &Path, loaded: &Loaded, output: Output) -> Result<(), Failure> {
    let database = database::look(loaded.database())?;
    match (warnings(file, loaded), database) {
        (Ok(mut warnings), Ok(database)) => {
            warnings.extend(secrets::open_to_all(file));
            summary(file, loaded, &database, &warnings, output)
        }
        (certificates, database) => {
            let certificates = certificates.err().into_iter().flat_map(|it| it.problems);
            let problems = Problems {
                file: file.to_owned(),
                problems: database.err().into_iter().chain(certificates).collect(),
            };
            refuse(&problems, output)
        }
    }
}

fn refuse(problems: &Problems, output: Output) -> Result<(), Failure> {
    if output.json {
        output.value(&json!({"ok": false, "file": problems.file, "problems": problems.problems}))?;
        // The problems stand on standard output; a second JSON value would disturb its reader.
        return Err(Failure::new(code::CONFIG, "", ""));
    }
    Err(failure(problems))
}

/// What works and could be better.
///
/// # Errors
/// When the files that the configuration names do not work together.
fn warnings(file: &Path, loaded: &Loaded) -> Result<Vec<Warning>, Problems> {
    let config = match loaded {
        Loaded::Server(config) => config,
        Loaded::Client(config) => return certificates(file, config).map(|()| Vec::new()),
    };
    lightpost_server::advise(config, &Clock::system()).map_err(|error| Problems {
        file: file.to_owned(),
        problems: vec![Problem {
            line: None,
            key: "listen".into(),
            what: error.to_string(),
            remedy: "name a certificate chain, its key and the CAs of clients, all in PEM".into(),
        }],
    })
}

/// Whether the certificates for STARTTLS can be used.
fn certificates(file: &Path, config: &lightpost_client::Config) -> Result<(), Problems> {
    let sections = [("smtp", &config.smtp), ("lmtp", &config.lmtp)];
    let wrong = sections.into_iter().filter_map(|(name, section)| {
        let error = section.as_ref()?.tls().err()?;
        Some(Problem {
            line: None,
            key: format!("{name}.certificate"),
            what: error.to_string(),
            remedy: "name a certificate chain, its key and the CAs of clients, all in PEM".into(),
        })
    });
    let problems: Vec<_> = wrong.collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Problems {
        file: file.to_owned(),
        problems,
    })
}

/// The problems as what ends a command.
pub(crate) fn failure(problems: &Problems) -> Failure {
    Failure::new(code::CONFIG, problems.to_string(), "")
}

/// Reads a file of either program.
///
/// # Errors
/// All problems, or that it cannot be told whose it is.
pub(crate) fn load(file: &Path, program: Option<Program>) -> Result<Loaded, Unusable> {
    let program = match program.or_else(|| guess(file)) {
        Some(program) => program,
        // A file that cannot be read is better explained by its reader.
        None if !readable(file) => Program::Client,
        None => {
            let what = format!(
                "{}: has neither an [ingest] nor a [listen] section",
                file.display()
            );
            let remedy = "say whose configuration it is with --as client or --as server";
            return Err(Unusable::Unknown(Failure::new(code::CONFIG, what, remedy)));
        }
    };
    insist(file, program).map_err(Unusable::Unknown)?;
    match program {
        Program::Client => {
            lightpost_client::Config::load(file).map(|config| Loaded::Client(Box::new(config)))
        }
        Program::Server => {
            lightpost_server::Config::load(file).map(|config| Loaded::Server(Box::new(config)))
        }
    }
    .map_err(Unusable::Problems)
}

/// Whether it can be read as TOML.
fn readable(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.parse::<toml::Table>().is_ok())
}

/// Whose configuration it is, by the first section that only one of the programs has. Works on files with mistakes, too.
fn guess(file: &Path) -> Option<Program> {
    owners(&std::fs::read_to_string(file).ok()?).next()
}

/// Of each section that only one of the programs has, which one.
fn owners(text: &str) -> impl Iterator<Item = Program> {
    text.lines()
        .filter_map(|line| match line.split('#').next().unwrap_or_default().trim() {
            "[ingest]" | "[[route]]" | "[resolver]" => Some(Program::Client),
            "[listen]" | "[accept]" | "[[peer]]" | "[[onward]]" => Some(Program::Server),
            _ => None,
        })
}

/// Refuses a file of which every section is the other program's: one line instead of a list of all that is not as it should be.
///
/// # Errors
/// That it is the other's.
pub(crate) fn insist(file: &Path, program: Program) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut owners = owners(&text);
    let Some(owner) = owners.next().filter(|owner| *owner != program) else {
        return Ok(());
    };
    if owners.any(|other| other == program) {
        return Ok(());
    }
    let name = match owner {
        Program::Client => "client",
        Program::Server => "server",
    };
    let what = format!("{}: is a {name}'s configuration", file.display());
    Err(Failure::new(
        code::CONFIG,
        what,
        format!("start `lightpost {name}` with it, or name another file"),
    ))
}

fn summary(
    file: &Path,
    loaded: &Loaded,
    found: &Inspection,
    warnings: &[Warning],
    output: Output,
) -> Result<(), Failure> {
    let (program, name) = match loaded {
        Loaded::Client(config) => ("client", &config.name),
        Loaded::Server(config) => ("server", &config.name),
    };
    let database = loaded.database();
    if output.json {
        return output.value(&json!({
            "ok": true, "file": file, "program": program, "name": name, "database": database,
            "schema": database::version(found), "holder": found.holder, "warnings": warnings,
        }));
    }
    let ok = output.paint(Tone::Good, "ok");
    output.line(&format!("{}: {ok}, a {program}'s configuration", file.display()))?;
    for (label, value) in [
        ("name", name.clone()),
        (
            "database",
            format!("{} ({})", database.display(), database::told(found)),
        ),
    ] {
        output.line(&format!(
            "  {} {value}",
            output.paint(Tone::Faint, &format!("{label:9}"))
        ))?;
    }
    for Warning {
        key,
        file,
        what,
        remedy,
        ..
    } in warnings
    {
        let warning = output.paint(Tone::Waiting, "warning");
        output.line(&format!("{warning}: {key}: {}: {what}; {remedy}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_tell_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        for (text, expected) in [
            ("name = 1\n[ingest] # here\nlisten = 2", Some(Program::Client)),
            ("name = \"x\n[listen]\n", Some(Program::Server)),
            ("[path.moon]\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(guess(&file), expected, "{text}");
        }
    }

    #[test]
    fn the_other_programs_file_is_named_as_that() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        for (text, clients, servers) in [
            ("[ingest]\n[[route]]\n", true, false),
            ("[listen]\n", false, true),
            ("[listen]\n[resolver]\n", true, true),
            ("name = 1\n", true, true),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(insist(&file, Program::Client).is_ok(), clients, "{text}");
            assert_eq!(insist(&file, Program::Server).is_ok(), servers, "{text}");
        }
    }

    #[test]
    fn a_mistake_in_the_syntax_is_told_before_whose_file_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        std::fs::write(&file, "name = \"x\n").unwrap();
        let Err(Unusable::Problems(problems)) = load(&file, None) else {
            panic!("no problems");
        };
        assert!(
            problems.to_string().contains("mend the TOML syntax"),
            "{problems}"
        );
        std::fs::write(&file, "name = \"x\"\n").unwrap();
        assert!(matches!(load(&file, None), Err(Unusable::Unknown(_))));
    }

    #[test]
    fn a_file_that_does_not_exist_is_named() {
        let Err(Unusable::Problems(problems)) = load(Path::new("/nonexistent/x.toml"), None) else {
            panic!("no problems");
        };
        assert!(problems.to_string().contains("/nonexistent/x.toml"));
    }
}
