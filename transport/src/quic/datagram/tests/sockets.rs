use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::Ipv4Addr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::*;
use crate::quic::datagram::Wire;

/// Notes when what was sent, in milliseconds; blocks when told to.
#[derive(Debug)]
struct Probe {
    start: Instant,
    sent: Mutex<Vec<(u64, usize, SocketAddr)>>,
}

impl Probe {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: start(),
            sent: Mutex::default(),
        })
    }

    fn take(&self) -> Vec<(u64, usize, SocketAddr)> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

#[derive(Debug)]
struct Ready;

impl UdpPoller for Ready {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Probe {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Ready)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let at = (TokioRuntime.now() - self.start).as_millis() as u64;
        let sent = (at, transmit.contents.len(), transmit.destination);
        self.sent.lock().unwrap().push(sent);
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        bufs[0][0] = 0;
        meta[0].addr = to(1);
        meta[0].len = 1_000;
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn max_transmit_segments(&self) -> usize {
        10
    }
}

fn wrap(wire: &Wire) -> (Arc<Probe>, Arc<dyn AsyncUdpSocket>) {
    let probe = Probe::new();
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    let socket = wire.wrap(probe.clone(), &runtime);
    (probe, socket)
}

fn transmit(contents: &[u8], destination: SocketAddr) -> Transmit<'_> {
    Transmit {
        destination,
        ecn: None,
        contents,
        segment_size: (contents.len() > 972).then_some(972),
        src_ip: None,
    }
}

/// Writes as quinn does: ask, write, and when it blocks ask again.
async fn write(
    socket: &Arc<dyn AsyncUdpSocket>,
    poller: &mut Pin<Box<dyn UdpPoller>>,
    transmit: &Transmit<'_>,
) {
    poll_fn(|cx| {
        loop {
            std::task::ready!(poller.as_mut().poll_writable(cx)).unwrap();
            match socket.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    sent.unwrap();
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_paced_destination_holds_its_writers_back_and_no_others() {
    let wire = Wire::outgoing([("moon".to_owned(), options(Policy::None))]);
    wire.route(to(1), "moon");
    let (probe, socket) = wrap(&wire);
    let (mut moon, mut earth) = (
        socket.clone().create_io_poller(),
        socket.clone().create_io_poller(),
    );
    for _ in 0..20 {
        write(&socket, &mut moon, &transmit(&[0; 4 * 972], to(1))).await;
    }
    let now = (TokioRuntime.now() - probe.start).as_millis() as u64;
    assert!(
        (550..=600).contains(&now),
        "80,000 octets are sent at 1 Mbit/s: {now}"
    );
    write(&socket, &mut earth, &transmit(&[0; 5], to(2))).await;
    assert_eq!(probe.take().pop().unwrap(), (now, 5, to(2)));
    // An answer of the endpoint itself never waits; there is no room now.
    let error = socket.try_send(&transmit(&[0; 9], to(1))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    tokio::task::yield_now().await;
    write(&socket, &mut moon, &transmit(&[7; 3], to(1))).await;
    while !probe.sent.lock().unwrap().iter().any(|sent| sent.1 == 3) {
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(())
        })
        .await;
        lightpost_clock::Clock::system().sleep(ms(1)).await;
    }
    let (at, ..) = probe.take().pop().unwrap();
    assert!((640..=643).contains(&at), "{at}");
    assert_eq!(wire.counters().sent_octets, 80_000 + 31);
}

#[tokio::test(start_paused = true)]
async fn fast_lines_leave_in_large_pieces() {
    let fast = LineOptions {
        rate: Some(1e9),
        ..options(Policy::None)
    };
    let wire = Wire::outgoing([("moon".to_owned(), fast)]);
    wire.route(to(1), "moon");
    let (probe, socket) = wrap(&wire);
    let mut poller = socket.clone().create_io_poller();
    for _ in 0..2_000 {
        write(&socket, &mut poller, &transmit(&[0; 9_720], to(1))).await;
    }
    lightpost_clock::Clock::system().sleep(ms(100)).await;
    let sent = probe.take();
    assert_eq!(sent.iter().map(|sent| sent.1).sum::<usize>(), 2_000 * 9_720);
    assert!(sent.len() < 6_000, "{} calls for 20,000 datagrams", sent.len());
    let (last, ..) = *sent.last().unwrap();
    assert!((150..=165).contains(&last), "20 MB at 1 Gbit/s: {last} ms");
}

#[tokio::test(start_paused = true)]
async fn repeats_follow_and_never_amplify() {
    let wire = Wire::incoming(options(Policy::All));
    let (probe, socket) = wrap(&wire);
    let mut poller = socket.clone().create_io_poller();
    write(&socket, &mut poller, &transmit(&[0; 900], to(1))).await;
    lightpost_clock::Clock::system().sleep(ms(100)).await;
    assert_eq!(probe.take().len(), 1, "nothing came from there yet");
    let mut buffer = [0; 1_000];
    poll_fn(|cx| {
        socket.poll_recv(
            cx,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut [RecvMeta::default()],
        )
    })
    .await
    .unwrap();
    // 900 were sent; 3,000 may be: once more, and once with its repeat.
    for _ in 0..2 {
        write(&socket, &mut poller, &transmit(&[0; 900], to(1))).await;
        lightpost_clock::Clock::system().sleep(ms(100)).await;
    }
    let times: Vec<u64> = probe.take().iter().map(|sent| sent.0).collect();
    assert_eq!(times, [100, 120, 200]);
    let counters = wire.counters();
    assert_eq!((counters.sent, counters.repeated, counters.dropped), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_does_nothing_is_not_there_and_a_socket_that_is_gone_leaves_nothing() {
    let plain = LineOptions {
        rate: None,
        ..options(Policy::None)
    };
    let (probe, socket) = wrap(&Wire::outgoing([("earth".to_owned(), plain)]));
    assert!(Arc::ptr_eq(&socket, &(probe as Arc<dyn AsyncUdpSocket>)));
    let (probe, socket) = wrap(&Wire::incoming(options(Policy::All)));
    drop(socket);
    while Arc::strong_count(&probe) > 1 {
        tokio::task::yield_now().await;
    }
}
