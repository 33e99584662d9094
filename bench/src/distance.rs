//! `bench distance`: what a mail of 4 KiB takes, in light times.

use std::time::Duration;

use serde::Serialize;

use crate::{
    Result, in_virtual_time,
    pair::{Distance, Journey, Pair, mail},
    plain,
};

/// Octets of text in the mail.
pub const SIZE: usize = 4096;
/// The Moon.
pub const MOON: Duration = Duration::from_millis(1_300);
/// Mars when it is near.
pub const MARS: Duration = Duration::from_secs(182);
/// Mars when it is far.
pub const FAR: Duration = Duration::from_secs(1_342);
/// Where real time can be waited for.
pub const REAL: Duration = Duration::from_secs(2);

const HALF_DAY: Duration = Duration::from_secs(12 * 3_600);

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `cold`, `warm`, `idle12h`, `resumed`, `restart_client`, `restart_gateway`, `restart_both`, `quinn_default`, `smtp`.
    pub name: &'static str,
    /// One-way light time in seconds.
    pub owlt_s: f64,
    /// From "on disk at the agent" to "on disk at the gateway", in light times; nothing when it never was.
    pub gateway_owlt: Option<f64>,
    /// From "on disk at the agent" to the reply, likewise.
    pub reply_owlt: Option<f64>,
    /// Set where time was real.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub real_time: bool,
}

impl Row {
    /// A mail that was answered.
    pub fn new(name: &'static str, distance: &Distance, journey: &Journey) -> Self {
        Self {
            name,
            owlt_s: distance.owlt.as_secs_f64(),
            gateway_owlt: Some(rounded(distance.in_owlt(journey.there()))),
            reply_owlt: Some(rounded(distance.in_owlt(journey.there_and_back()))),
            real_time: false,
        }
    }

    /// Something else than ours.
    pub fn other(name: &'static str, distance: &Distance, times: Option<(Duration, Duration)>) -> Self {
        let figure = |span| rounded(distance.in_owlt(span));
        Self {
            name,
            owlt_s: distance.owlt.as_secs_f64(),
            gateway_owlt: times.map(|(there, _)| figure(there)),
            reply_owlt: times.map(|(_, back)| figure(back)),
            real_time: false,
        }
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 10_000.0).round() / 10_000.0
}

/// How a mail finds the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The first mail ever.
    Cold,
    /// On the connection that the one before has opened.
    Warm,
    /// After twelve hours of silence.
    Idle,
    /// After the connection was lost, both programs having stayed.
    Resumed,
    /// After the agent was killed and started.
    RestartClient,
    /// After the gateway was stopped and started: it has said goodbye to the agent.
    RestartGateway,
    /// After both were killed and started.
    RestartBoth,
    /// After both were stopped and started. Not in the table, for it says nothing that the others do not.
    Stopped,
    /// After the gateway was killed and started. Not in the table: the agent learns only from the answer to its mail, a stateless reset,
    /// that the connection is no more, and sends it again.
    GatewayKilled,
}

impl Story {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Cold,
        Self::Warm,
        Self::Idle,
        Self::Resumed,
        Self::RestartClient,
        Self::RestartGateway,
        Self::RestartBoth,
    ];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Idle => "idle12h",
            Self::Resumed => "resumed",
            Self::RestartClient => "restart_client",
            Self::RestartGateway => "restart_gateway",
            Self::RestartBoth => "restart_both",
            Self::Stopped => "stopped",
            Self::GatewayKilled => "gateway_killed",
        }
    }

    /// Starts a pair and brings it to where the mail of this story is handed over.
    ///
    /// # Errors
    /// Whatever does not start, and when the mails before are not answered.
    pub async fn prepare(self, mut distance: Distance) -> Result<Pair> {
        if self == Self::Resumed {
            // Both ends forget the connection after a silence that is not theirs; nobody can tell the other.
            distance.extra += &format!("quic.idle_timeout = \"{}ms\"\n", distance.owlt.as_millis() * 6);
        }
        let mut pair = Pair::start(distance).await?;
        if self == Self::Cold {
            return Ok(pair);
        }
        pair.send(&mail(SIZE, 0)).await?;
        pair.settle().await;
        self.restart(&mut pair).await?;
        pair.settle().await;
        match self {
            Self::Idle => pair.clock.sleep(HALF_DAY).await,
            Self::Resumed => pair.cut(pair.distance.owlt * 24).await,
            _ => {}
        }
        Ok(pair)
    }

    async fn restart(self, pair: &mut Pair) -> Result<()> {
        let server = self != Self::RestartClient;
        let client = match self {
            Self::RestartClient | Self::RestartBoth => {
                pair.kill_client().await;
                true
            }
            Self::Stopped => {
                pair.stop_client().await;
                true
            }
            Self::RestartGateway | Self::GatewayKilled => false,
            Self::Cold | Self::Warm | Self::Idle | Self::Resumed => return Ok(()),
        };
        if server {
            match self {
                Self::Stopped | Self::RestartGateway => pair.stop_server().await,
                _ => pair.kill_server().await,
            }
            pair.start_server().await?;
        }
        if client {
            pair.start_client().await?;
        }
        Ok(())
    }

    /// Tells it once, in virtual time.
    ///
    /// # Errors
    /// As [`Story::prepare`], and when its mail is not answered.
    pub fn tell(self, distance: Distance) -> Result<(Distance, Journey)> {
        in_virtual_time(async move {
            let mut pair = self.prepare(distance).await?;
            let journey = pair.send(&mail(SIZE, 1)).await?;
            Ok((pair.distance.clone(), journey))
        })
    }
}

/// quinn's defaults over the same space; nothing where it gives up.
///
/// # Errors
/// When the pair whose space it uses does not start.
pub fn quinn_default(distance: Distance) -> Result<Row> {
    in_virtual_time(async move {
        let pair = Pair::start(distance).await?;
        let times = plain::send(&pair, &mail(SIZE, 1)).await;
        Ok(Row::other("quinn_default", &pair.distance, times.ok()))
    })
}

/// Every row that takes virtual time only.
///
/// # Errors
/// When a program does not start or a mail is not answered.
pub fn rows(mut told: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |row: Row| {
        told(&row);
        rows.push(row);
    };
    for owlt in [MOON, MARS, FAR] {
        for story in Story::ALL {
            let (distance, journey) = story.tell(Distance::new(owlt))?;
            add(Row::new(story.name(), &distance, &journey));
        }
        add(quinn_default(Distance::new(owlt))?);
    }
    for story in [Story::Cold, Story::Warm] {
        let (distance, journey) = story.tell(Distance::new(REAL))?;
        add(Row::new(story.name(), &distance, &journey));
    }
    Ok(rows)
}
