//! What `lightpost check` says of the database: a look that changes nothing, also while the program runs.

use std::path::Path;

use lightpost_config::Problem;
use lightpost_queue::sqlite::inspect::{Inspection, Schema, inspect};

use crate::{failure::Failure, small_runtime};

/// Looks at the database `path`; the problem when no program can work on it as this user.
///
/// # Errors
/// When the system refuses what a look needs.
pub(super) fn look(path: &Path) -> Result<Result<Inspection, Problem>, Failure> {
    let found = small_runtime()?.block_on(inspect(path));
    Ok(found.map_err(|unfit| Problem {
        line: None,
        key: "database".into(),
        what: unfit.to_string(),
        remedy: unfit.remedy().into(),
    }))
}

/// In words.
pub(super) fn told(found: &Inspection) -> String {
    let mut told = match &found.schema {
        Schema::None => "made at the first start".to_owned(),
        Schema::Version { found, known } if found == known => format!("schema {found}"),
        Schema::Version { found, known } => {
            format!("schema {found}, brought to {known} at the next start")
        }
        Schema::Unseen(why) => format!("not looked into: {why}"),
    };
    if let Some(holder) = &found.holder {
        told += &format!(", in use by {holder}");
    }
    told
}

/// The version of its schema, for programs.
pub(super) const fn version(found: &Inspection) -> Option<i64> {
    match found.schema {
        Schema::Version { found, .. } => Some(found),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_in_words() {
        let version = |found| Schema::Version { found, known: 8 };
        for (schema, holder, expected) in [
            (Schema::None, None, "made at the first start"),
            (version(8), Some("process 7"), "schema 8, in use by process 7"),
            (version(5), None, "schema 5, brought to 8 at the next start"),
        ] {
            let found = Inspection {
                schema,
                holder: holder.map(str::to_owned),
            };
            assert_eq!(told(&found), expected);
        }
    }
}
