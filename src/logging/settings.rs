//! Where lines go and how they look.

use super::Level;
use std::path::PathBuf;

/// What the logger is built from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// Lines below this level are not written.
    pub level: Level,
    /// How a line is written.
    pub format: Format,
    /// Where each line goes: to all of them. Empty means nowhere.
    pub outputs: Vec<Output>,
}

impl LogConfig {
    /// JSON lines of `info` and above to standard error: what speaks before the
    /// configuration is known.
    pub fn early() -> Self {
        Self { level: Level::Info, format: Format::Json, outputs: vec![Output::Stderr] }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// Tab-separated columns, the fields as JSON in the last one.
    Console,
}

/// A place lines go to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, created when missing and appended to.
    File(PathBuf),
}
