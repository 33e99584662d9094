//! Header fields as they stand there, whose results an `Authentication-Results` gives, and a header section without those that are forged.

/// The fields of a header section, whole and folded as they are, up to the empty line.
pub(super) fn fields(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = headers;
    std::iter::from_fn(move || {
        if rest.is_empty() || rest.starts_with(b"\r\n") {
            return None;
        }
        let mut end = 0;
        loop {
            let line = rest.get(end..).unwrap_or_default();
            end += line
                .iter()
                .position(|octet| *octet == b'\n')
                .map_or(line.len(), |at| at + 1);
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (field, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(field)
    })
}

/// The authserv-id of a field (RFC 8601 section 2.2), where it is an `Authentication-Results`: without the quotes and without what old
/// versions put behind a slash.
pub(super) fn authserv_id(field: &[u8]) -> Option<Vec<u8>> {
    let colon = field.iter().position(|octet| *octet == b':')?;
    let (name, value) = field.split_at_checked(colon)?;
    if !name
        .trim_ascii_end()
        .eq_ignore_ascii_case(b"authentication-results")
    {
        return None;
    }
    let value = without_comments(value.get(1..)?);
    let value = value.trim_ascii_start();
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let word = value
            .split(|octet| octet.is_ascii_whitespace() || b";/\"".contains(octet))
            .next()?;
        return (!word.is_empty()).then(|| word.to_vec());
    };
    let (mut escaped, mut id) = (false, Vec::new());
    for octet in quoted {
        match octet {
            b'"' if !escaped => break,
            b'\\' if !escaped => escaped = true,
            b'\r' | b'\n' => {}
            _ => {
                id.push(*octet);
                escaped = false;
            }
        }
    }
    Some(id)
}

/// The header section without results that claim to be ours (RFC 8601 section 5) and, where ours are sealed anew, without ARC fields;
/// `None` when there are none of them.
pub(super) fn without(headers: &[u8], id: &str, drop_arc: bool) -> Option<Vec<u8>> {
    let unwanted = |field: &[u8]| {
        let arc = field
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"ARC-"));
        let forged = authserv_id(field).is_some_and(|found| found.eq_ignore_ascii_case(id.as_bytes()));
        forged || arc && drop_arc
    };
    if !fields(headers).any(unwanted) {
        return None;
    }
    let section: usize = fields(headers).map(<[u8]>::len).sum();
    let mut kept: Vec<u8> = fields(headers)
        .filter(|field| !unwanted(field))
        .flatten()
        .copied()
        .collect();
    kept.extend_from_slice(headers.get(section..).unwrap_or_default());
    Some(kept)
}

/// The value with a space for each comment (RFC 5322 section 3.2.2), nested ones too.
fn without_comments(value: &[u8]) -> Vec<u8> {
    let (mut depth, mut quoted, mut escaped, mut kept) = (0_usize, false, false, Vec::new());
    for octet in value {
        let plain = !std::mem::take(&mut escaped);
        match octet {
            b'\\' if plain && (depth > 0 || quoted) => escaped = true,
            b'"' if plain && depth == 0 => quoted = !quoted,
            b'(' if plain && !quoted => depth += 1,
            b')' if plain && depth > 0 => {
                depth -= 1;
                kept.push(b' ');
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            kept.push(*octet);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authserv_ids() {
        for (field, expected) in [
            (
                "Authentication-Results: earth.example; none",
                Some("earth.example"),
            ),
            (
                "AUTHENTICATION-results :\r\n\tEarth.Example (a; b) 1; spf=pass",
                Some("Earth.Example"),
            ),
            (
                "Authentication-Results: (c \\) (d) e) \"earth\\.example\" ; none",
                Some("earth.example"),
            ),
            (
                "Authentication-Results: earth.example(x); none",
                Some("earth.example"),
            ),
            (
                "Authentication-Results: earth.example/1; none",
                Some("earth.example"),
            ),
            ("Authentication-Results: ; none", None),
            ("Authentication-Results:", None),
            ("ARC-Authentication-Results: i=1; earth.example; none", None),
            ("Subject: earth.example", None),
        ] {
            let id = authserv_id(field.as_bytes());
            assert_eq!(id.as_deref(), expected.map(str::as_bytes), "{field}");
        }
    }

    #[test]
    fn fields_are_whole() {
        let headers = b"A: b\r\n c\r\n\td\r\nE: f\r\n\r\nG: h\r\n";
        let all: Vec<_> = fields(headers).collect();
        assert_eq!(all, [&b"A: b\r\n c\r\n\td\r\n"[..], b"E: f\r\n"]);
        assert_eq!(fields(b"A: b").count(), 1);
    }

    #[test]
    fn results_that_claim_to_be_ours_go() {
        let headers = "Received: by a\r\nAuthentication-Results: other.example; spf=fail\r\nauthentication-RESULTS: (x)\r\n EARTH.example 1;\r\n\tspf=pass\r\nARC-Seal: i=1\r\nSubject: x\r\n\r\n";
        let without = |headers: &str, arc| {
            without(headers.as_bytes(), "earth.example", arc).map(|kept| String::from_utf8(kept).unwrap())
        };
        let kept = without(headers, false).unwrap();
        assert_eq!(
            kept,
            "Received: by a\r\nAuthentication-Results: other.example; spf=fail\r\nARC-Seal: i=1\r\nSubject: x\r\n\r\n"
        );
        assert_eq!(without(&kept, false), None);
        assert!(!without(headers, true).unwrap().contains("ARC"));
        // Below the empty line it is text.
        assert_eq!(
            without(
                "Subject: x\r\n\r\nAuthentication-Results: earth.example; none\r\n",
                true
            ),
            None
        );
    }
}
