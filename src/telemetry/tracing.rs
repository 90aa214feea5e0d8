//! The program's own messages: JSON lines on the standard output, or lines for people on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::output::{Messages, Stdout};

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

/// Sends the program's messages to the standard output from now on. No thread that sends one waits for whoever reads it.
/// What it returns is for flushing them at the end.
///
/// # Errors
///
/// If messages are being sent somewhere already, or there is no thread to write them.
pub fn init(format: LogFormat, level: LogLevel) -> anyhow::Result<Messages> {
    let messages = Messages::start(Stdout::get()?)?;
    let writer = messages.clone();
    subscriber(format.resolve(), level, move || writer.clone()).try_init()?;
    Ok(messages)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::telemetry::shard::lock;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: LogLevel) -> String {
        let output = Output::default();
        let writer = output.clone();
        tracing::subscriber::with_default(subscriber(format, level, move || writer.clone()), || {
            tracing::info!(policy_file = "a.yaml", "policy loaded \u{1b}[2J");
            tracing::debug!("a step");
            tracing::debug!(target: "hyper::proto", "authorization: Bearer secret");
        });
        let bytes = lock(&output.0).clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_message_is_one_json_object_with_its_fields() {
        let text = written(LogFormat::Json, LogLevel::Info);
        assert_eq!(text.lines().count(), 1, "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["message"], "policy loaded \u{1b}[2J");
        assert_eq!(parsed["policy_file"], "a.yaml");
        assert_eq!(parsed["level"], "INFO");
        assert!(parsed["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_level_is_doorwards_own_and_libraries_stay_quiet() {
        let text = written(LogFormat::Json, LogLevel::Trace);
        assert!(text.contains("a step") && !text.contains("secret"), "{text}");
        assert_eq!(written(LogFormat::Json, LogLevel::Warn), "");
    }

    #[test]
    fn pretty_lines_are_for_people() {
        let text = written(LogFormat::Pretty, LogLevel::Info);
        assert!(text.contains("INFO policy loaded") && text.contains("policy_file=\"a.yaml\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
