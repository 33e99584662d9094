//! Each bad configuration of `tests/bad-configs` with what `lightpost check` has to say about it: every problem at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{fs, path::Path};

use lightpost_tests::{peer, programs};

#[test]
fn bad_configurations_are_refused_with_all_their_problems() {
    let folder = peer::root().join("tests/bad-configs");
    let mut checked = 0;
    let mut wrong = String::new();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
    {
        if let Err(problem) = check(file) {
            wrong.push_str(&format!("{}: {problem}\n", file.display()));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(checked >= 10, "only {checked} configurations");
}

/// The output is `NAME.expected`, but for the folder in front of the file's name.
fn check(file: &Path) -> Result<(), String> {
    let name = file.file_name().unwrap().to_string_lossy();
    let program = if name.starts_with("server") {
        "server"
    } else {
        "client"
    };
    let path = file.display().to_string();
    let finished = programs::lightpost(&["check", "--as", program, "--config", &path], b"");
    let output = finished.stdout + &finished.stderr;
    let output = output.replace(&format!("lightpost: {path}"), &name);
    if finished.status.code() != Some(78) {
        return Err(format!("{}, not exit code 78:\n{output}", finished.status));
    }
    let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
    if output == expected {
        return Ok(());
    }
    Err(format!("says\n{output}instead of\n{expected}"))
}

#[test]
fn the_samples_are_right_but_for_files_that_are_not_here() {
    for sample in ["client", "server", "site/client", "site/server"] {
        let path = peer::root()
            .join(format!("deploy/{sample}.toml"))
            .display()
            .to_string();
        let finished = programs::lightpost(&["check", "--config", &path], b"");
        let output = finished.stdout + &finished.stderr;
        for line in output.lines().filter(|line| line.contains(&path)) {
            assert!(
                line.contains("/etc/lightpost") || line.contains("/var/lib/lightpost"),
                "{line}"
            );
        }
        assert!(!output.contains("unknown"), "{output}");
    }
}
