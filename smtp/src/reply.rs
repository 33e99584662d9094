//! Server replies.

use std::fmt;

use lightpost_mail::EnhancedCode;

/// Longest line of a reply in octets, its line end included. RFC 5321 section 4.5.3.1.5 allows 512.
pub(crate) const LINE_MAX: usize = 2 * 1024;
/// Most lines of one reply.
const LINES_MAX: usize = 100;
/// Most octets of one reply.
const OCTETS_MAX: usize = 64 * 1024;
/// Most octets of [`Reply::text`]: it is stored with every recipient.
const TEXT_MAX: usize = 1024;
/// How much of a line from the server an error repeats.
const SHOWN: usize = 120;

/// A reply, its lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code.
    pub code: u16,
    /// The enhanced status code, where given.
    pub enhanced: Option<EnhancedCode>,
    /// The text without codes, lines joined by a space, bounded.
    pub text: String,
}

impl Reply {
    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        matches!(self.code, 200..=399)
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        matches!(self.code, 500..=599)
    }

    /// The enhanced code, or x.0.0 by the reply's class.
    pub fn status(&self) -> EnhancedCode {
        self.enhanced
            .unwrap_or(EnhancedCode::new((self.code / 100).clamp(2, 5) as u8, 0, 0))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() {
            return Ok(());
        }
        write!(f, " {}", self.text)
    }
}

/// A reply whose lines are still apart, as EHLO needs them.
#[derive(Debug)]
pub(crate) struct Lines {
    code: u16,
    enhanced: Option<EnhancedCode>,
    /// Without codes, a line feed between two lines.
    text: String,
}

impl Lines {
    /// The texts of the lines.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

impl From<Lines> for Reply {
    fn from(lines: Lines) -> Self {
        let mut text = lines.text;
        if text.len() > TEXT_MAX {
            text.truncate(text.floor_char_boundary(TEXT_MAX));
            text.push('…');
        }
        if text.contains('\n') {
            text = text.replace('\n', " ");
        }
        Self {
            code: lines.code,
            enhanced: lines.enhanced,
            text,
        }
    }
}

/// What a server sent is not a reply; the text says why and quotes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled(pub(crate) String);

/// Puts a reply together from its lines.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    lines: usize,
    octets: usize,
    code: u16,
    enhanced: Option<EnhancedCode>,
    text: String,
}

impl Assembler {
    /// Takes one line with or without its line end; returns whether it was the last.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<bool, Garbled> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, last, text) =
            split(line).ok_or_else(|| Garbled(format!("not a reply: {}", quoted(line))))?;
        if self.lines > 0 && code != self.code {
            let (first, line) = (self.code, quoted(line));
            return Err(Garbled(format!(
                "a reply that began with {first} goes on with {line}"
            )));
        }
        self.lines += 1;
        self.octets += line.len();
        if self.lines > LINES_MAX {
            return Err(Garbled(format!(
                "a reply of more than {LINES_MAX} lines, the last {}",
                quoted(line)
            )));
        }
        if self.octets > OCTETS_MAX {
            return Err(Garbled(format!(
                "a reply of more than {OCTETS_MAX} octets, the last line {}",
                quoted(line)
            )));
        }
        self.code = code;
        self.append(&String::from_utf8_lossy(text));
        Ok(last)
    }

    fn append(&mut self, text: &str) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let enhanced = word
            .parse()
            .ok()
            .filter(|code: &EnhancedCode| u16::from(code.class) == self.code / 100);
        let text = if enhanced.is_some() { rest } else { text };
        if self.lines > 1 {
            self.text.push('\n');
        } else {
            self.enhanced = enhanced;
        }
        // The text goes to logs and notifications: no control character may reach them.
        if text.contains(char::is_control) {
            self.text
                .extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
        } else {
            self.text.push_str(text);
        }
    }

    /// The reply, once [`Assembler::push`] has said that it is whole.
    pub(crate) fn finish(self) -> Lines {
        Lines {
            code: self.code,
            enhanced: self.enhanced,
            text: self.text,
        }
    }
}

/// Code, whether it is the last line, text. A code without text is taken (RFC 5321 section 4.2.1).
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let ([class @ b'2'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9'], rest) =
        line.split_first_chunk()?
    else {
        return None;
    };
    let code = [class, second, third]
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// What a server sent, for an error.
pub(crate) fn quoted(line: &[u8]) -> String {
    let shown = line.get(..SHOWN).unwrap_or(line);
    let more = if line.len() > SHOWN { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Result<Reply, Garbled> {
        let mut assembler = Assembler::default();
        for (number, line) in lines.iter().enumerate() {
            if assembler.push(line)? {
                assert_eq!(number + 1, lines.len(), "lines left over");
                return Ok(assembler.finish().into());
            }
        }
        panic!("unfinished");
    }

    #[test]
    fn replies() {
        type Case = (&'static [&'static [u8]], u16, Option<EnhancedCode>, &'static str);
        let code = EnhancedCode::new;
        let cases: &[Case] = &[
            (&[b"250 ok\r\n"], 250, None, "ok"),
            (&[b"250 ok\n"], 250, None, "ok"),
            (&[b"250\r\n"], 250, None, ""),
            (&[b"250 \r\n"], 250, None, ""),
            (&[b"250 2.1.0 ok\r\n"], 250, Some(code(2, 1, 0)), "ok"),
            (&[b"250 2.1.0\r\n"], 250, Some(code(2, 1, 0)), ""),
            (&[b"550 2.1.0 odd\r\n"], 550, None, "2.1.0 odd"),
            (
                &[b"550-5.1.1 no\r\n", b"550 5.1.1 such user\r\n"],
                550,
                Some(code(5, 1, 1)),
                "no such user",
            ),
            (&[b"250-a\r\n", b"250-\r\n", b"250\r\n"], 250, None, "a  "),
            (&[b"354 go\x07 on\xff\r\n"], 354, None, "go  on\u{fffd}"),
        ];
        for (lines, code, enhanced, text) in cases {
            let expected = Reply {
                code: *code,
                enhanced: *enhanced,
                text: (*text).to_owned(),
            };
            assert_eq!(read(lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn garbage_is_quoted() {
        for line in [
            "", "25", "2500 x", "abc def", "150 x", "650 x", "250_x", "<html>", "25a ok",
        ] {
            let Err(Garbled(text)) = read(&[line.as_bytes()]) else {
                panic!("{line} was taken");
            };
            assert!(text.contains(&format!("\"{line}\"")), "{text}");
        }
        assert!(read(&[b"250-a\r\n", b"550 b\r\n"]).is_err_and(|Garbled(text)| text.contains("550 b")));
        let long = [b'x'; 1000];
        assert!(read(&[&long]).is_err_and(|Garbled(text)| text.len() < 200));
    }

    #[test]
    fn limits() {
        let mut assembler = Assembler::default();
        for _ in 0..LINES_MAX {
            assert_eq!(assembler.push(b"250-x\r\n"), Ok(false));
        }
        assert!(assembler.push(b"250 x\r\n").is_err());
        let mut assembler = Assembler::default();
        let line = [b"250-".as_slice(), &[b'x'; LINE_MAX - 6]].concat();
        let taken = (0..LINES_MAX)
            .take_while(|_| assembler.push(&line).is_ok())
            .count();
        assert_eq!(taken, OCTETS_MAX / line.len());
        let mut assembler = Assembler::default();
        assert_eq!(
            assembler.push(&[b"250 ".as_slice(), "é".repeat(900).as_bytes()].concat()),
            Ok(true)
        );
        assert!(Reply::from(assembler.finish()).text.len() <= TEXT_MAX + '…'.len_utf8());
    }
}
