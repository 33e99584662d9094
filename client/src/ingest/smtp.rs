//! Mail by SMTP and LMTP.

use std::sync::Arc;

use lightpost_mail::{EnhancedCode, Recipient, Sender};
use lightpost_queue::{Enqueued, StoredReply, Submission};
use lightpost_smtp::{
    Reply,
    receive::{Incoming, Peer, Receiver},
    send::Protocol,
};

use crate::{
    accept::{Acceptance, Draft, Refusal, Source, Spooling},
    config::Receive,
};

/// One listener's way into [`Acceptance`].
pub(crate) struct Door {
    pub(crate) acceptance: Arc<Acceptance>,
    pub(crate) protocol: Protocol,
    pub(crate) settings: Receive,
}

/// A mail that is being received.
pub(crate) struct Mail {
    acceptance: Arc<Acceptance>,
    source: Source,
    sender: Sender,
    draft: Draft,
    spooling: Option<Spooling>,
}

impl Door {
    /// Whether this peer may hand over mail: from this machine, from a network that is named, or with a certificate.
    fn admits(&self, peer: &Peer) -> Result<(), Reply> {
        let Some(address) = peer.address else {
            return Ok(());
        };
        let named = || self.settings.clients.iter().any(|net| net.contains(&address));
        if address.is_loopback() || peer.certified || named() {
            return Ok(());
        }
        let (code, enhanced, text) = if self.settings.client_trust.is_some() && !peer.tls {
            (
                530,
                EnhancedCode::new(5, 7, 0),
                "STARTTLS and a client certificate first".to_owned(),
            )
        } else {
            (
                550,
                EnhancedCode::new(5, 7, 1),
                format!("{address} may not hand over mail here"),
            )
        };
        Err(Reply {
            code,
            enhanced: Some(enhanced),
            text,
        })
    }
}

impl Receiver for Door {
    type Mail = Mail;

    fn begin(&self, peer: &Peer, sender: Sender) -> Result<Mail, Reply> {
        self.admits(peer)?;
        let source = Source {
            origin: match self.protocol {
                Protocol::Smtp => "smtp",
                Protocol::Lmtp => "lmtp",
            },
            with: peer.with(self.protocol, sender.parameters.smtputf8),
            helo: Some(peer.helo.clone()),
            address: peer.address,
        };
        Ok(Mail {
            acceptance: self.acceptance.clone(),
            draft: self.acceptance.draft(),
            source,
            sender,
            spooling: None,
        })
    }
}

impl Mail {
    async fn spooling(&mut self) -> Result<&mut Spooling, Refusal> {
        let started = match self.spooling.take() {
            Some(spooling) => spooling,
            None => Spooling::start(&self.acceptance, &self.draft, &self.source).await?,
        };
        Ok(self.spooling.insert(started))
    }

    async fn store(mut self) -> Result<Reply, Refusal> {
        self.spooling().await?;
        let Self {
            acceptance,
            source,
            sender,
            draft,
            spooling: Some(spooling),
        } = self
        else {
            return Err(Refusal::new(451, EnhancedCode::new(4, 3, 0), "the body is gone"));
        };
        let spooled = spooling.finish().await?;
        let spooled = acceptance.message(&draft, &source, &sender, spooled).await?;
        let id = draft.id;
        let messages = vec![draft.message(&source, sender, spooled, None)];
        let submission = Submission {
            key: None,
            reply: StoredReply::default(),
            charges: acceptance.charges(&messages),
            messages,
        };
        let refusal = match acceptance.enqueue(submission).await {
            Ok(Enqueued::Over(over)) => Some(acceptance.over(&over)),
            // Without a key there is neither a repeat nor a conflict.
            Ok(Enqueued::Stored | Enqueued::Repeat(_) | Enqueued::Conflict) => None,
            Err(error) => Some(error.into()),
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        Ok(Reply {
            code: 250,
            enhanced: Some(EnhancedCode::new(2, 6, 0)),
            text: format!("on disk here as {id}"),
        })
    }
}

impl Incoming for Mail {
    fn recipient(&mut self, recipient: Recipient) -> Result<(), Reply> {
        let taken = self
            .acceptance
            .recipient(&mut self.draft, &self.sender, &recipient);
        taken.map_err(Reply::from)
    }

    async fn body(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let spooling = self.spooling().await?;
        let pushed = spooling.push(octets).await;
        pushed.map_err(|error| Refusal::from(error).into())
    }

    async fn finish(self) -> Result<Reply, Reply> {
        Ok(self.store().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// Who is admitted where networks are named, and where certificates are asked for.
    #[tokio::test]
    async fn only_who_is_known_hands_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        std::fs::write(folder.path().join("pem"), "x").unwrap();
        let text = format!(
            r#"
            name = "relay.earth.example"
            database = "{root}/outbox.db"
            [ingest]
            listen = "127.0.0.1:0"
            [smtp]
            listen = "0.0.0.0:0"
            clients = ["192.0.2.0/24", "2001:db8::1"]
            [lmtp]
            listen = "0.0.0.0:0"
            certificate = "{root}/pem"
            key = "{root}/pem"
            client_trust = "{root}/pem"
            [local]
            address = "127.0.0.1:25"
            [path.moon]
            one_way_min = "1ms"
            one_way_max = "1ms"
            outage_max = "0s"
            rate_up = "1Gbit/s"
            rate_down = "1Gbit/s"
            [[route]]
            domain = "moon.example"
            path = "moon"
            "#
        );
        let config = Arc::new(crate::Config::from_text(std::path::Path::new("client.toml"), &text).unwrap());
        let clock = lightpost_clock::Clock::system();
        let store = lightpost_queue::sqlite::SqliteStore::open(&config.database, clock.clone());
        let acceptance = Arc::new(Acceptance {
            store: Arc::new(store.await.unwrap()),
            discovery: Arc::new(crate::discover::Discovery::new(&config, clock.clone()).unwrap()),
            config: config.clone(),
            clock,
            screen: None,
        });
        let door = |protocol, settings: &Option<Receive>| Door {
            acceptance: acceptance.clone(),
            protocol,
            settings: settings.clone().unwrap(),
        };
        let (smtp, lmtp) = (
            door(Protocol::Smtp, &config.smtp),
            door(Protocol::Lmtp, &config.lmtp),
        );
        for (door, address, tls, certified, expected) in [
            (&smtp, Some("192.0.2.7"), false, false, None),
            (&smtp, Some("2001:db8::1"), false, false, None),
            (&smtp, Some("127.9.9.9"), false, false, None),
            (&smtp, Some("::1"), false, false, None),
            (&smtp, None, false, false, None),
            (&smtp, Some("192.0.3.7"), false, false, Some(550)),
            (&smtp, Some("2001:db8::2"), true, false, Some(550)),
            (&lmtp, Some("192.0.2.7"), false, false, Some(530)),
            (&lmtp, Some("192.0.2.7"), true, false, Some(550)),
            (&lmtp, Some("192.0.2.7"), true, true, None),
        ] {
            let peer = Peer {
                address: address.map(|address| address.parse::<IpAddr>().unwrap()),
                tls,
                certified,
                ..Peer::default()
            };
            let sender = "<a@earth.example>".parse().unwrap();
            let refused = door.begin(&peer, sender).err().map(|reply| reply.code);
            assert_eq!(refused, expected, "{peer:?}");
        }
    }
}
