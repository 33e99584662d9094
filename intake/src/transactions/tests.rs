use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use lightpost_clock::Clock;
use lightpost_mail::trace::Passage;
use lightpost_queue::sqlite::SqliteStore;
use sha2::{Digest, Sha256};

use super::*;
use crate::{Encoding, ReadLimits};

const TRACE: &str = "Received: from a by b\r\n";

async fn read(text: &str, line_ends: LineEnds, limits: Limits) -> (tempfile::TempDir, Batch) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(
        SqliteStore::open(&folder.path().join("q.db"), Clock::system())
            .await
            .unwrap(),
    );
    let chunks: Vec<Bytes> = text.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
    let stream = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let read_limits = ReadLimits {
        octets: 10_000_000,
        idle: Duration::from_secs(5),
    };
    let body = Body::from_stream(stream);
    let mut reader = BodyReader::new(body, Encoding::Identity, read_limits, Clock::system()).unwrap();
    let settings = BatchSettings {
        line_ends,
        limits,
        name: "b",
    };
    let prefix = |envelope: &Envelope| (!envelope.sender.path.is_null()).then(|| TRACE.to_owned());
    let batch = receive(&mut reader, &store, settings, prefix).await;
    let sha256: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    assert_eq!(
        batch.digest.unwrap().sha256,
        sha256,
        "the whole object is read, error or not"
    );
    (folder, batch)
}

fn transaction(sender: &str, body: &str) -> String {
    format!("MAIL FROM:<{sender}>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n{body}.\r\n")
}

#[tokio::test]
async fn transactions_have_their_prefix_facts_and_hops() {
    let text = transaction("a@b.example", "Received: x by b; now\r\nA: é\r\n\r\n..\r\n")
        + &transaction("", "unwanted\r\n");
    let (_folder, batch) = read(&text, LineEnds::Crlf, Limits::default()).await;
    assert!(batch.error.is_none(), "{:?}", batch.error);
    let [first, second] = &batch.transactions[..] else {
        panic!("{batch:?}")
    };
    let Some(NewBody::Inline(body)) = &first.body else {
        panic!("{first:?}")
    };
    let expected = format!("{TRACE}Received: x by b; now\r\nA: é\r\n\r\n.\r\n");
    assert_eq!(*body, expected.as_bytes());
    assert_eq!(first.facts.size, expected.len() as u64);
    assert!(first.facts.eight_bit && first.facts.eight_bit_headers);
    assert_eq!(
        (first.hops.received, first.hops.own.len()),
        (1, 1),
        "ours does not count"
    );
    assert!(second.body.is_none() && second.number == 2);
}

#[tokio::test]
async fn bare_line_ends_only_where_they_are_detected() {
    let text = transaction("a@b.example", "A: b\r\n\r\nx\r\n").replace("\r\n", "\n");
    let (_folder, batch) = read(&text, LineEnds::Detect, Limits::default()).await;
    assert!(batch.error.is_none(), "{:?}", batch.error);
    let Some(NewBody::Inline(body)) = &batch.transactions[0].body else {
        panic!("{batch:?}")
    };
    assert!(body.ends_with(b"A: b\r\n\r\nx\r\n"));
    let (_folder, batch) = read(&text, LineEnds::Crlf, Limits::default()).await;
    assert!(matches!(batch.error, Some(BatchError::Decode(_))) && batch.transactions.is_empty());
}

#[tokio::test]
async fn complete_transactions_stand_beside_the_error() {
    let text = transaction("a@b.example", "one\r\n") + "MAIL FROM:<a@b.example>\r\nBDAT 5\r\nmore\r\n";
    let (_folder, batch) = read(&text, LineEnds::Crlf, Limits::default()).await;
    assert_eq!(batch.transactions.len(), 1);
    let problem = Problem::from(batch.error.unwrap());
    assert_eq!(problem.status, 400);
    assert_eq!(problem.place.unwrap().transaction, Some(2));
}

#[tokio::test]
async fn large_bodies_and_many_small_ones_go_to_the_store() {
    let line = "x".repeat(998) + "\r\n";
    let limits = Limits {
        body: 400_000,
        ..Limits::default()
    };
    let many: String = (0..6)
        .map(|_| transaction("a@b.example", &line.repeat(240)))
        .collect();
    let (_folder, batch) = read(&many, LineEnds::Crlf, limits).await;
    assert!(batch.error.is_none(), "{:?}", batch.error);
    let inline: usize = batch
        .transactions
        .iter()
        .filter_map(|one| match &one.body {
            Some(NewBody::Inline(body)) => Some(body.len()),
            _ => None,
        })
        .sum();
    assert!(inline <= INLINE, "{inline}");
    let large = transaction("a@b.example", &line.repeat(500));
    let (_folder, batch) = read(&large, LineEnds::Crlf, limits).await;
    assert_eq!(Problem::from(batch.error.unwrap()).status, 413);
    assert!(batch.transactions.is_empty());
}

#[tokio::test]
async fn an_object_has_a_bounded_number_of_recipients() {
    let limits = Limits {
        recipients: 2,
        ..Limits::default()
    };
    let two = transaction("a@b.example", "x\r\n").replace("DATA", "RCPT TO:<no address>\r\nDATA");
    let (_folder, batch) = read(&two.repeat(10), LineEnds::Crlf, limits).await;
    assert!(batch.error.is_none(), "{:?}", batch.error);
    let (_folder, batch) = read(&two.repeat(11), LineEnds::Crlf, limits).await;
    assert_eq!(batch.transactions.len(), 10);
    let problem = Problem::from(batch.error.unwrap());
    assert_eq!(problem.status, 413);
    assert_eq!(problem.code.unwrap().to_string(), "5.5.3");
}

#[test]
fn our_own_name_counts_double() {
    let hops = |received, own| Hops {
        received,
        own: vec![Passage::default(); own],
        upstream: None,
    };
    assert!(!is_loop(&hops(50, 0)));
    assert!(is_loop(&hops(51, 0)));
    assert!(is_loop(&hops(26, 25)));
}
