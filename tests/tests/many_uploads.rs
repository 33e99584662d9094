//! A hundred uploads of 50 MB at once: on disk, and in less than 300 MB of memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail tests"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Barrier,
    time::Duration,
};

use lightpost_tests::{
    Site, http,
    pki::Authority,
    wait::Watch,
    world::{self, ClientSettings},
};

const UPLOADS: usize = 100;
const SIZE: usize = 50_000_000;
const LIMIT: u64 = 300_000_000;

#[test]
fn a_hundred_uploads_of_50_mb_at_once_stay_below_300_mb() {
    let site = Site::new();
    let authority = Authority::new(&site, "ca");
    let mut settings = ClientSettings::discovering(site.socket(), &[]);
    let nobody = format!("https://{}/inboundmail", site.socket());
    settings.routes.push(("moon.example".into(), vec![nobody]));
    settings.ingest = "max_message = \"51MB\"\nidle = \"10m\"\n".into();
    let mut client = world::client(&site, &authority, &settings);
    client.start(&site);

    let head = b"Subject: large\r\n\r\n";
    let line = [[b'x'; 98].as_slice(), b"\r\n"].concat();
    let chunk = line.repeat(640);
    let all_begun = Barrier::new(UPLOADS);
    let watch = Watch::start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..UPLOADS)
            .map(|_| scope.spawn(|| upload(client.api, head, &chunk, &all_begun)))
            .collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let peak = client.process().peak_memory();
    println!(
        "{UPLOADS} uploads of {SIZE} octets took {:?}; peak memory {} MB",
        watch.elapsed(),
        peak / 1_000_000
    );
    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    assert!(peak < LIMIT, "{peak} octets");
    assert_eq!(client.unfinished(), Some(UPLOADS as u64));
}

/// One upload; goes on only when all have begun.
fn upload(server: SocketAddr, head: &[u8], chunk: &[u8], all_begun: &Barrier) -> u16 {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    let from = http::escaped("alice@earth.example");
    let to = http::escaped("bob@moon.example");
    write!(
        stream,
        "POST /v1/messages?from={from}&to={to} HTTP/1.1\r\nHost: lightpost\r\nConnection: close\r\n\
         Content-Type: message/rfc822\r\nContent-Length: {SIZE}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(chunk).unwrap();
    all_begun.wait();
    let mut left = SIZE - head.len() - chunk.len();
    while left > chunk.len() + 2 {
        stream.write_all(chunk).unwrap();
        left -= chunk.len();
    }
    let mut last = vec![b'x'; left - 2];
    last.extend_from_slice(b"\r\n");
    stream.write_all(&last).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{answer:?}"))
}
