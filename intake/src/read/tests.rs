use proptest::prelude::*;

use super::{
    unpack::{PIECE, SMALLEST},
    *,
};

fn reader(chunks: Vec<Vec<u8>>, encoding: Encoding, octets: u64) -> BodyReader {
    let stream = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let limits = ReadLimits {
        octets,
        idle: Duration::from_secs(5),
    };
    BodyReader::new(Body::from_stream(stream), encoding, limits, Clock::system()).unwrap()
}

async fn all(mut reader: BodyReader) -> Result<(Vec<u8>, ReadDigest), ReadError> {
    let mut octets = Vec::new();
    while let Some(piece) = reader.next().await? {
        octets.extend_from_slice(&piece);
    }
    Ok((octets, reader.digest().unwrap()))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_body_at_any_chunking(
        pattern in proptest::collection::vec(any::<u8>(), 1..2000),
        length in prop_oneof![0..3000usize, 100_000..300_000usize],
        chunks in 1..40usize,
        packed: bool,
    ) {
        let body: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
        let sent = if packed { zstd::encode_all(&body[..], 3).unwrap() } else { body.clone() };
        let encoding = if packed { Encoding::Zstd } else { Encoding::Identity };
        let chunks = sent.chunks(sent.len() / chunks + 1).map(<[u8]>::to_vec).collect();
        let (read, digest) = run(all(reader(chunks, encoding, 10_000_000))).unwrap();
        prop_assert!(read == body);
        let (expected, wire): ([u8; 32], [u8; 32]) = (Sha256::of(&body), Sha256::of(&sent));
        prop_assert_eq!(digest.sha256, expected);
        prop_assert_eq!(digest.encoded_sha256, wire);
    }
}

#[test]
fn a_frame_may_end_where_the_room_for_it_does() {
    let zeros = [4095, 4096, 4097, 8192, PIECE, PIECE + 4096].map(|size| vec![b'x'; size]);
    let mut mails = zeros.to_vec();
    // And one that is eight times its frame, to the octet.
    let text: String = (0..2000).map(|line| format!("{} line\r\n", line % 37)).collect();
    let fits = (1..text.len()).find(|size| {
        let mail = &text.as_bytes()[..*size];
        *size > SMALLEST && zstd::encode_all(mail, 3).unwrap().len() * 8 == *size
    });
    mails.extend(fits.map(|size| text.as_bytes()[..size].to_vec()));
    for mail in mails {
        let frame = zstd::encode_all(&mail[..], 3).unwrap();
        for piece in [frame.len(), 20, 1] {
            let chunks = frame.chunks(piece).map(<[u8]>::to_vec).collect();
            let (read, _) = run(all(reader(chunks, Encoding::Zstd, 10_000_000))).unwrap();
            assert!(read == mail, "{} in pieces of {piece}", mail.len());
        }
        let cut = frame[..frame.len() - 1].to_vec();
        assert!(run(all(reader(vec![cut], Encoding::Zstd, 10_000_000))).is_err());
    }
}

#[tokio::test]
async fn a_bomb_is_refused_early() {
    let bomb = zstd::encode_all(&vec![0; 50_000_000][..], 3).unwrap();
    assert!(bomb.len() < 20_000);
    let mut reader = reader(vec![bomb], Encoding::Zstd, 1_000_000);
    let mut seen = 0;
    let error = loop {
        match reader.next().await {
            Ok(piece) => seen += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::TooLarge(1_000_000)), "{error}");
    assert!(seen <= 1_000_000);
    assert!(reader.next().await.is_err() && reader.digest().is_none());
}

#[tokio::test]
async fn a_window_beyond_the_bound_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(25).unwrap();
    std::io::Write::write_all(&mut encoder, &vec![1; 40_000_000]).unwrap();
    let packed = encoder.finish().unwrap();
    let error = all(reader(vec![packed], Encoding::Zstd, 50_000_000))
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Encoding(_)), "{error}");
}

#[tokio::test]
async fn cut_and_foreign_bodies_are_refused() {
    let packed = zstd::encode_all(&[7; 5000][..], 3).unwrap();
    for wrong in [
        packed[..packed.len() - 1].to_vec(),
        b"plain text".to_vec(),
        Vec::new(),
    ] {
        let error = all(reader(vec![wrong], Encoding::Zstd, 100_000))
            .await
            .unwrap_err();
        assert!(matches!(error, ReadError::Encoding(_)), "{error}");
    }
    let stream = futures_util::stream::iter([Ok(Bytes::from("abc")), Err(std::io::Error::other("reset"))]);
    let limits = ReadLimits {
        octets: 100,
        idle: Duration::from_secs(5),
    };
    let broken = BodyReader::new(
        Body::from_stream(stream),
        Encoding::Identity,
        limits,
        Clock::system(),
    );
    let error = all(broken.unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "the body ends too early: reset");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_left() {
    let limits = ReadLimits {
        octets: 100,
        idle: Duration::from_secs(30),
    };
    let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let mut reader = BodyReader::new(silent, Encoding::Identity, limits, Clock::system()).unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(Problem::from(error).status, 408);
}

/// One octet now and then holds a place no longer than silence, and a slow line is no trickle.
#[tokio::test(start_paused = true)]
async fn a_trickling_peer_is_left() {
    const IDLE: Duration = Duration::from_secs(60);
    let limits = ReadLimits {
        octets: 1 << 30,
        idle: IDLE,
    };
    for (octets, periods, expected) in [
        (1, 2, None),
        (16 * 1024, 3, None),
        (33 * 1024, 0, Some(330 * 1024)),
    ] {
        let clock = Clock::system();
        let begun = clock.instant();
        let pieces = futures_util::stream::unfold(0, move |sent| async move {
            Clock::system().sleep(Duration::from_secs(55)).await;
            (sent < 10 || expected.is_none())
                .then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![0; octets])), sent + 1))
        });
        let mut reader =
            BodyReader::new(Body::from_stream(pieces), Encoding::Identity, limits, clock).unwrap();
        let drained = reader.drain().await;
        assert_eq!(reader.digest().map(|digest| digest.octets), expected);
        if expected.is_none() {
            let error = drained.unwrap_err();
            assert!(matches!(error, ReadError::Slow(IDLE)), "{error}");
            assert_eq!(begun.elapsed(), IDLE * periods, "{octets}");
            assert_eq!(Problem::from(error).status, 408);
        }
    }
}
