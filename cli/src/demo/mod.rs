//! `lightpost demo`: both programs on this machine with deep space between them.

mod journey;
mod picture;
mod screen;
mod watch;
mod world;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use jiff::Timestamp;
use lightpost_clock::Clock;
use ulid::Ulid;

use self::{screen::Screen, watch::Watch, world::World};
use crate::{
    args::{Carrier, Demo, LogFormat},
    connection,
    endpoint::{Address, Endpoint},
    failure::{Failure, code},
    output::{Output, Tone},
    problem,
    profile::rate,
    serve::{Signals, block_on, logging},
};

/// How often the queues are looked at and the dot is moved.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the command.
pub(crate) fn run(options: &Demo, output: Output) -> Result<(), Failure> {
    if options.transport == Carrier::Bundle && options.loss > 0.0 {
        return Err(Failure::new(
            code::USAGE,
            "the bundles of the demo cross in streams, of which nothing is lost",
            "leave out --loss, or run the demo with --transport quic",
        ));
    }
    logging::start(LogFormat::Text, &options.log_level)?;
    block_on(async {
        let mut signals = Signals::new()?;
        let world = World::start(options, &Clock::system()).await?;
        let shown = tokio::select! {
            shown = show(options, &world, output) => shown,
            () = signals.next() => Ok(()),
        };
        tokio::select! {
            () = world.stop() => {}
            () = signals.next() => {}
        }
        shown
    })
}

/// Sends the first mail, then shows every mail's way for as long as it is let.
async fn show(options: &Demo, world: &World, output: Output) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut screen = Screen::new(output, options.owlt);
    if !output.json {
        introduce(options, world, &mut screen, output)?;
    }
    let mut watch = Watch::new(
        world.client.store().clone(),
        world.server.store(),
        world.mailbox.subscribe(1000),
    );
    let mut first = Some(hand_over(world, &clock).await?);
    let mut told = Vec::new();
    loop {
        let before = watch.journeys().len();
        let news = watch
            .look()
            .await
            .map_err(|error| Failure::new(code::IOERR, error.to_string(), ""))?;
        first = first.filter(|(id, start, acknowledged)| !watch.handed_over(*id, *start, *acknowledged));
        if output.json {
            for journey in watch.journeys().iter().filter(|journey| journey.is_over()) {
                if !told.contains(&journey.id) {
                    told.push(journey.id);
                    output.value(&journey.facts(options.owlt, options.transport))?;
                }
            }
        } else {
            for (number, message) in (before + 1..).zip(&news) {
                screen.mail(number, message)?;
            }
            for (index, journey) in watch.journeys().iter().enumerate() {
                screen.journey(index, journey)?;
            }
            screen.animate(watch.journeys(), clock.now())?;
        }
        if let Some(journey) = watch
            .journeys()
            .first()
            .filter(|journey| options.once && journey.is_over())
        {
            screen.wipe()?;
            return if journey.lost {
                Err(lost(&journey.incidents))
            } else {
                Ok(())
            };
        }
        clock.sleep(LOOK).await;
    }
}

fn lost(incidents: &[(Timestamp, String)]) -> Failure {
    let cause = incidents.last().map_or("", |(_, text)| text.as_str());
    Failure::new(
        code::UNAVAILABLE,
        format!("the mail did not arrive: {cause}"),
        "see --log-level info",
    )
}

fn introduce(options: &Demo, world: &World, screen: &mut Screen, output: Output) -> Result<(), Failure> {
    let loss = if options.loss > 0.0 {
        format!("{} % of the packets lost", options.loss * 100.0)
    } else {
        "nothing lost".to_owned()
    };
    let title = output.paint(Tone::Strong, "Mail to the far side");
    let owlt = lightpost_config::duration_text(options.owlt);
    screen.line(&format!(
        "{title}  {owlt} of light one way, {}, {loss}",
        rate(options.rate.0)
    ))?;
    if options.transport == Carrier::Bundle {
        screen.line(
            "in bundles (BPv7) from ipn:1.26 to ipn:2.25, one for the mail and one for its reply, over STCP",
        )?;
    }
    screen.line(&format!("files in {}", world.folder().display()))?;
    screen.line("\nSend a mail of your own:")?;
    let command = format!(
        "  printf 'Subject: Hello\\n\\nIs anybody there?\\n' | curl -sS -H 'Content-Type: message/rfc822' --data-binary @- \
         'http://{}/v1/messages?from=me@earth.example&to=you@moon.example'",
        world.ingest
    );
    screen.line(&output.paint(Tone::Good, &command))?;
    if !options.once {
        screen.line(&output.paint(Tone::Faint, "Ctrl-C ends it."))?;
    }
    Ok(())
}

/// Hands the first mail over, as anybody would. Returns its id, when that began and when the answer came.
async fn hand_over(world: &World, clock: &Clock) -> Result<(Ulid, Timestamp, Timestamp), Failure> {
    let endpoint = Endpoint {
        address: Address::Tcp(world.ingest.to_string()),
        prefix: String::new(),
        token: None,
    };
    let start = clock.now();
    let mail = format!(
        "From: Earth <earth@earth.example>\r\nTo: Moon <moon@moon.example>\r\nDate: {}\r\n\
         Message-ID: <{}@earth.example>\r\nSubject: One small mail\r\n\r\nCan you hear us?\r\n",
        start.strftime("%a, %-d %b %Y %H:%M:%S +0000"),
        start.as_millisecond(),
    );
    let request = connection::request(
        &endpoint,
        Method::POST,
        "/v1/messages?from=earth@earth.example&to=moon@moon.example",
    )
    .header(header::CONTENT_TYPE, "message/rfc822")
    .body(connection::full(Bytes::from(mail)))
    .map_err(|error| Failure::new(code::SOFTWARE, error.to_string(), "report this"))?;
    let answer = connection::exchange(&endpoint, request, clock)
        .await
        .map_err(|trouble| trouble.failure(&endpoint))?;
    let receipt: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let id = receipt
        .get("id")
        .and_then(|id| Ulid::from_string(id.as_str()?).ok());
    match id {
        Some(id) if answer.status.is_success() => Ok((id, start, clock.now())),
        _ => Err(Failure::new(
            code::UNAVAILABLE,
            format!(
                "the agent refuses the mail: {}",
                problem::text(answer.status.as_u16(), &answer.body)
            ),
            "report this",
        )),
    }
}
