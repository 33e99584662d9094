//! Walking a TOML file with typed getters that note problems instead of failing.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{Problem, Problems, Value, syntax};

/// Reads `file` with `walk`, which builds the configuration from the root section.
///
/// # Errors
/// Everything that is wrong with the file: that it cannot be read, all syntax errors, or all that `walk` found.
pub fn read<T>(file: &Path, walk: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<T, Problems> {
    let text = std::fs::read_to_string(file).map_err(|error| Problems {
        file: file.to_owned(),
        problems: vec![Problem {
            line: None,
            key: String::new(),
            what: format!("cannot be read: {error}"),
            remedy: "name a readable TOML file with --config".into(),
        }],
    })?;
    read_text(file, &text, walk)
}

/// Reads `text` as if it stood in `file`; see [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_text<T>(
    file: &Path,
    text: &str,
    walk: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let document = Document {
        file: file.to_owned(),
        text,
        problems: RefCell::default(),
    };
    for error in errors {
        let problem = syntax::problem(text, error.span(), error.message());
        document.problems.borrow_mut().push(problem);
    }
    let mut value = None;
    if document.problems.borrow().is_empty() {
        let root = Section::new(&document, String::new(), None, Some(table.get_ref()));
        value = walk(&root);
    }
    match value {
        Some(value) if document.problems.borrow().is_empty() => Ok(value),
        _ => Err(document.into_problems()),
    }
}

/// The file that is being read and what was found wrong with it so far.
#[derive(Debug)]
struct Document<'t> {
    file: PathBuf,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl Document<'_> {
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    fn into_problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            // A walk that gives up without saying why is a defect of the walk; the operator still gets a line.
            let (what, remedy) = (
                "is incomplete".to_owned(),
                "compare it with the sample in deploy/".to_owned(),
            );
            problems.push(Problem {
                line: None,
                key: String::new(),
                what,
                remedy,
            });
        }
        problems.sort_by_key(|problem| problem.line);
        Problems {
            file: self.file,
            problems,
        }
    }

    fn note(&self, line: Option<usize>, key: &str, what: String, remedy: String) {
        self.problems.borrow_mut().push(Problem {
            line,
            key: key.to_owned(),
            what,
            remedy,
        });
    }

    fn line(&self, offset: usize) -> usize {
        self.text
            .bytes()
            .take(offset)
            .filter(|octet| *octet == b'\n')
            .count()
            + 1
    }
}

/// A table of the file. A section that the file lacks reads as empty, so defaults apply.
///
/// Dropping a section notes the keys in it that nobody asked for.
#[derive(Debug)]
pub struct Section<'d> {
    document: &'d Document<'d>,
    table: Option<&'d DeTable<'d>>,
    path: String,
    line: Option<usize>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'d> Section<'d> {
    /// Whether the file has this section.
    pub fn present(&self) -> bool {
        self.table.is_some()
    }

    /// The section's name with those above it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of `key`, `None` when it is absent or (noted) wrong.
    pub fn get<T: Value>(&self, key: &str) -> Option<T> {
        let value = self.find(key)?;
        let read = T::read(value.get_ref());
        if read.is_none() {
            self.wrong(
                key,
                format!("{} is not right here", short(value.get_ref())),
                format!("write {}", T::EXPECTED),
            );
        }
        read
    }

    /// The value of `key`, or `default`.
    pub fn get_or<T: Value>(&self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of `key`; its absence is a problem.
    pub fn require<T: Value>(&self, key: &str) -> Option<T> {
        if self.find(key).is_none() {
            self.wrong(key, "is missing".into(), format!("add it: {}", T::EXPECTED));
            return None;
        }
        self.get(key)
    }

    /// The value of `key` through `parse`, whose error text is noted with `remedy`.
    pub fn parse<T>(&self, key: &str, remedy: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text: String = self.get(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(key, format!("\"{text}\": {what}"), remedy.to_owned());
                None
            }
        }
    }

    /// A path; a relative one counts from the configuration file's folder.
    pub fn path_of(&self, key: &str) -> Option<PathBuf> {
        self.get::<PathBuf>(key)
            .map(|path| self.document.folder().join(path))
    }

    /// A required path; a relative one counts from the configuration file's folder.
    pub fn require_path(&self, key: &str) -> Option<PathBuf> {
        self.require::<PathBuf>(key)
            .map(|path| self.document.folder().join(path))
    }

    /// The table `key` below this one; empty when absent.
    pub fn section(&self, key: &str) -> Section<'d> {
        let found = self.find(key);
        let table = match found.map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            Some(_) => {
                self.wrong(
                    key,
                    "is not a table".into(),
                    format!("write it as [{}]", self.name(key)),
                );
                None
            }
            None => None,
        };
        let line = found.map(|value| self.document.line(value.span().start));
        Section::new(self.document, self.name(key), line, table)
    }

    /// The tables below `[key]`, by name: `[key.one]`, `[key.two]`.
    pub fn named(&self, key: &str) -> Vec<(String, Section<'d>)> {
        let parent = self.section(key);
        let mut children = Vec::new();
        for (name, _) in parent.table.into_iter().flat_map(|table| table.iter()) {
            let name = name.get_ref().to_string();
            children.push((name.clone(), parent.section(&name)));
        }
        children
    }

    /// The tables of the array `[[key]]`.
    pub fn each(&self, key: &str) -> Vec<Section<'d>> {
        let Some(found) = self.find(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = found.get_ref() else {
            self.wrong(
                key,
                "is not a list of tables".into(),
                format!("write it as [[{}]]", self.name(key)),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", self.name(key));
            match item.get_ref() {
                DeValue::Table(table) => {
                    let line = Some(self.document.line(item.span().start));
                    sections.push(Section::new(self.document, path, line, Some(table)));
                }
                _ => self.wrong(
                    &path,
                    "is not a table".into(),
                    format!("write it as [[{}]]", self.name(key)),
                ),
            }
        }
        sections
    }

    /// Notes that `key` is wrong for a reason that only the caller knows.
    pub fn wrong(&self, key: &str, what: String, remedy: String) {
        let line = self
            .peek(key)
            .map(|value| self.document.line(value.span().start))
            .or(self.line);
        self.document.note(line, &self.name(key), what, remedy);
    }

    fn new(
        document: &'d Document<'d>,
        path: String,
        line: Option<usize>,
        table: Option<&'d DeTable<'d>>,
    ) -> Section<'d> {
        Section {
            document,
            table,
            path,
            line,
            asked: RefCell::default(),
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn peek(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.table.and_then(|table| table.get(key))
    }

    fn find(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.peek(key)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for (key, _) in table
            .iter()
            .filter(|(key, _)| !asked.contains(key.get_ref().as_ref()))
        {
            let line = Some(self.document.line(key.span().start));
            let known: Vec<&str> = asked.iter().map(String::as_str).collect();
            let remedy = format!("remove it, or use one of: {}", known.join(", "));
            self.document.note(
                line,
                &self.name(key.get_ref()),
                "is not a known key".into(),
                remedy,
            );
        }
    }
}

fn short(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.chars().take(60).collect::<String>()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn problems(text: &str, walk: impl Fn(&Section<'_>)) -> String {
        read_text(Path::new("client.toml"), text, |root| {
            walk(root);
            Some(())
        })
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn all_problems_come_at_once_with_line_and_key() {
        let text = "name = 3\n[path.moon]\nowlt = \"soon\"\nspeed = 1\n";
        let report = problems(text, |root| {
            root.require::<String>("name");
            root.require::<String>("database");
            for (_, path) in root.named("path") {
                path.get::<Duration>("owlt");
            }
        });
        assert_eq!(
            report,
            "client.toml: database: is missing; add it: a text in quotes\n\
             client.toml:1: name: 3 is not right here; write a text in quotes\n\
             client.toml:3: path.moon.owlt: \"soon\" is not right here; write a duration such as \"1.3s\", \"22m\", \"6h\" or \"2d\"\n\
             client.toml:4: path.moon.speed: is not a known key; remove it, or use one of: owlt"
        );
    }

    #[test]
    fn syntax_errors_name_their_line() {
        let report = problems("a = \nb = 1\nc = = 2\n", |_| ());
        assert!(
            report.contains("client.toml:1") && report.contains("client.toml:3"),
            "{report}"
        );
    }
}
