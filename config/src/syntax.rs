//! What is wrong with a file that is no TOML, in words.

use crate::Problem;

/// A syntax error of the reader's, in `text` at the octets `span`.
pub(crate) fn problem(text: &str, span: Option<std::ops::Range<usize>>, message: &str) -> Problem {
    let before = |offset: usize| text.get(..offset).unwrap_or(text);
    let line = span
        .as_ref()
        .map(|span| before(span.start).matches('\n').count() + 1);
    if message == "duplicate key"
        && let Some((line, span)) = line.zip(span)
        && let Some(name) = text.get(span)
    {
        return twice(text, line, name.trim());
    }
    Problem {
        line,
        key: String::new(),
        what: message.to_owned(),
        remedy: "mend the TOML syntax".into(),
    }
}

/// What the second `name`, in `line`, is to be told of the first.
fn twice(text: &str, line: usize, name: &str) -> Problem {
    let lines: Vec<&str> = text.lines().take(line).map(bare).collect();
    let (this, above) = match lines.split_last() {
        Some((this, above)) => (*this, above),
        None => ("", [].as_slice()),
    };
    let is_header = this.starts_with('[');
    let section = above.iter().rposition(|line| line.starts_with('['));
    let first = if is_header {
        above.iter().position(|line| *line == this)
    } else {
        // In the same section only; elsewhere the name is another key.
        let from = section.map_or(0, |header| header + 1);
        let own = above.get(from..).unwrap_or_default();
        own.iter().position(|line| key(line) == name).map(|at| from + at)
    };
    let key = match section.and_then(|header| above.get(header)) {
        _ if is_header => this.to_owned(),
        Some(header) => format!("{}.{name}", header.trim_matches(['[', ']'])),
        None => name.to_owned(),
    };
    let first = first.map(|at| format!(", first in line {}", at + 1));
    let remedy = if is_header {
        "write what belongs to it under one of them"
    } else {
        "remove one of the two"
    };
    Problem {
        line: Some(line),
        key,
        what: format!("is there twice{}", first.unwrap_or_default()),
        remedy: remedy.into(),
    }
}

/// A line without its remark. A `#` in a text cuts it short, which does not matter for the names before.
fn bare(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

/// The name before the equals sign.
fn key(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    fn told(text: &str) -> String {
        let problems = crate::read_text(std::path::Path::new("f"), text, |_| Some(()));
        problems.unwrap_err().to_string()
    }

    #[test]
    fn what_is_there_twice_is_named_with_the_first() {
        for (text, expected) in [
            (
                "name = 1\nother = 2\nname = 3\n",
                "f:3: name: is there twice, first in line 1; remove one of the two",
            ),
            (
                "a = 1\n[x]\na = 2 # one\nb = 3\n a=4\n",
                "f:5: x.a: is there twice, first in line 3; remove one of the two",
            ),
            (
                "[[route]]\na = 1\n[[route]]\na = 2\na = 3\n",
                "f:5: route.a: is there twice, first in line 4; remove one of the two",
            ),
            (
                "[x]\na = 1\n[y]\n[x] # again\nb = 1\n",
                "f:4: [x]: is there twice, first in line 1; write what belongs to it under one of them",
            ),
            (
                "a = { b = 1, b = 2 }\n",
                "f:1: b: is there twice; remove one of the two",
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn other_mistakes_are_the_readers_words() {
        assert!(told("a = \n").starts_with("f:1: "));
        assert!(told("a = \n").ends_with("; mend the TOML syntax"));
    }
}
