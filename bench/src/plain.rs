//! QUIC as quinn ships it, for comparison: the same mail, certificates and space, one stream, every setting a default.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use lightpost_sim::Space;
use lightpost_transport::{quic::net::Net, tls};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::{Result, pair::Pair};

const ALPN: &[u8] = b"plain";

/// When the whole mail was at the far side and when the answer was back, both from the start of the handshake.
///
/// # Errors
/// What quinn says when it gives up.
pub async fn send(pair: &Pair, mail: &Bytes) -> Result<(Duration, Duration)> {
    let space = pair.space.as_ref().ok_or("only in virtual time")?;
    let server = server(pair, space)?;
    let address = server.local_addr().map_err(|error| error.to_string())?;
    let client = client(pair, space)?;
    let start = space.elapsed();
    let serving = tokio::spawn({
        let space = space.clone();
        async move { serve(&server, &space).await }
    });
    let asking = async {
        let connecting = client
            .connect(address, "127.0.0.1")
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(mail).await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        receive
            .read_to_end(1_024)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(space.elapsed())
    };
    let replied = asking.await;
    if replied.is_err() {
        serving.abort();
    }
    let replied = replied?;
    let arrived = serving.await.map_err(|error| error.to_string())??;
    Ok((arrived.saturating_sub(start), replied.saturating_sub(start)))
}

fn endpoint(net: &dyn Net, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = net.bind_any().map_err(|error| error.to_string())?;
    Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, socket, net.runtime())
        .map_err(|error| error.to_string())
}

fn server(pair: &Pair, space: &Space) -> Result<Endpoint> {
    let (_, (certificate, key)) = pair.papers();
    let mut config = tls::server(certificate, key, None, &[ALPN]).map_err(|error| error.to_string())?;
    config.time_provider = tls::time(&pair.clock);
    let crypto = QuicServerConfig::try_from(config).map_err(|error| error.to_string())?;
    endpoint(&space.far(), Some(ServerConfig::with_crypto(Arc::new(crypto))))
}

fn client(pair: &Pair, space: &Space) -> Result<Endpoint> {
    let (authority, _) = pair.papers();
    let mut config = tls::client(Some(authority), None, &[ALPN]).map_err(|error| error.to_string())?;
    config.time_provider = tls::time(&pair.clock);
    let crypto = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
    let mut client = endpoint(&space.earth(), None)?;
    client.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    Ok(client)
}

/// Takes one mail and answers; when it was whole.
async fn serve(endpoint: &Endpoint, space: &Space) -> Result<Duration> {
    let incoming = endpoint.accept().await.ok_or("the endpoint is closed")?;
    let connection = incoming.await.map_err(|error| error.to_string())?;
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    receive
        .read_to_end(64 << 20)
        .await
        .map_err(|error| error.to_string())?;
    let arrived = space.elapsed();
    send.write_all(b"ok").await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    // Whether the answer arrives is the asker's to tell.
    let _ = send.stopped().await;
    Ok(arrived)
}
