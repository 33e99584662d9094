//! Requests in early data.

use super::*;

/// RFC 8470: what could be a recording counts once the handshake has ended; with a key a repeat would be recognised.
#[tokio::test]
async fn early_data_without_a_key_waits_for_the_handshake() {
    let world = World::new().await;
    let early = |fields: &[(&str, &str)]| {
        let (handshake, early) = EarlyData::pending();
        let mut request = request(small(), fields);
        request.extensions_mut().insert(early);
        (handshake, request)
    };
    let (handshake, keyed) = early(&[("idempotency-key", "\"01EXCHANGE\"")]);
    assert_eq!(world.send(keyed).await.status, StatusCode::ACCEPTED);
    drop(handshake);

    let (handshake, recording) = early(&[]);
    drop(handshake);
    let answer = world.send(recording).await;
    assert_eq!(answer.status, StatusCode::TOO_EARLY);
    assert_eq!(answer.json()["code"], "4.7.0");
    assert_eq!(world.messages().await.len(), 1);

    let (handshake, real) = early(&[]);
    let (answer, ()) = tokio::join!(world.send(real), async {
        tokio::task::yield_now().await;
        assert_eq!(world.messages().await.len(), 1);
        handshake.complete();
    });
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(world.messages().await.len(), 2);
}
