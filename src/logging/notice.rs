//! A line made outside `tracing`: what configuration has to say before there is a
//! logger.

use super::Level;
use serde_json::Value;
use std::panic::Location;

/// A line to write once the logger is up.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// How grave it is.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// Its fields, in the order they are written.
    pub fields: Vec<(&'static str, Value)>,
    /// Where in the source it was made.
    pub caller: &'static Location<'static>,
}

impl Notice {
    /// A line without fields.
    #[track_caller]
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), fields: Vec::new(), caller: Location::caller() }
    }

    /// An `info` line.
    #[track_caller]
    pub fn info(message: impl Into<String>) -> Self {
        Self::new(Level::Info, message)
    }

    /// A `warn` line.
    #[track_caller]
    pub fn warn(message: impl Into<String>) -> Self {
        Self::new(Level::Warn, message)
    }

    /// The same line with one more field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}
