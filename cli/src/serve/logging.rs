//! Log lines on standard error.

use tracing_subscriber::EnvFilter;

use crate::{
    args::LogFormat,
    failure::{Failure, code},
};

/// Starts logging.
///
/// # Errors
/// When the filter cannot be parsed.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(
            code::USAGE,
            format!("--log-level {filter}: {error}"),
            "write error, warn, info, debug or trace, also per module: \"info,lightpost_client=debug\"",
        )
    })?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| {
        Failure::new(
            code::SOFTWARE,
            format!("logging does not start: {error}"),
            "report this",
        )
    })
}
