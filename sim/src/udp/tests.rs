use super::*;

struct Scene {
    link: UdpLink,
    target: UdpSocket,
    clock: Clock,
}

async fn local() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn scene(options: LinkOptions) -> Scene {
    let target = local().await;
    let clock = Clock::system();
    let listen = "127.0.0.1:0".parse().unwrap();
    let link = UdpLink::start(listen, target.local_addr().unwrap(), options, clock.clone())
        .await
        .unwrap();
    Scene { link, target, clock }
}

async fn client(scene: &Scene) -> UdpSocket {
    let client = local().await;
    client.connect(scene.link.address()).await.unwrap();
    client
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = vec![0; PACKET_MAX];
    let (size, from) = socket.recv_from(&mut packet).await.unwrap();
    packet.truncate(size);
    (packet, from)
}

#[tokio::test]
async fn both_ways_for_each_client() {
    let scene = scene(LinkOptions::default()).await;
    let clients = [client(&scene).await, client(&scene).await];
    for (number, client) in clients.iter().enumerate() {
        client.send(&[number as u8; 9_000]).await.unwrap();
    }
    for _ in &clients {
        let (packet, from) = receive(&scene.target).await;
        assert_eq!(packet.len(), 9_000);
        scene.target.send_to(&packet[..10], from).await.unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(receive(client).await.0, [number as u8; 10]);
    }
    // A packet is counted after it has left: the counters follow the wire closely, not at once.
    let counted = async {
        while scene.link.stats().down.delivered < 2 {
            tokio::task::yield_now().await;
        }
    };
    scene
        .clock
        .timeout(Duration::from_secs(1), counted)
        .await
        .unwrap();
    let stats = scene.link.stats();
    assert_eq!(
        (stats.up.packets, stats.up.octets, stats.up.delivered),
        (2, 18_000, 2)
    );
    assert_eq!(
        (stats.down.packets, stats.down.octets, stats.down.delivered),
        (2, 20, 2)
    );
}

#[tokio::test]
async fn light_time_and_rate() {
    // 1,000 octets take 20 ms.
    let scene = scene(LinkOptions {
        owlt: Duration::from_millis(100),
        rate_up: Some(400_000),
        ..LinkOptions::default()
    })
    .await;
    let client = client(&scene).await;
    let start = scene.clock.instant();
    for number in 0..5u8 {
        client.send(&[number; 1_000]).await.unwrap();
    }
    for number in 0..5u8 {
        let (packet, _) = receive(&scene.target).await;
        let passed = start.elapsed();
        assert_eq!(packet[0], number);
        let due = Duration::from_millis(100 + 20 * (u64::from(number) + 1));
        // Never early; how late depends on what else the machine does, and is not for a test to judge.
        assert!(passed >= due, "{number}: {passed:?}, due {due:?}");
    }
}

#[tokio::test]
async fn full_queue_and_loss() {
    let scene = scene(LinkOptions {
        rate_up: Some(8_000),
        queue: 300,
        ..LinkOptions::default()
    })
    .await;
    let client = client(&scene).await;
    for _ in 0..5 {
        client.send(&[0; 100]).await.unwrap();
    }
    receive(&scene.target).await;
    let up = scene.link.stats().up;
    assert_eq!((up.packets, up.dropped), (5, 2));
    let scene = self::scene(LinkOptions {
        loss: 1.0,
        ..LinkOptions::default()
    })
    .await;
    let client = self::client(&scene).await;
    client.send(b"x").await.unwrap();
    let lost = async {
        while scene.link.stats().up.lost < 1 {
            tokio::task::yield_now().await;
        }
    };
    scene.clock.timeout(Duration::from_secs(1), lost).await.unwrap();
}

#[tokio::test]
async fn late_and_twice() {
    let clock = Clock::system();
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let faulty = DirectionOptions {
        duplicates: 1.0,
        late: 1.0,
        late_by: Duration::from_millis(200),
        ..DirectionOptions::default()
    };
    let link = UdpLink::start_with(
        "127.0.0.1:0".parse().unwrap(),
        target.local_addr().unwrap(),
        (faulty.clone(), faulty),
        1,
        clock,
    )
    .await
    .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(link.address()).await.unwrap();
    for number in 0..10u8 {
        client.send(&[number]).await.unwrap();
    }
    let mut arrived = Vec::new();
    for _ in 0..20 {
        arrived.push(receive(&target).await.0[0]);
    }
    // Each at once and again later, in another order.
    assert!(!arrived.is_sorted(), "{arrived:?}");
    for number in 0..10 {
        assert_eq!(arrived.iter().filter(|other| **other == number).count(), 2);
    }
}

#[tokio::test]
async fn dropping_frees_the_address() {
    let scene = scene(LinkOptions {
        owlt: Duration::from_secs(3_600),
        ..LinkOptions::default()
    })
    .await;
    let client = client(&scene).await;
    client.send(b"never arrives").await.unwrap();
    let address = scene.link.address();
    let counters = Arc::downgrade(&scene.link.up);
    drop(scene.link);
    let freed = async {
        while UdpSocket::bind(address).await.is_err() || counters.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    scene.clock.timeout(Duration::from_secs(1), freed).await.unwrap();
}

/// How late packets are and how many pass: `cargo test --release -p lightpost-sim -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn jitter_and_throughput() {
    let owlt = Duration::from_millis(200);
    let scene = scene(LinkOptions {
        owlt,
        ..LinkOptions::default()
    })
    .await;
    let client = client(&scene).await;
    let mut late = Vec::new();
    for _ in 0..5 {
        let start = scene.clock.instant();
        client.send(b"x").await.unwrap();
        receive(&scene.target).await;
        late.push(start.elapsed() - owlt);
    }
    println!("late by {late:?}");
    let packets = 50_000u32;
    let target = scene.target;
    let reader = tokio::spawn(async move {
        let mut packet = vec![0; PACKET_MAX];
        for _ in 0..packets {
            target.recv(&mut packet).await.unwrap();
        }
    });
    let start = scene.clock.instant();
    for number in 0..packets {
        client.send(&[0; 1_200]).await.unwrap();
        if number % 20 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let whole = scene.clock.timeout(Duration::from_secs(5), reader).await.is_ok();
    let passed = start.elapsed() - owlt;
    println!(
        "{:.0} packets/s, all: {whole}, {:?}",
        f64::from(packets) / passed.as_secs_f64(),
        scene.link.stats()
    );
}
