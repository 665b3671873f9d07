//! The outputs, and whoever may write to them.

use super::encode::Record;
use super::layer::LogLayer;
use super::sampler::Sampler;
use super::{Format, Level, LogConfig, Notice, Output};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;
use tracing_subscriber::layer::SubscriberExt;

/// Why there is no logger.
#[derive(Debug, Error)]
pub enum LogError {
    /// A file of `--log-outputs` cannot be opened.
    #[error("couldn't open sink {path:?}: open {}: {}", path.display(), plain_io_error(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process has a subscriber already.
    #[error("the process has a logger already")]
    Taken,
}

/// Writes lines to the configured outputs. Clones share them.
#[derive(Clone)]
pub struct Logger(Arc<Shared>);

struct Shared {
    level: Level,
    format: Format,
    sampler: Sampler,
    /// The lock keeps lines whole. Nothing else is ever done under it.
    sinks: Mutex<Vec<Sink>>,
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
}

impl Sink {
    fn open(output: &Output) -> Result<Self, LogError> {
        match output {
            Output::Stderr => Ok(Self::Stderr),
            Output::Stdout => Ok(Self::Stdout),
            Output::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map(Self::File)
                .map_err(|source| LogError::Open { path: path.clone(), source }),
        }
    }

    fn write(&mut self, line: &[u8]) {
        let written = match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line).and_then(|()| stdout.flush())
            }
            Self::File(file) => file.write_all(line),
        };
        // A line that cannot be written has nowhere to be told of.
        drop(written);
    }
}

impl Logger {
    /// Opens the outputs, without becoming the process's logger.
    pub fn open(config: &LogConfig) -> Result<Self, LogError> {
        let sinks = config.outputs.iter().map(Sink::open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Shared {
            level: config.level,
            format: config.format,
            sampler: Sampler::new(),
            sinks: Mutex::new(sinks),
        })))
    }

    /// The lowest level that is written.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Writes a line that was made outside `tracing`.
    pub fn write(&self, notice: &Notice) {
        self.record(&Record {
            level: notice.level,
            time: SystemTime::now(),
            logger: None,
            file: notice.caller.file(),
            line: notice.caller.line(),
            message: &notice.message,
            fields: &notice.fields,
        });
    }

    pub(super) fn record(&self, record: &Record<'_>) {
        let shared = &*self.0;
        let now = record.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        if record.level < shared.level || !shared.sampler.admits(record.level, record.message, now)
        {
            return;
        }
        let line = match shared.format {
            Format::Json => record.json(),
            Format::Console => record.console(),
        };
        for sink in shared.sinks.lock().iter_mut() {
            sink.write(&line);
        }
    }
}

/// Opens the outputs and makes them the process's logger, once and for all its threads.
pub fn init(config: &LogConfig) -> Result<Logger, LogError> {
    let logger = Logger::open(config)?;
    let subscriber = tracing_subscriber::registry().with(LogLayer(logger.clone()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Taken)?;
    Ok(logger)
}

/// What the system said, in Go's spelling: a small letter first, and no number after.
pub(crate) fn plain_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
