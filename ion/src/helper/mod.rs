//! The helper process: `lightpost ion-agent`. It alone has ION in its memory.
//!
//! The relay starts it with one end of a socket pair as standard input ([`crate::protocol`]). Three threads: the first talks to the relay, one
//! hands bundles over ([`orders`]), one takes bundles ([`inbox`]). ION's calls can hang, so none of them is made on the first.
//!
//! It ends on request, on SIGTERM, when the relay is gone and when the node stops, always outside of a transaction: a process that dies inside
//! one locks the whole node. SIGINT is the relay's business: a terminal sends it to both.

mod batch;
mod inbox;
mod orders;
mod relay;
mod threads;

use std::{
    io,
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, net::UnixStream as StdUnixStream},
    },
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::BytesMut;
use lightpost_clock::Clock;
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use self::{
    inbox::Window,
    orders::{Question, Work},
    relay::{Events, Relay, Start, tell},
    threads::Threads,
};
use crate::{
    library::{Libraries, Node, OpenError},
    protocol::{Event, Outcome, Request, Trouble, VERSION},
    spool, words,
};

/// How long attaching may take before the node is reported as locked.
const ATTACH: Duration = Duration::from_secs(10);
/// How long the relay may take to say what to do.
const START: Duration = Duration::from_secs(10);
/// How long the threads may take to end while none of them is inside a transaction.
const END: Duration = Duration::from_secs(10);
/// Why the helper ended, other than by request.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Standard input is not a socket.
    #[error(
        "`ion-agent` is started by `lightpost client` and `lightpost server` themselves, for paths that lead through ION"
    )]
    ByHand,
    /// The relay speaks another version, or not at all.
    #[error("the relay does not speak version {VERSION} of the helper's protocol")]
    Protocol,
    /// The system refuses.
    #[error("the helper for ION cannot run: {0}")]
    System(#[from] io::Error),
    /// The relay was told.
    #[error("{0}")]
    Node(String),
}

/// Runs the helper until the relay, a signal or the node ends it.
///
/// # Errors
/// [`HelperError`]
pub fn run() -> Result<(), HelperError> {
    let socket = socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(converse(socket));
    // A thread that hangs in ION is not waited for any longer.
    runtime.shutdown_background();
    result
}

/// Takes the socket from standard input, which is /dev/null from here on: nothing that ION starts shall hold it.
fn socket() -> Result<StdUnixStream, HelperError> {
    let owned = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = StdUnixStream::from(owned);
    socket.peer_addr().map_err(|_| HelperError::ByHand)?;
    socket.set_nonblocking(true)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).map_err(io::Error::from)?;
    Ok(socket)
}

async fn converse(socket: StdUnixStream) -> Result<(), HelperError> {
    let clock = Clock::system();
    // Taken over, so that it does not end the process.
    let _interrupt = signal(SignalKind::interrupt())?;
    let (reader, writer) = UnixStream::from_std(socket)?.into_split();
    let mut relay = Relay {
        reader,
        buffer: BytesMut::new(),
        terminate: signal(SignalKind::terminate())?,
    };
    let (events, told) = Events::channel();
    let telling = tokio::spawn(tell(writer, told));
    events.tell(Event::Hello {
        protocol: VERSION,
        process: std::process::id(),
    });
    let started = clock.timeout(START, relay.start()).await;
    let start = started.map_err(|_| HelperError::Protocol)??;
    let result = serve(start, &mut relay, &events, &clock).await;
    drop(events);
    let _ = clock.timeout(END, telling).await;
    result
}

/// The numbers of an endpoint `ipn:NODE.SERVICE`.
fn numbers(endpoint: &str) -> Option<(u64, u32)> {
    let (node, service) = endpoint.strip_prefix("ipn:")?.split_once('.')?;
    Some((node.parse().ok()?, service.parse().ok()?))
}

/// Opens everything, step by step, and serves until the end.
async fn serve(start: Start, relay: &mut Relay, events: &Events, clock: &Clock) -> Result<(), HelperError> {
    let fail = |trouble: Trouble| {
        let text = format!("{}; {}", trouble.why, trouble.remedy);
        events.tell(Event::Down(trouble));
        Err(HelperError::Node(text))
    };
    let lock = tokio::select! {
        lock = lock_spool(&start.spool, events, clock) => lock,
        () = relay.end() => return Ok(()),
    };
    let _lock = match lock {
        Ok(lock) => lock,
        Err(error) => return fail(words::disk(&start.spool, &error)),
    };
    events.tell(Event::Spool);
    let writer = match spool::Writer::new(&start.spool) {
        Ok(writer) => writer,
        Err(error) => return fail(words::disk(&start.spool, &error)),
    };
    let node = tokio::select! {
        node = attach(start.number, start.service, events, clock) => node,
        // The thread hangs waiting for the node's lock, so it is not inside.
        () = relay.end() => return Ok(()),
    };
    let node = match node {
        Ok(node) => Arc::new(node),
        Err(error) => return fail(trouble(&error, &start.endpoint)),
    };
    events.tell(Event::Up);
    let (window, mut threads) = Threads::start(&node, writer, &start, events, clock);
    let ended = work(relay, &mut threads, &window, events, clock).await;
    threads.end(node, clock).await;
    match ended {
        Some(trouble) => fail(trouble),
        None => Ok(()),
    }
}

fn trouble(error: &Unopened, endpoint: &str) -> Trouble {
    match error {
        Unopened::Libraries(tried) => words::no_libraries(tried),
        Unopened::Node(OpenError::Absent(said)) => words::absent(said),
        Unopened::Node(OpenError::Stopped) => words::stopped(),
        Unopened::Node(OpenError::Endpoint(said)) => words::endpoint(endpoint, said),
    }
}

/// Waits for the spool's lock, and tells when another helper has it.
async fn lock_spool(folder: &Path, events: &Events, clock: &Clock) -> io::Result<std::fs::File> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(spool::lock_file(folder))?;
    for attempt in 0_u32.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        // A helper whose relay was killed needs a moment to end.
        if attempt == 30 {
            events.tell(Event::Down(words::busy(folder)));
        }
        clock.sleep(Duration::from_millis(100)).await;
    }
    Ok(file)
}

enum Unopened {
    Libraries(Vec<String>),
    Node(OpenError),
}

/// Loads the libraries and opens the endpoint, and tells when it takes too long; goes on when a locked node is unlocked.
async fn attach(number: u64, service: u32, events: &Events, clock: &Clock) -> Result<Node, Unopened> {
    let (opened, mut opening) = oneshot::channel();
    thread::spawn(move || {
        let libraries = Libraries::load().map_err(Unopened::Libraries);
        let _ = opened.send(libraries.and_then(|it| it.open(number, service).map_err(Unopened::Node)));
    });
    let node = match clock.timeout(ATTACH, &mut opening).await {
        Ok(node) => node,
        Err(_) => {
            events.tell(Event::Down(words::locked()));
            opening.await
        }
    };
    node.unwrap_or_else(|_| {
        Err(Unopened::Node(OpenError::Absent(
            "the thread that attaches ended".into(),
        )))
    })
}

/// Passes requests on until the relay wants the end, or a thread has ended by itself: then why.
async fn work(
    relay: &mut Relay,
    threads: &mut Threads,
    window: &Window,
    events: &Events,
    clock: &Clock,
) -> Option<Trouble> {
    loop {
        let next = tokio::select! {
            next = relay.several() => next,
            trouble = threads.ended.recv() => return trouble.flatten(),
        };
        let Ok(Some(requests)) = next else {
            return None;
        };
        let mut works = Vec::with_capacity(requests.len());
        let mut over = false;
        for (request, payload) in requests {
            match request {
                Request::Send(order) => works.push(Work::send(order, payload, clock.instant())),
                Request::Cancel { id, time, sequence } => {
                    works.push(Work::Ask(Question::Cancel { id, time, sequence }));
                }
                Request::Ping { id } => works.push(Work::Ask(Question::Ping { id })),
                Request::Done { deliveries, octets } => window.done(deliveries, octets),
                Request::Stop | Request::Start { .. } => over = true,
            }
        }
        if let Err(works) = threads.pass(works) {
            let refused = works.iter().map(|work| Event::Answer {
                id: work.id(),
                outcome: Outcome::NoRoom {
                    why: "too many requests wait for ION".into(),
                },
            });
            events.tell_all(refused.collect());
        }
        if over {
            return None;
        }
    }
}
