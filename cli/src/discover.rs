//! `lightpost discover`: the next hops of a domain.

use lightpost_client::{
    Config,
    discover::{Discovery, DiscoveryError, NextHops, Source},
};
use lightpost_clock::Clock;
use serde_json::json;

use crate::{
    args::Discover,
    check,
    failure::{Failure, code},
    output::{Output, Tone},
    small_runtime,
};

/// Runs the command.
pub(crate) fn run(options: &Discover, output: Output) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(|problems| check::failure(&problems))?;
    let domain = domain(&options.domain)?;
    let found = small_runtime()?.block_on(async {
        let discovery = Discovery::new(&config, Clock::system())
            .map_err(|error| Failure::new(code::CONFIG, error.to_string(), ""))?;
        discovery
            .next_hops(&domain)
            .await
            .map_err(|error| failure(&error))
    })?;
    show(&domain, &found, output)
}

/// The domain as routes and records have it: lower case, A-labels. An address does as well.
fn domain(text: &str) -> Result<String, Failure> {
    let name = text.rsplit('@').next().unwrap_or_default().trim_end_matches('.');
    let address = lightpost_mail::Address::parse(&format!("postmaster@{name}"));
    address.map(|address| address.destination()).map_err(|error| {
        let what = format!("{} is not a domain: {error}", text.escape_debug());
        Failure::new(code::USAGE, what, "write it as moon.example")
    })
}

fn failure(error: &DiscoveryError) -> Failure {
    let (code, remedy) = match error {
        DiscoveryError::NoRoute(_) => (code::CONFIG, "add a [[route]] for it"),
        DiscoveryError::NoRecord { .. } => (
            code::DATAERR,
            "mail for it is returned; add the record or name `gateways` in its [[route]]",
        ),
        DiscoveryError::Unusable { .. } => (code::DATAERR, "mail for it is returned; mend the records"),
        DiscoveryError::Silent { .. } => (
            code::TEMPFAIL,
            "mail for this domain waits until the resolver answers; start it, or name another with `servers` in [resolver]",
        ),
        _ => (code::UNAVAILABLE, ""),
    };
    Failure::new(code, error.to_string(), remedy)
}

fn show(domain: &str, found: &NextHops, output: Output) -> Result<(), Failure> {
    if output.json {
        let hops: Vec<_> = found
            .hops
            .iter()
            .map(|hop| json!({"url": hop.url.as_str(), "priority": hop.priority, "weight": hop.weight}))
            .collect();
        return output
            .value(&json!({"domain": domain, "source": found.source, "path": found.path, "hops": hops}));
    }
    let source = match found.source {
        Source::Static => output.paint(Tone::Good, "static: the route names the gateways"),
        Source::Dns => output.paint(Tone::Good, "dns: URI records"),
        Source::Stale => output.paint(
            Tone::Waiting,
            "stale: the resolver is silent, these are the last known records",
        ),
    };
    output.line(&format!(
        "{domain} by path {}, {source}",
        output.paint(Tone::Strong, &found.path)
    ))?;
    let mut table = output.table(&["order", "priority", "weight", "gateway"]);
    for (order, hop) in (1..).zip(&found.hops) {
        table.add_row([
            i32::to_string(&order),
            hop.priority.to_string(),
            hop.weight.to_string(),
            hop.url.to_string(),
        ]);
    }
    output.print_table(&table)
}

#[cfg(test)]
mod tests {
    use super::domain;

    #[test]
    fn domains_are_made_comparable() {
        for (text, expected) in [
            ("Moon.Example", Some("moon.example")),
            ("moon.example.", Some("moon.example")),
            ("a@moon.example", Some("moon.example")),
            ("b\u{fc}cher.example", Some("xn--bcher-kva.example")),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(domain(text).ok().as_deref(), expected, "{text}");
        }
    }
}
