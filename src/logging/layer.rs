//! From `tracing`'s events to lines.

use super::encode::Record;
use super::json::Json;
use super::logger::Logger;
use super::{FATAL, Level, PANIC};
use serde_json::Value;
use std::error::Error;
use std::fmt;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Hands events to the logger.
pub(super) struct LogLayer(pub(super) Logger);

/// The level of a line about this event.
fn level_of(metadata: &Metadata<'_>) -> Level {
    match metadata.target() {
        FATAL => Level::Fatal,
        PANIC => Level::Panic,
        _ => Level::from(metadata.level()),
    }
}

/// Whether it comes from one of this program's crates.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.module_path().unwrap_or_else(|| metadata.target()).starts_with("castd")
}

impl LogLayer {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.is_event() || *metadata.level() == tracing::Level::TRACE {
            return false;
        }
        let lowest = self.0.level();
        let lowest = match (is_ours(metadata), lowest) {
            (true, lowest) => lowest,
            (false, Level::Debug) => Level::Info,
            (false, lowest) => lowest.max(Level::Warn),
        };
        level_of(metadata) >= lowest
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.level() {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Dpanic | Level::Panic | Level::Fatal => LevelFilter::ERROR,
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let metadata = event.metadata();
        self.0.record(&Record {
            level: level_of(metadata),
            time: SystemTime::now(),
            logger: parts.logger.as_deref(),
            file: metadata.file().unwrap_or_else(|| metadata.target()),
            line: metadata.line().unwrap_or(0),
            message: &parts.message,
            fields: &parts.fields,
        });
    }
}

/// An event's fields, taken apart.
#[derive(Default)]
struct Parts {
    message: String,
    logger: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

impl Parts {
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("logger", Value::String(text)) => self.logger = Some(text),
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity and no NaN: they are text, as in etcd's lines.
        let number = serde_json::Number::from_f64(value);
        let value = number.map_or_else(|| Value::String(value.to_string()), Value::Number);
        self.push(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let value = match value.downcast_ref::<Json>() {
            Some(json) => json.0.clone(),
            None => Value::String(value.to_string()),
        };
        self.push(field, value);
    }
}
