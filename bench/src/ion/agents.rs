//! Our ION agent: one on each node, several bundles in flight, everything done with as it comes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hardy_bpv7::eid::Eid;
use lightpost_clock::{Clock, Instant};
use lightpost_ion::{IonAgent, Settings};
use lightpost_tests::ion::Node;
use lightpost_transport::bundle::agent::{Agent, Class, Content, Outgoing, Reports, SendError, Status};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Sizes,
    nodes::{Nodes, wrapper},
};
use crate::{Result, place::Place};

/// Requests that are being handed over at once, and as many replies.
const WIDTH: usize = 64;
/// How long nothing may arrive.
const STALL: Duration = Duration::from_secs(60);
/// Before a node without room is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// Bundles of the first size a second, each answered by one of the second. Blocks; the agents have a runtime of two threads.
pub(crate) fn rate(nodes: &Nodes, place: &Place, binary: &Path, count: usize, sizes: Sizes) -> Result<f64> {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| format!("the system refuses a runtime: {error}"))?;
            runtime.block_on(exchange(nodes, place, binary, count, sizes))
        };
        let joined = scope.spawn(run).join();
        joined.unwrap_or_else(|_| Err("the thread of the agents ended".into()))
    })
}

async fn exchange(nodes: &Nodes, place: &Place, binary: &Path, count: usize, sizes: Sizes) -> Result<f64> {
    let clock = Clock::system();
    let [earth, moon] = &nodes.pair;
    let (earth, moon) = (
        start(earth, 26, place, binary, &clock).await?,
        start(moon, 25, place, binary, &clock).await?,
    );
    let (at_moon, at_earth) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let reply = sizes.1.map(payload);
    let mut receivers = JoinSet::new();
    receivers.spawn(receive(
        Arc::clone(&moon),
        Arc::clone(&at_moon),
        reply,
        clock.clone(),
    ));
    receivers.spawn(receive(
        Arc::clone(&earth),
        Arc::clone(&at_earth),
        None,
        clock.clone(),
    ));
    let last = if sizes.1.is_some() { &at_earth } else { &at_moon };

    // As bpdriver does, and for the same reason: the nodes connect with the first bundle.
    send(&earth, moon.endpoint(), &payload(sizes.0), &clock).await?;
    arrived(last, 1, &clock).await?;
    let begun = clock.instant();
    let sending = send_all(&earth, &moon, sizes.0, count, &clock);
    let ended = {
        let (sent, ended) = tokio::join!(sending, arrived(last, count + 1, &clock));
        sent?;
        ended?
    };
    receivers.abort_all();
    earth.close().await;
    moon.close().await;
    Ok(count as f64 / ended.duration_since(begun).as_secs_f64())
}

/// An agent whose helper runs on the node's host, up.
async fn start(
    node: &Node,
    service: u32,
    place: &Place,
    binary: &Path,
    clock: &Clock,
) -> Result<Arc<IonAgent>> {
    let folder = place.folder(node.name)?;
    let endpoint: Eid = format!("ipn:{}.{service}", node.number)
        .parse()
        .map_err(|_| "an endpoint of ION is none of ours".to_owned())?;
    let mut settings = Settings::new(endpoint, &folder);
    settings.program = Some(wrapper(node, binary, &folder.join("helper"))?);
    let agent = IonAgent::start(settings, clock.clone()).map_err(|error| error.to_string())?;
    let started = clock.instant();
    loop {
        match agent.status().await {
            Status::Up => return Ok(Arc::new(agent)),
            Status::Down { why, .. } if started.elapsed() > STALL => {
                return Err(format!("the agent on {}: {why}", node.name));
            }
            Status::Down { .. } => clock.sleep(AGAIN).await,
        }
    }
}

fn payload(octets: usize) -> Bytes {
    vec![b'm'; octets].into()
}

async fn send_all(
    from: &Arc<IonAgent>,
    to: &IonAgent,
    octets: usize,
    count: usize,
    clock: &Clock,
) -> Result<()> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut senders: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..WIDTH {
        let (agent, clock, left) = (Arc::clone(from), clock.clone(), Arc::clone(&left));
        let (destination, payload) = (to.endpoint().clone(), payload(octets));
        senders.spawn(async move {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1))
                .is_ok()
            {
                send(&agent, &destination, &payload, &clock).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn send(agent: &IonAgent, destination: &Eid, payload: &Bytes, clock: &Clock) -> Result<()> {
    loop {
        let bundle = Outgoing {
            destination: destination.clone(),
            lifetime: Duration::from_secs(3600),
            class: Class::Normal,
            report_to: None,
            reports: Reports::default(),
            payload: payload.clone(),
        };
        match agent.send(bundle).await {
            Ok(_) => return Ok(()),
            Err(SendError::NoRoom { .. }) => clock.sleep(AGAIN).await,
            Err(error) => return Err(format!("{}: {error}", agent.endpoint())),
        }
    }
}

/// Takes everything that comes, counts it, and answers it.
async fn receive(agent: Arc<IonAgent>, count: Arc<AtomicUsize>, reply: Option<Bytes>, clock: Clock) {
    let width = Arc::new(Semaphore::new(WIDTH));
    loop {
        let delivery = agent.receive().await;
        let source = match &delivery.content {
            Content::Bundle(bundle) => bundle.id.source.clone(),
            Content::Report(_) => continue,
        };
        count.fetch_add(1, Ordering::SeqCst);
        let Some(reply) = reply.clone() else {
            delivery.done();
            continue;
        };
        let Ok(slot) = Arc::clone(&width).acquire_owned().await else {
            return;
        };
        let (agent, clock) = (Arc::clone(&agent), clock.clone());
        tokio::spawn(async move {
            // What cannot be answered does not arrive, which the other end tells of.
            if send(&agent, &source, &reply, &clock).await.is_ok() {
                delivery.done();
            }
            drop(slot);
        });
    }
}

async fn arrived(counter: &AtomicUsize, wanted: usize, clock: &Clock) -> Result<Instant> {
    let mut last = (0, clock.instant());
    loop {
        let count = counter.load(Ordering::SeqCst);
        if count >= wanted {
            return Ok(clock.instant());
        }
        if count > last.0 {
            last = (count, clock.instant());
        } else if last.1.elapsed() > STALL {
            return Err(format!("only {count} of {wanted} bundles arrived through ION"));
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
}
