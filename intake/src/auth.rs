//! Bearer tokens (RFC 6750) from a file.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// The shortest token that is accepted from a file.
const SHORTEST: usize = 8;

/// Why a file of tokens cannot be used. Says the line, never the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}, line {line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no token in it.
    #[error("{path} holds no token; write a name, a space and a token on a line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Tokens and the names that they stand for. Holds hashes only, and shows nothing of them.
#[derive(Clone, Default)]
pub struct Tokens(Vec<(String, [u8; 32])>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Tokens {
    /// Reads a file with a name, a space and a token on each line. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let mut tokens = Self::default();
        for (line, text) in content(path)?.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let wrong = |what| TokenError::Line {
                path: path.to_owned(),
                line: line + 1,
                what,
            };
            let mut words = text.split_ascii_whitespace();
            let (Some(name), Some(token), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("write a name, a space and a token"));
            };
            tokens.add(name, token).map_err(wrong)?;
        }
        if tokens.0.is_empty() {
            return Err(TokenError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(tokens)
    }

    /// Adds the token that is the only content of a file, for `name`. A line `name token` is accepted as well.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn load_one(&mut self, name: &str, path: &Path) -> Result<(), TokenError> {
        let text = content(path)?;
        let token = text
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .and_then(|line| line.split_ascii_whitespace().last())
            .ok_or_else(|| TokenError::Empty {
                path: path.to_owned(),
            })?;
        self.add(name, token).map_err(|what| TokenError::Line {
            path: path.to_owned(),
            line: 1,
            what,
        })
    }

    fn add(&mut self, name: &str, token: &str) -> Result<(), &'static str> {
        if token.len() < SHORTEST {
            return Err("the token has fewer than 8 characters");
        }
        let hash = hash(token);
        if self.0.iter().any(|(_, other)| *other == hash) {
            return Err("the token stands twice");
        }
        self.0.push((name.to_owned(), hash));
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name that the request's bearer token stands for. Takes the same time whichever token is given.
    pub fn caller(&self, fields: &HeaderMap) -> Option<&str> {
        let given = hash(bearer(fields)?);
        let mut found = None;
        for (name, known) in &self.0 {
            let difference = known
                .iter()
                .zip(&given)
                .fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
            if difference == 0 {
                found = Some(name.as_str());
            }
        }
        found
    }
}

/// The bearer token in `Authorization`.
pub fn bearer(fields: &HeaderMap) -> Option<&str> {
    let (scheme, token) = fields
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn content(path: &Path) -> Result<String, TokenError> {
    std::fs::read_to_string(path).map_err(|cause| TokenError::Read {
        path: path.to_owned(),
        cause,
    })
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> Result<Tokens, TokenError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Tokens::load(file.path())
    }

    fn request(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn tokens_name_their_callers() {
        let tokens = load("# who may\n\nmta  s3cret-one\nadmin s3cret-two\n").unwrap();
        assert_eq!(tokens.caller(&request("Bearer s3cret-two")), Some("admin"));
        assert_eq!(tokens.caller(&request("bearer s3cret-one")), Some("mta"));
        for refused in ["Bearer s3cret-on", "Bearer ", "Basic s3cret-one", "s3cret-one"] {
            assert_eq!(tokens.caller(&request(refused)), None, "{refused}");
        }
        assert_eq!(tokens.caller(&HeaderMap::new()), None);
        assert!(!format!("{tokens:?}").contains("s3cret"));
    }

    #[test]
    fn wrong_files_name_the_line_but_not_the_token() {
        for (text, expected) in [
            ("mta\n", "line 1: write a name"),
            ("a longenough\nmta s3cret-one x\n", "line 2: write a name"),
            ("mta short\n", "line 1: the token has fewer"),
            ("a longenough\nb longenough\n", "line 2: the token stands twice"),
            ("# nothing\n", "holds no token"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("s3cret") && !error.contains("longenough"));
        }
        let missing = Tokens::load(Path::new("/nonexistent/tokens")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"));
    }
}
