//! `[bundle.key.NAME]`, `[[bundle.protect]]`, `[[bundle.accept]]`: signatures and encryption (RFC 9172, RFC 9173).

use lightpost_bundle_node::{Accept, KeyFile, KeyKind, Pattern, Protect, Security};
use lightpost_config::Section;

/// Reads all three.
pub(crate) fn read(section: &Section<'_>) -> Option<Security> {
    let keys: Vec<Option<KeyFile>> = section
        .named("key")
        .iter()
        .map(|(name, section)| key(name, section))
        .collect();
    let outgoing: Vec<Option<Protect>> = section.each("protect").iter().map(protect).collect();
    let incoming: Vec<Option<Accept>> = section.each("accept").iter().map(accept).collect();
    Some(Security {
        keys: keys.into_iter().collect::<Option<_>>()?,
        outgoing: outgoing.into_iter().collect::<Option<_>>()?,
        incoming: incoming.into_iter().collect::<Option<_>>()?,
    })
}

fn key(name: &str, section: &Section<'_>) -> Option<KeyFile> {
    let path = section.require_path("file");
    section.require::<String>("kind");
    let choices = "write \"integrity\" (HMAC-SHA-256, 32 to 64 octets) or \"confidentiality\" (AES-GCM, 16 or 32 octets)";
    let kind = section.parse("kind", choices, |text| match text {
        "integrity" => Ok(KeyKind::Integrity),
        "confidentiality" => Ok(KeyKind::Confidentiality),
        _ => Err("is not a kind of key".to_owned()),
    });
    Some(KeyFile {
        id: name.to_owned(),
        path: path?,
        kind: kind?,
    })
}

fn protect(section: &Section<'_>) -> Option<Protect> {
    let destinations = pattern(section, "destinations");
    let (sign, encrypt) = (section.get("sign"), section.get("encrypt"));
    if sign.is_none() && encrypt.is_none() {
        section.wrong(
            "sign",
            "is missing, and `encrypt` as well: nothing is protected".into(),
            "name a [bundle.key.NAME]".into(),
        );
    }
    Some(Protect {
        destinations: destinations?,
        sign,
        encrypt,
    })
}

fn accept(section: &Section<'_>) -> Option<Accept> {
    let sources = pattern(section, "sources");
    section.require::<Vec<String>>("keys");
    Some(Accept {
        sources: sources?,
        keys: section.get_or("keys", Vec::new()),
        required: section.get_or("required", true),
    })
}

fn pattern(section: &Section<'_>, key: &str) -> Option<Pattern> {
    section.require::<String>(key);
    section.parse(key, "write \"ipn:2.25\", \"ipn:2.*\" or \"ipn:*.*\"", |text| {
        text.parse::<Pattern>().map_err(|error| error.to_string())
    })
}
