use std::time::Duration;

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use lightpost_clock::Clock;

use super::*;

const GATEWAY: &str = "_bsmtp._https.moon.example";

fn uri(priority: u16, target: &str) -> (String, Data) {
    let target = target.to_owned();
    (
        GATEWAY.to_owned(),
        Data::Uri {
            priority,
            weight: 1,
            target,
        },
    )
}

fn zone() -> Zone {
    Zone {
        origin: "moon.example".to_owned(),
        ttl: 60,
        records: vec![
            uri(10, "https://gw1.moon.example/inboundmail"),
            uri(20, "https://gw2.moon.example/inboundmail"),
            ("gw1.moon.example".to_owned(), Data::A(Ipv4Addr::LOCALHOST)),
            ("gw1.moon.example".to_owned(), Data::Aaaa(Ipv6Addr::LOCALHOST)),
        ],
    }
}

async fn start(zone: &Zone) -> Dns {
    Dns::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

async fn ask(dns: &Dns, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket
        .send_to(&message.to_vec().unwrap(), dns.address())
        .await
        .unwrap();
    let mut answer = vec![0; 65_535];
    let size = socket.recv(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer[..size]).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

async fn ask_by_tcp(dns: &Dns, message: &Message) -> Message {
    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    let octets = message.to_vec().unwrap();
    stream.write_u16(octets.len() as u16).await.unwrap();
    stream.write_all(&octets).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn answers() {
    let dns = start(&zone()).await;
    let uri = RecordType::from(256);
    let cases = [
        (GATEWAY, uri, ResponseCode::NoError, 2),
        ("_BSMTP._https.Moon.example", uri, ResponseCode::NoError, 2),
        (GATEWAY, RecordType::A, ResponseCode::NoError, 0),
        ("_https.moon.example", uri, ResponseCode::NoError, 0),
        ("moon.example", RecordType::MX, ResponseCode::NoError, 0),
        ("moon.example", RecordType::SOA, ResponseCode::NoError, 1),
        ("gw1.moon.example", RecordType::A, ResponseCode::NoError, 1),
        ("gw1.moon.example", RecordType::AAAA, ResponseCode::NoError, 1),
        ("gw2.moon.example", RecordType::A, ResponseCode::NXDomain, 0),
        ("mars.example", RecordType::A, ResponseCode::Refused, 0),
    ];
    for (name, kind, code, count) in cases {
        let message = query(name, kind);
        for answer in [ask(&dns, &message).await, ask_by_tcp(&dns, &message).await] {
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (code, count),
                "{name} {kind}"
            );
            let refused = code == ResponseCode::Refused;
            assert_eq!(answer.metadata.authoritative, !refused);
            // Negative answers can be remembered.
            let soa = answer
                .authorities
                .iter()
                .any(|record| matches!(record.data, RData::SOA(_)));
            assert_eq!(soa, count == 0 && !refused, "{name} {kind}");
        }
    }
    assert_eq!(dns.queries(), 20);
}

#[tokio::test]
async fn uri_on_the_wire() {
    let dns = start(&zone()).await;
    let answer = ask(&dns, &query(GATEWAY, RecordType::from(256))).await;
    let RData::Unknown { rdata, .. } = &answer.answers[0].data else {
        panic!("{answer:?}");
    };
    assert_eq!(
        rdata.anything,
        b"\x00\x0a\x00\x01https://gw1.moon.example/inboundmail"
    );
    assert_eq!(answer.answers[0].ttl, 60);
}

#[tokio::test]
async fn long_answers_go_by_tcp() {
    let mut zone = zone();
    zone.records = (0..20)
        .map(|number| uri(number, &format!("https://gw.moon.example/{}", "x".repeat(100))))
        .collect();
    let dns = start(&zone).await;
    let mut message = query(GATEWAY, RecordType::from(256));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    let answer = ask(&dns, &message).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty() && answer.edns.is_some());
    let answer = ask_by_tcp(&dns, &message).await;
    assert_eq!(answer.answers.len(), 20);
}

#[tokio::test]
async fn zones_change() {
    let dns = start(&zone()).await;
    let message = query(GATEWAY, RecordType::from(256));
    dns.set(&Zone {
        records: vec![uri(5, "https://new.moon.example/")],
        ..zone()
    })
    .unwrap();
    assert_eq!(ask(&dns, &message).await.answers.len(), 1);
    dns.set(&Zone {
        records: Vec::new(),
        ..zone()
    })
    .unwrap();
    assert_eq!(
        ask(&dns, &message).await.metadata.response_code,
        ResponseCode::NXDomain
    );
    let outside = Zone {
        origin: "mars.example".to_owned(),
        ..zone()
    };
    assert_eq!(dns.set(&outside), Err(ZoneError::Outside(GATEWAY.to_owned())));
    let empty = Zone {
        records: vec![uri(5, "")],
        ..zone()
    };
    assert_eq!(dns.set(&empty), Err(ZoneError::Target(GATEWAY.to_owned())));
}

#[tokio::test]
async fn silence() {
    let dns = start(&zone()).await;
    let message = query("gw1.moon.example", RecordType::A);
    dns.silence(true);
    let waited = Clock::system()
        .timeout(Duration::from_millis(100), ask(&dns, &message))
        .await;
    assert!(waited.is_err());
    assert_eq!(dns.queries(), 1);
    dns.silence(false);
    assert_eq!(ask(&dns, &message).await.answers.len(), 1);
}

#[tokio::test]
async fn nonsense() {
    let dns = start(&zone()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns.address()).await.unwrap();
    // Too short to answer; then an id without a message.
    socket.send(b"x").await.unwrap();
    socket.send(b"\x12\x34nonsense").await.unwrap();
    let mut answer = [0; 512];
    let size = socket.recv(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer[..size]).unwrap();
    assert_eq!(
        (answer.metadata.id, answer.metadata.response_code),
        (0x1234, ResponseCode::FormErr)
    );
}
