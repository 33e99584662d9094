//! A handshake is played again, so that rustls makes the same sessions once more.

use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::{
    NamedGroup,
    client::Tls13ClientSessionValue,
    quic::{ClientConnection, Version},
};
use rustls_pki_types::ServerName;

use super::{
    record::Record,
    stage::{Script, Stage},
};

/// What a replay brings.
pub(super) struct Played {
    /// The sessions that the gateway gave, in its order.
    pub(super) tickets: Vec<Tls13ClientSessionValue>,
    /// The group that it chose.
    pub(super) group: Option<NamedGroup>,
}

/// Why a record is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Its certificate is not trusted (any more), or the record is not what a gateway said.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// Another certificate of ours, other settings, or another version of the TLS library.
    #[error("we would say something else today")]
    Otherwise,
    #[error("\"{0}\" is not a host's name")]
    Name(String),
}

/// Plays `record` with `config`, the very one whose connections are to use the sessions. The gateway's certificate is judged as of
/// `now`; sessions get the ages that they had.
pub(super) fn replay(
    record: &Record,
    config: &Arc<rustls::ClientConfig>,
    parent: Option<Tls13ClientSessionValue>,
    now: u64,
) -> Result<Played, Refusal> {
    let name = ServerName::try_from(record.name.clone()).map_err(|_| Refusal::Name(record.name.clone()))?;
    let mut stage = Stage::new(record.begun, Script::Replay(record.draws.clone().into()));
    stage.ticket = parent;
    stage.group = record.group.map(NamedGroup::from);
    let parameters = record.parameters.clone();
    let (made, stage) = stage.run(|| ClientConnection::new(config.clone(), Version::V1, name, parameters));
    let (mut connection, mut stage) = (made?, stage.ok_or(Refusal::Otherwise)?);
    let mut said = Context::new(&SHA256);
    listen(&mut connection, &mut said);
    for heard in &record.heard {
        stage.now = match connection.is_handshaking() {
            true => now,
            false => heard.at,
        };
        let (read, after) = stage.run(|| connection.read_hs(&heard.octets));
        read?;
        stage = after.ok_or(Refusal::Otherwise)?;
        listen(&mut connection, &mut said);
    }
    let whole = matches!(&stage.script, Script::Replay(left) if left.is_empty());
    if !whole || said.finish().as_ref() != record.said {
        return Err(Refusal::Otherwise);
    }
    Ok(Played {
        tickets: stage.born,
        group: stage.group,
    })
}

/// What the connection says goes nowhere but into the digest.
fn listen(connection: &mut ClientConnection, said: &mut Context) {
    let mut octets = Vec::new();
    loop {
        let before = octets.len();
        if connection.write_hs(&mut octets).is_none() && octets.len() == before {
            break;
        }
    }
    said.update(&octets);
}
