//! Requests in early data (0-RTT): anybody who heard them can send them again (RFC 8446 section 8).

use tokio::sync::watch;

/// In the extensions of a request that came before its connection's handshake was complete (RFC 8470 section 3). What is not
/// harmless when it comes twice has to wait for [`EarlyData::confirmed`].
#[derive(Clone, Debug)]
pub struct EarlyData(watch::Receiver<bool>);

/// The handshake that [`EarlyData`] waits for. When it is dropped there will be none.
#[derive(Debug)]
pub struct Handshake(watch::Sender<bool>);

impl EarlyData {
    /// With the handshake that it hangs on.
    pub fn pending() -> (Handshake, Self) {
        let (handshake, early) = watch::channel(false);
        (Handshake(handshake), Self(early))
    }

    /// Waits for the end of the handshake; whether it was completed. Then the peer has shown that it is there now, and is no
    /// recording of itself.
    pub async fn confirmed(&self) -> bool {
        self.0.clone().wait_for(|complete| *complete).await.is_ok()
    }

    /// Whether it is known already.
    pub(crate) fn is_confirmed(&self) -> bool {
        *self.0.borrow()
    }
}

impl Handshake {
    /// It is complete.
    pub fn complete(self) {
        self.0.send_replace(true);
    }
}
