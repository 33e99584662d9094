//! ION's own benchmark: `bpdriver` and `bpcounter`.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use lightpost_clock::Clock;
use lightpost_tests::ion::Node;

use super::{Sizes, nodes::Nodes};
use crate::Result;

/// `bpdriver` waits so long behind the bundle that starts the counter's time, before the first that counts.
const PAUSE: f64 = 0.1;
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);
/// A counter needs a moment to open its endpoint; bundles wait for it meanwhile, but the time would begin late.
const OPENING: Duration = Duration::from_millis(500);

/// Bundles of the first size a second, with as many of the second the other way at the same time.
pub(crate) async fn rate(nodes: &Nodes, count: usize, sizes: Sizes) -> Result<f64> {
    let clock = Clock::system();
    let [earth, moon] = &nodes.pair;
    let mut ways = vec![(earth, moon, sizes.0)];
    ways.extend(sizes.1.map(|reply| (moon, earth, reply)));
    let count_text = count.to_string();
    let counters: Result<Vec<Tool>> = ways
        .iter()
        .map(|(_, to, _)| Tool::start(to, "bpcounter", &[&endpoint(to, 26), &count_text]))
        .collect();
    let mut counters = counters?;
    clock.sleep(OPENING).await;
    let drivers: Result<Vec<Tool>> = ways
        .iter()
        .map(|(from, to, octets)| {
            // A negative size means: do not wait for an echo of each.
            let size = format!("-{octets}");
            let ends = [endpoint(from, 25), endpoint(to, 26)];
            Tool::start(from, "bpdriver", &[&count_text, &ends[0], &ends[1], &size])
        })
        .collect();
    let mut drivers = drivers?;
    let started = clock.instant();
    while !counters.iter_mut().chain(&mut drivers).all(Tool::has_ended) {
        if started.elapsed() > LIMIT {
            return Err(format!("bpcounter does not see {count} bundles within {LIMIT:?}"));
        }
        clock.sleep(Duration::from_millis(20)).await;
    }
    let times: Result<Vec<f64>> = counters.iter().map(|counter| counter.seconds(count)).collect();
    let longest = times?.into_iter().fold(0.0, f64::max) - PAUSE;
    Ok(count as f64 / longest)
}

fn endpoint(node: &Node, service: u32) -> String {
    format!("ipn:{}.{service}", node.number)
}

/// A running tool of ION's, which prints to a file in its node's folder.
struct Tool {
    child: Child,
    output: std::path::PathBuf,
}

impl Tool {
    fn start(node: &Node, program: &str, arguments: &[&str]) -> Result<Self> {
        let output = node.inside(&format!("{}/{program}.bench", lightpost_tests::ion::FOLDER));
        let failed = |error: std::io::Error| format!("{program}: {error}");
        let file = std::fs::File::create(&output).map_err(failed)?;
        let mut command: Command = node.command(program);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, output })
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The time that a counter printed, from the first bundle to the last of `count`.
    fn seconds(&self, count: usize) -> Result<f64> {
        let text = std::fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        seconds(&text, count).ok_or_else(|| format!("bpcounter did not see {count} bundles: {text}"))
    }
}

fn seconds(text: &str, count: usize) -> Option<f64> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().strip_prefix(':'))
    };
    let received = value("Stopping bpcounter; bundles received")?
        .trim()
        .parse::<usize>();
    if received.ok()? != count {
        return None;
    }
    value("Time (seconds)")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_counters_time_is_read_when_it_saw_all() {
        let text = "Bundles received: 90\nStopping bpcounter; bundles received: 100\nTime (seconds): 1.100\nTotal bytes: 409600\n";
        assert_eq!(seconds(text, 100), Some(1.1));
        assert_eq!(seconds(text, 101), None);
        assert_eq!(seconds("Bundles received: 100\n", 100), None);
    }
}
