//! What is wrong with a configuration, and what would be right.

use std::{fmt, path::PathBuf};

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line in the file, counted from 1; absent when a whole section or the file is missing.
    pub line: Option<usize>,
    /// The key with its sections, `listen.https.certificate`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

/// Everything that is wrong with one file; never empty when returned as an error.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
pub struct Problems {
    /// The file that was read.
    pub file: PathBuf,
    /// In the order of their lines.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}; {}", problem.what, problem.remedy)?;
        }
        Ok(())
    }
}
