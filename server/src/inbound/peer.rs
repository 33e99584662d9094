//! Who sends: a verified certificate's DNS names, a bundle's source, or a bearer token.

use http::HeaderMap;
use lightpost_intake::{Problem, auth::bearer};
use lightpost_transport::PeerIdentity;

use crate::config::Peer;

/// Finds the peer among those of the configuration.
///
/// # Errors
/// 401 when nothing says who it is, 403 when it is somebody else.
pub(super) fn identify<'a>(
    peers: &'a [Peer],
    identity: Option<&PeerIdentity>,
    headers: &HeaderMap,
) -> Result<&'a Peer, Problem> {
    let names = identity.map_or(&[][..], |identity| &identity.names);
    if let Some(peer) = peers.iter().find(|peer| names.contains(&peer.name)) {
        return Ok(peer);
    }
    if let Some(source) = identity.and_then(|identity| identity.endpoint.as_ref()) {
        return peers
            .iter()
            .find(|peer| peer.endpoints.contains(source))
            .ok_or_else(|| Problem::forbidden(format!("{source} may not hand over mail here")));
    }
    // Every token is tried, so that the time tells nothing about which peer has one.
    let mut found = None;
    for peer in peers {
        if let Some(tokens) = &peer.token
            && tokens.caller(headers).is_some()
        {
            found = Some(peer);
        }
    }
    match found {
        Some(peer) => Ok(peer),
        None if !names.is_empty() => Err(Problem::forbidden(format!(
            "the certificate names {}, which may not hand over mail here",
            names.join(", ").escape_debug()
        ))),
        None if bearer(headers).is_some() => Err(Problem::unauthorized("the token is not known here")),
        None => Err(Problem::unauthorized(
            "show a client certificate or send a bearer token",
        )),
    }
}
