//! The program's own messages: JSON lines on the standard output, or lines for people on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// How lines look: the setting `[log] format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl LogFormat {
    /// What `auto` means for this process's standard output; the others mean themselves.
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if std::io::stdout().is_terminal() => Self::Pretty,
            Self::Auto => Self::Json,
            chosen => chosen,
        }
    }
}

/// The setting `[log] level`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may fail next.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// What was done.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// The level applies to doorward alone. Libraries stay at warnings, because at finer levels an HTTP library may
    /// log whole header sections, tokens among them.
    fn directives(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "warn,doorward=info",
            Self::Debug => "warn,doorward=debug",
            Self::Trace => "warn,doorward=trace",
        }
    }
}

/// Sends the program's messages to the standard output from now on.
///
/// # Errors
///
/// If messages are being sent somewhere already.
pub fn init(format: LogFormat, level: LogLevel) -> anyhow::Result<()> {
    subscriber(format.resolve(), level, std::io::stdout).try_init()?;
    Ok(())
}

fn subscriber<W>(format: LogFormat, level: LogLevel, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level.directives())).with_writer(writer);
    match format {
        LogFormat::Pretty => Box::new(builder.with_target(false).with_ansi(false).compact().finish()),
        LogFormat::Json | LogFormat::Auto => {
            Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    }
}
