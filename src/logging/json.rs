//! A field that stays structured on its way through `tracing`.

use serde::Serialize;
use serde_json::Value;
use std::error::Error;
use std::fmt;

/// A JSON value as a field of an event. `tracing` carries numbers, booleans and text;
/// what has more structure travels as an error value, which the logger recognises.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(pub(super) Value);

impl Json {
    /// The value's JSON; its `serde` error as text when it has none.
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::to_value(value).unwrap_or_else(|e| Value::String(e.to_string())))
    }

    /// The form `tracing`'s macros take: `"urls" = Json::of(&urls).field()`.
    pub fn field(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Json {}
