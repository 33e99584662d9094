//! `lightpost profile`: the QUIC settings of each path, and why they are what they are.

use lightpost_config::duration_text;
use lightpost_transport::{
    Path,
    quic::profile::{Setting, derive},
};
use serde_json::{Value, json};

use crate::{
    args::Profile,
    check::{self, Loaded, Unusable},
    failure::{Failure, code},
    output::{Output, Tone},
};

/// Runs the command.
pub(crate) fn run(options: &Profile, output: Output) -> Result<(), Failure> {
    let loaded = check::load(&options.config, options.program).map_err(|error| match error {
        Unusable::Problems(problems) => check::failure(&problems),
        Unusable::Unknown(failure) => failure,
    })?;
    let all: Vec<Path> = match loaded {
        Loaded::Client(config) => config.paths.into_values().map(|settings| settings.path).collect(),
        Loaded::Server(config) => config.paths,
    };
    let chosen: Vec<&Path> = all
        .iter()
        .filter(|path| options.path.as_ref().is_none_or(|name| *name == path.name))
        .collect();
    if let (Some(name), true) = (&options.path, chosen.is_empty()) {
        let known: Vec<&str> = all.iter().map(|path| path.name.as_str()).collect();
        let what = format!(
            "{}: there is no path {}",
            options.config.display(),
            name.escape_debug()
        );
        return Err(Failure::new(
            code::USAGE,
            what,
            format!("use one of: {}", known.join(", ")),
        ));
    }
    if output.json {
        return output.value(&chosen.iter().map(|path| document(path)).collect::<Vec<_>>());
    }
    for (index, path) in chosen.iter().enumerate() {
        if index > 0 {
            output.line("")?;
        }
        show(path, output)?;
    }
    Ok(())
}

fn document(path: &Path) -> Value {
    let profile = derive(path);
    let setting =
        |setting: &Setting| json!({"name": setting.name, "value": setting.value, "why": setting.why});
    json!({
        "path": path.name,
        "one_way_min": duration_text(path.one_way_min),
        "one_way_max": duration_text(path.one_way_max),
        "outage_max": duration_text(path.outage_max),
        "passes": path.passes.map(|passes| json!({
            "every": duration_text(passes.every),
            "length": duration_text(passes.length),
        })),
        "rate_up": path.rate_up.0,
        "rate_down": path.rate_down.0,
        "loss": path.loss,
        "mtu": path.mtu,
        "storage": path.storage,
        "settings": profile.settings().iter().map(setting).collect::<Vec<_>>(),
    })
}

fn show(path: &Path, output: Output) -> Result<(), Failure> {
    let storage = path
        .storage
        .map_or_else(String::new, |octets| format!(", {octets} octets of storage"));
    let mtu = path.mtu.map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
    let passes = path.passes.map_or_else(String::new, |passes| {
        let (length, every) = (duration_text(passes.length), duration_text(passes.every));
        format!(", open for {length} every {every}")
    });
    output.line(&format!(
        "path {}: {} to {} one way{passes}, outages up to {}, {} up, {} down, {}% loss{mtu}{storage}",
        output.paint(Tone::Strong, &path.name),
        duration_text(path.one_way_min),
        duration_text(path.one_way_max),
        duration_text(path.outage_max),
        rate(path.rate_up.0),
        rate(path.rate_down.0),
        path.loss * 100.0,
    ))?;
    let mut table = output.table(&["setting", "value", "why"]);
    for setting in derive(path).settings() {
        table.add_row([
            setting.name.to_owned(),
            setting.value.clone(),
            setting.why.clone(),
        ]);
    }
    output.print_table(&table)
}

/// A rate as configuration files write it.
pub(crate) fn rate(bits: f64) -> String {
    let scales = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    let (scale, unit) = scales
        .into_iter()
        .find(|(scale, _)| bits >= *scale)
        .unwrap_or((1.0, "bit/s"));
    format!("{}{unit}", bits / scale)
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_are_written_as_they_are_read() {
        for (bits, text) in [
            (2e6, "2Mbit/s"),
            (64e3, "64kbit/s"),
            (1e9, "1Gbit/s"),
            (50.0, "50bit/s"),
            (1.5e6, "1.5Mbit/s"),
        ] {
            assert_eq!(super::rate(bits), text);
            assert_eq!(lightpost_config::Rate::parse(text).map(|rate| rate.0), Some(bits));
        }
    }
}
