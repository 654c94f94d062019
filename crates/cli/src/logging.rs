//! Logs: to stdout for services, as text or JSON lines, or to the system's journal.

use legwork_dialout::config::LogFormat;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at a level (`debug`, `info`, `warn`, `error`).
pub(crate) fn start(level: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "{level},hyper=warn,hyper_util=warn,rustls=warn,tungstenite=warn,reqwest=warn,rmcp=warn,html5ever=error"
    ));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // A second start, as in `up`, keeps the first.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => text(builder),
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(journal) => {
                let filter = tracing_subscriber::EnvFilter::new(level);
                let registry = tracing_subscriber::registry().with(filter);
                let identifier = journal.with_syslog_identifier("legwork".into());
                registry.with(identifier).try_init().map_err(Into::into)
            }
            Err(error) => {
                eprintln!("Warning: the journal can't be reached ({error}): logging to stdout");
                text(builder)
            }
        },
    };
}

/// Logging of a command for people: warnings only, beside its output.
pub(crate) fn start_quietly() {
    let level = std::env::var("LEGWORK_LOG_LEVEL").unwrap_or_else(|_| "warn".into());
    let filter = tracing_subscriber::EnvFilter::new(level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).without_time();
    let to_person = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = builder.with_ansi(to_person).with_writer(std::io::stderr).try_init();
}

type Builder = tracing_subscriber::fmt::SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    tracing_subscriber::EnvFilter,
>;

fn text(builder: Builder) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use std::io::IsTerminal;
    builder.with_ansi(std::io::stdout().is_terminal()).try_init()
}
