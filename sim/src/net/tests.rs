use std::{io::IoSliceMut, time::Duration};

use jiff::Timestamp;
use quinn::udp::{RecvMeta, Transmit};

use super::*;

const FAR: ([u8; 4], u16) = ([127, 0, 0, 1], 443);
const MARS: Duration = Duration::from_secs(182);

fn space(options: DirectionOptions, seed: u64) -> Space {
    Space::even(options, seed, Clock::runtime(Timestamp::UNIX_EPOCH))
}

fn mars() -> DirectionOptions {
    DirectionOptions {
        owlt: MARS,
        rate: Some(1_000_000),
        ..DirectionOptions::default()
    }
}

fn send(socket: &Arc<dyn AsyncUdpSocket>, to: SocketAddr, octets: &[u8]) {
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: octets,
        segment_size: None,
        src_ip: None,
    };
    socket.try_send(&transmit).unwrap();
}

async fn receive(socket: &Arc<dyn AsyncUdpSocket>) -> (Vec<u8>, SocketAddr) {
    let (mut buffer, mut meta) = (vec![0; 2_000], [RecvMeta::default()]);
    std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))
        .await
        .unwrap();
    buffer.truncate(meta[0].len);
    (buffer, meta[0].addr)
}

#[tokio::test(start_paused = true)]
async fn there_and_back() {
    let space = space(mars(), 1);
    let far = space.far().bind(FAR.into()).unwrap();
    let earth = space.earth().bind_any().unwrap();
    send(&earth, FAR.into(), &[1; 1_250]);
    send(&earth, FAR.into(), b"2");
    let (octets, from) = receive(&far).await;
    assert_eq!((octets.len(), from), (1_250, earth.local_addr().unwrap()));
    assert_eq!(space.elapsed(), MARS + Duration::from_millis(10));
    assert_eq!(receive(&far).await.0, b"2");
    send(&far, from, b"back");
    assert_eq!(receive(&earth).await.0, b"back");
    assert!(space.elapsed() >= MARS * 2 && space.elapsed() < MARS * 2 + Duration::from_millis(15));
    let stats = space.stats();
    assert_eq!(
        (stats.up.packets, stats.up.octets, stats.up.delivered),
        (2, 1_251, 2)
    );
    assert_eq!((stats.down.packets, stats.down.delivered), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_taken_while_its_socket_lives() {
    let space = space(mars(), 1);
    let far = space.far().bind(FAR.into()).unwrap();
    assert!(space.far().bind(FAR.into()).is_err());
    let earth = space.earth().bind_any().unwrap();
    assert_ne!(
        earth.local_addr().unwrap(),
        space.earth().bind_any().unwrap().local_addr().unwrap()
    );
    drop(far);
    send(&earth, FAR.into(), b"to nobody");
    space.shared.clock.sleep(MARS * 2).await;
    assert_eq!(space.stats().up.dropped, 1);
    let far = space.far().bind(FAR.into()).unwrap();
    send(&earth, FAR.into(), b"to the next");
    assert_eq!(receive(&far).await.0, b"to the next");
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_is_not_heard() {
    let space = space(mars(), 1);
    let old = space.far().bind(FAR.into()).unwrap();
    let earth = space.earth().bind_any().unwrap();
    space.far().unplug();
    let new = space.far().bind(FAR.into()).unwrap();
    let to = earth.local_addr().unwrap();
    send(&old, to, b"from the grave");
    send(&new, to, b"from the living");
    assert_eq!(receive(&earth).await.0, b"from the living");
    send(&earth, FAR.into(), b"hello");
    assert_eq!(receive(&new).await.0, b"hello");
}

#[tokio::test(start_paused = true)]
async fn what_is_filtered_never_leaves() {
    let space = space(mars(), 1);
    let far = space.far().bind(FAR.into()).unwrap();
    let earth = space.earth().bind_any().unwrap();
    space.filter(Some(Box::new(|way, octets| way == Way::Down || octets != b"2")));
    for octets in [b"1", b"2", b"3"] {
        send(&earth, FAR.into(), octets);
    }
    assert_eq!(receive(&far).await.0, b"1");
    assert_eq!(receive(&far).await.0, b"3");
    assert_eq!(space.stats().up.lost, 1);
}

/// When, and which, of 300 datagrams arrive on a link with every fault.
async fn arrivals(seed: u64) -> Vec<(Duration, u8)> {
    let hour = Duration::from_secs(3_600);
    let space = space(
        DirectionOptions {
            loss: 0.1,
            duplicates: 0.1,
            late: 0.2,
            late_by: hour,
            pauses: vec![Duration::from_secs(1)..hour],
            ..mars()
        },
        seed,
    );
    let far = space.far().bind(FAR.into()).unwrap();
    let earth = space.earth().bind_any().unwrap();
    for number in 0..300u16 {
        send(&earth, FAR.into(), &[number as u8; 1_000]);
    }
    let mut arrived = Vec::new();
    let clock = space.shared.clock.clone();
    while let Ok((octets, _)) = clock.timeout(hour * 3, receive(&far)).await {
        arrived.push((space.elapsed(), octets[0]));
    }
    arrived
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_tells_the_same_story() {
    let first = arrivals(7).await;
    assert!(first.len() > 250 && first.len() < 350, "{}", first.len());
    assert!(first.iter().any(|(at, _)| *at > Duration::from_secs(3_600)));
    assert!(!first.is_sorted_by_key(|(_, number)| *number), "some are late");
    assert_eq!(first, arrivals(7).await);
    assert_ne!(first, arrivals(8).await);
}
