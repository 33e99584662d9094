//! The smallest relay: an `IonAgent` that is told on standard input what to do and tells what happens on standard output, a JSON object a line.
//!
//! `ion-relay ENDPOINT FOLDER LIGHTPOST`; then, a line each:
//! - `send DESTINATION OCTETS CLASS NUMBER [LIFETIME [report]]` sends a payload that [`payload`] makes of its number
//! - `flood DESTINATION OCTETS COUNT WIDTH [FIRST]` sends so many, some at once, again until the node takes them, and tells the time at the end
//! - `burst OCTETS COUNT DESTINATION...` sends so many at once, to the destinations in turn, each once
//! - `cancel NUMBER` cancels what was sent
//! - `hold` keeps further deliveries undone
//! - `quiet` tells of deliveries in hundreds
//! - `close`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture fails the test that uses it"
)]

use std::{
    collections::HashMap,
    io::BufRead,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lightpost_clock::Clock;
use lightpost_ion::{IonAgent, Settings};
use lightpost_transport::bundle::agent::{
    Agent, BundleId, Class, Content, Outgoing, Reports, SendError, Status,
};
use serde_json::{Value, json};

/// What is shared by all that happens here.
struct World {
    agent: IonAgent,
    clock: Clock,
    sent: Mutex<HashMap<u64, BundleId>>,
    hold: AtomicBool,
    quiet: AtomicBool,
    got: AtomicU64,
}

fn tell(value: &Value) {
    println!("{value}");
}

/// A payload that shows by itself whether it is whole.
fn payload(number: u64, octets: usize) -> Bytes {
    let mut payload = number.to_be_bytes().to_vec();
    let mut state = number | 1;
    while payload.len() < octets {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        payload.extend_from_slice(&state.to_be_bytes());
    }
    payload.truncate(octets);
    payload.into()
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap().parse().unwrap();
    let mut settings = Settings::new(endpoint, arguments.next().unwrap());
    settings.program = Some(arguments.next().unwrap().into());
    settings.patience = Duration::from_secs(20);
    let clock = Clock::system();
    let world = Arc::new(World {
        agent: IonAgent::start(settings, clock.clone()).unwrap(),
        clock,
        sent: Mutex::default(),
        hold: AtomicBool::new(false),
        quiet: AtomicBool::new(false),
        got: AtomicU64::new(0),
    });
    tokio::spawn(watch(Arc::clone(&world)));
    tokio::spawn(receive(Arc::clone(&world)));
    let (lines, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    while let Some(line) = orders.recv().await {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words[0].as_str() {
            "close" => break,
            "hold" => world.hold.store(true, Ordering::SeqCst),
            "quiet" => world.quiet.store(true, Ordering::SeqCst),
            "send" => send(&world, &words).await,
            "burst" => burst(&world, &words),
            "cancel" => cancel(&world, words[1].parse().unwrap()).await,
            "flood" => drop(tokio::spawn(flood(Arc::clone(&world), words))),
            other => panic!("{other}?"),
        }
    }
    world.agent.close().await;
}

async fn watch(world: Arc<World>) {
    let mut known = None;
    loop {
        let status = world.agent.status().await;
        if known.as_ref() != Some(&status) {
            match &status {
                Status::Up => tell(&json!({"status": "up"})),
                Status::Down { why, remedy } => {
                    tell(&json!({"status": "down", "why": why, "remedy": remedy}))
                }
            }
            known = Some(status);
        }
        world.clock.sleep(Duration::from_millis(20)).await;
    }
}

async fn receive(world: Arc<World>) {
    let mut held = Vec::new();
    loop {
        let delivery = world.agent.receive().await;
        match &delivery.content {
            Content::Bundle(bundle) => {
                let number = bundle
                    .payload
                    .first_chunk()
                    .map_or(u64::MAX, |it| u64::from_be_bytes(*it));
                let got = world.got.fetch_add(1, Ordering::SeqCst) + 1;
                if !world.quiet.load(Ordering::SeqCst) {
                    tell(&json!({
                        "got": number,
                        "octets": bundle.payload.len(),
                        "sound": bundle.payload == payload(number, bundle.payload.len()),
                        "id": bundle.id.to_string(),
                        "expires": bundle.expires.map(|at| at.to_string()),
                    }));
                } else if got.is_multiple_of(100) {
                    tell(&json!({"count": got}));
                }
            }
            Content::Report(report) => tell(&json!({
                "report": format!("{:?}", report.event),
                "about": report.about.to_string(),
                "from": report.from.to_string(),
                "reason": report.reason,
                "at": report.at.map(|at| at.to_string()),
            })),
        }
        if world.hold.load(Ordering::SeqCst) {
            held.push(delivery);
        } else {
            delivery.done();
        }
    }
}

fn outgoing(destination: &str, payload: Bytes) -> Outgoing {
    Outgoing {
        destination: destination.parse().unwrap(),
        lifetime: Duration::from_secs(3600),
        class: Class::Normal,
        report_to: None,
        reports: Reports::default(),
        payload,
    }
}

async fn send(world: &World, words: &[String]) {
    let number: u64 = words[4].parse().unwrap();
    let mut bundle = outgoing(&words[1], payload(number, words[2].parse().unwrap()));
    bundle.class = match words[3].as_str() {
        "bulk" => Class::Bulk,
        "expedited" => Class::Expedited,
        _ => Class::Normal,
    };
    if let Some(lifetime) = words.get(5) {
        bundle.lifetime = Duration::from_secs(lifetime.parse().unwrap());
    }
    if words.get(6).is_some() {
        bundle.report_to = Some(world.agent.endpoint().clone());
        bundle.reports = Reports {
            received: true,
            forwarded: true,
            delivered: true,
            deleted: true,
        };
    }
    match world.agent.send(bundle).await {
        Ok(id) => {
            tell(&json!({"sent": number, "id": id.to_string()}));
            world.sent.lock().unwrap().insert(number, id);
        }
        Err(error) => {
            let text = format!("{error:?}");
            let kind = text.split([' ', '(']).next();
            tell(&json!({"failed": number, "kind": kind, "text": error.to_string()}));
        }
    }
}

fn burst(world: &Arc<World>, words: &[String]) {
    let (octets, count): (&str, usize) = (&words[1], words[2].parse().unwrap());
    for (number, destination) in words[3..].iter().cycle().take(count).enumerate() {
        let order = ["send", destination, octets, "normal", &number.to_string()].map(str::to_owned);
        let world = Arc::clone(world);
        tokio::spawn(async move { send(&world, &order).await });
    }
}

async fn cancel(world: &World, number: u64) {
    let id = world.sent.lock().unwrap().get(&number).cloned().unwrap();
    match world.agent.cancel(&id).await {
        Ok(had) => tell(&json!({"cancelled": number, "had": had})),
        Err(error) => tell(&json!({"uncancelled": number, "text": error.to_string()})),
    }
}

async fn flood(world: Arc<World>, words: Vec<String>) {
    let (octets, count, width): (usize, u64, u64) = (
        words[2].parse().unwrap(),
        words[3].parse().unwrap(),
        words[4].parse().unwrap(),
    );
    let first: u64 = words.get(5).map_or(0, |it| it.parse().unwrap());
    let next = Arc::new(AtomicU64::new(first));
    let begun = world.clock.instant();
    let senders: Vec<_> = (0..width)
        .map(|_| {
            let (world, next, destination) = (Arc::clone(&world), Arc::clone(&next), words[1].clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= first + count {
                        return;
                    }
                    while let Err(error) = world
                        .agent
                        .send(outgoing(&destination, payload(number, octets)))
                        .await
                    {
                        let kind = if matches!(error, SendError::NoRoom { .. }) {
                            "no-room"
                        } else {
                            "flooding"
                        };
                        tell(&json!({kind: error.to_string()}));
                        world.clock.sleep(Duration::from_millis(20)).await;
                    }
                    if !world.quiet.load(Ordering::SeqCst) {
                        tell(&json!({"flooded": number}));
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let seconds = (world.clock.instant() - begun).as_secs_f64();
    tell(&json!({"flood": count, "seconds": seconds}));
}
