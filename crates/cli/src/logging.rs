//! Logs: to stdout for services, as text or JSON lines.

/// Starts logging at a level (`debug`, `info`, `warn`, `error`).
pub(crate) fn start(level: &str, json: bool) {
    let filter =
        tracing_subscriber::EnvFilter::new(format!("{level},hyper=warn,rustls=warn,tungstenite=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // A second start, as in `up`, keeps the first.
    let _ = if json {
        builder.json().try_init()
    } else {
        use std::io::IsTerminal;
        builder.with_ansi(std::io::stdout().is_terminal()).try_init()
    };
}
