use std::time::Duration;

use futures_util::{StreamExt, stream};
use lightpost_mail::lines::BodyFacts;
use lightpost_smtp::send::{Address, RecipientOutcome, Session, StartTls, Target};

use super::*;

async fn sink(options: SinkOptions) -> Sink {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Sink::start(listener, options, Clock::system()).unwrap()
}

async fn session(sink: &Sink, protocol: Protocol) -> Session {
    let target = Target {
        protocol,
        address: Address::Tcp("127.0.0.1".to_owned(), sink.address().port()),
        starttls: StartTls::Off,
        tls: None,
        helo: "test.invalid".to_owned(),
        reply_timeout: Duration::from_secs(2),
    };
    Session::open(&target, &Clock::system()).await.unwrap()
}

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        sender: "<from@earth.example> RET=HDRS".parse().unwrap(),
        recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

async fn deliver(session: &mut Session, recipients: &[&str], body: &[u8]) -> Vec<u16> {
    let facts = BodyFacts {
        size: body.len() as u64,
        ..BodyFacts::default()
    };
    let chunks: Vec<_> = body
        .chunks(7)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    let delivery = session
        .deliver(&envelope(recipients), &facts, stream::iter(chunks).boxed())
        .await
        .unwrap();
    let code = |outcome: &RecipientOutcome| match outcome {
        RecipientOutcome::Accepted(reply) | RecipientOutcome::Refused(reply) => reply.code,
        other => panic!("{other:?}"),
    };
    delivery.recipients.iter().map(code).collect()
}

#[tokio::test]
async fn bodies_arrive_byte_for_byte() {
    let sink = sink(SinkOptions::default()).await;
    let mut received = sink.subscribe(8);
    let mut session = session(&sink, Protocol::Smtp).await;
    let long = [b"X: ".as_slice(), &[b'x'; 200_000], b"\r\n"].concat();
    let bodies: [&[u8]; 5] = [
        b"",
        b"\r\n",
        b".\r\n..\r\n.x\r\n\r\n.\r\n",
        "é\r\n".as_bytes(),
        &long,
    ];
    for body in bodies {
        assert_eq!(
            deliver(&mut session, &["<a@moon.example> NOTIFY=NEVER"], body).await,
            [250]
        );
        let mail = received.recv().await.unwrap();
        assert_eq!(mail.body, body);
        assert_eq!(
            mail.sender.to_string(),
            format!("<from@earth.example> SIZE={} RET=HDRS", body.len())
        );
        assert_eq!(mail.recipients[0].to_string(), "<a@moon.example> NOTIFY=NEVER");
    }
    sink.wait_for(5).await;
    assert_eq!(sink.count(), 5);
    session.close().await;
}

#[tokio::test]
async fn recipients_are_refused_by_local_part() {
    let sink = sink(SinkOptions::default()).await;
    let mut session = session(&sink, Protocol::Smtp).await;
    let all = ["a@moon.example", "refuse@moon.example", "later@moon.example"];
    assert_eq!(deliver(&mut session, &all, b"x\r\n").await, [250, 550, 451]);
    assert_eq!(deliver(&mut session, &all[1..], b"x\r\n").await, [550, 451]);
    assert_eq!(deliver(&mut session, &all[..1], b"x\r\n").await, [250]);
    assert_eq!(sink.count(), 2);
}

#[tokio::test]
async fn lmtp_answers_per_recipient() {
    let sink = sink(SinkOptions {
        protocol: Protocol::Lmtp,
        keep_bodies: false,
        size_limit: Some(100),
        refused_late: vec![("full".to_owned(), "452 4.2.2 mailbox full".to_owned())],
        ..SinkOptions::default()
    })
    .await;
    let mut received = sink.subscribe(8);
    let mut session = session(&sink, Protocol::Lmtp).await;
    let all = ["a@m.example", "full@m.example", "refuse@m.example", "b@m.example"];
    assert_eq!(deliver(&mut session, &all, b"x\r\n").await, [250, 452, 550, 250]);
    let mail = received.recv().await.unwrap();
    assert_eq!((mail.recipients.len(), mail.body.len()), (2, 0));
    assert_eq!(
        deliver(&mut session, &all[..1], &b"0123456\r\n".repeat(20)).await,
        [552]
    );
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn a_dropped_sink_closes_its_connections() {
    let sink = sink(SinkOptions::default()).await;
    let mut session = session(&sink, Protocol::Smtp).await;
    drop(sink);
    let facts = BodyFacts::default();
    let result = session
        .deliver(&envelope(&["a@b.example"]), &facts, stream::empty().boxed())
        .await;
    assert!(result.is_err(), "{result:?}");
    assert!(!session.is_reusable());
}

/// How many 4 KiB mails one connection carries in a second: `cargo test --release -p lightpost-sim -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn throughput() {
    let sink = sink(SinkOptions {
        keep_bodies: false,
        ..SinkOptions::default()
    })
    .await;
    let mut session = session(&sink, Protocol::Smtp).await;
    let body = Bytes::from(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(64));
    let facts = BodyFacts {
        size: body.len() as u64,
        ..BodyFacts::default()
    };
    let envelope = envelope(&["a@moon.example"]);
    let clock = Clock::system();
    let start = clock.instant();
    let mails = 20_000u32;
    for _ in 0..mails {
        let body = stream::iter([Ok(body.clone())]).boxed();
        session.deliver(&envelope, &facts, body).await.unwrap();
    }
    println!("{:.0} mails/s", f64::from(mails) / start.elapsed().as_secs_f64());
}
