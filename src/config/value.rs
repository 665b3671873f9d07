//! The kinds of value a setting has, and how its text is read.

use super::go::{self, GoDuration, ParseError};
use super::url::Url;

/// The kind of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// True or false; on the command line the value may be left out.
    Bool,
    /// An unsigned 64-bit integer.
    Uint,
    /// An unsigned 32-bit integer.
    Uint32,
    /// A signed 64-bit integer.
    Int,
    /// Any text.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, separated by commas.
    SomeOf(&'static [&'static str]),
    /// A duration: `5s` on the command line, integer nanoseconds in a file.
    Duration,
    /// URLs separated by commas; empty text leaves the default.
    Urls,
    /// `*`, or origins' URLs separated by commas.
    Origins,
    /// Texts separated by commas, in their order.
    List,
    /// Texts separated by commas, sorted and each once.
    UniqueList,
    /// As [`Kind::UniqueList`], but one text in a file too.
    Hosts,
    /// Feature gates, `Name=true,...`.
    Gates,
    /// What etcd takes with or without a value and never looks at.
    Ignored,
}

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Uint`] and [`Kind::Uint32`].
    Uint(u64),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Text`], [`Kind::OneOf`], [`Kind::Gates`] and [`Kind::Ignored`].
    Text(String),
    /// Of [`Kind::Duration`].
    Duration(GoDuration),
    /// Of [`Kind::Urls`].
    Urls(Vec<Url>),
    /// Of the kinds that are lists of text.
    List(Vec<String>),
}

impl Kind {
    /// Whether the command line may name it without a value.
    pub fn is_bool(self) -> bool {
        matches!(self, Self::Bool | Self::Ignored)
    }

    /// Reads a flag's or variable's text. `Ok(None)` leaves the setting as it is.
    /// Errors have the words of Go's flag package.
    pub fn parse(self, text: &str) -> Result<Option<Value>, String> {
        let words = |e: ParseError| e.to_string();
        let value = match self {
            Self::Bool => Value::Bool(go::parse_bool(text).map_err(words)?),
            Self::Uint => Value::Uint(go::parse_uint(text).map_err(words)?),
            Self::Uint32 => Value::Uint(parse_uint32(text)?),
            Self::Int => Value::Int(go::parse_int(text).map_err(words)?),
            Self::Text | Self::Ignored => Value::Text(text.to_owned()),
            Self::OneOf(valid) if valid.contains(&text) => Value::Text(text.to_owned()),
            Self::OneOf(_) => return Err("invalid value".to_owned()),
            Self::SomeOf(valid) => parse_some_of(valid, text)?,
            Self::Duration => {
                Value::Duration(go::parse_duration(text).map_err(|_| words(ParseError::Syntax))?)
            }
            Self::Urls if text.is_empty() => return Ok(None),
            Self::Urls => Value::Urls(unique(Url::parse_list(text)?)),
            Self::Origins if text == "*" => Value::List(vec![text.to_owned()]),
            Self::Origins => {
                let urls = unique(Url::parse_list(text)?);
                Value::List(urls.iter().map(Url::to_string).collect())
            }
            Self::List | Self::UniqueList if text.is_empty() => Value::List(Vec::new()),
            Self::List => Value::List(split(text)),
            Self::UniqueList | Self::Hosts => {
                let mut parts = split(text);
                parts.sort();
                Value::List(unique(parts))
            }
            Self::Gates => {
                super::gates::parse(text)?;
                Value::Text(text.to_owned())
            }
        };
        Ok(Some(value))
    }

    /// The value a default text of the table stands for; empty lists for empty texts.
    pub(crate) fn default_value(self, text: &str) -> Value {
        match self {
            Self::Urls if text.is_empty() => Value::Urls(Vec::new()),
            Self::SomeOf(_) if text.is_empty() => Value::List(Vec::new()),
            _ => self
                .parse(text)
                .ok()
                .flatten()
                .expect("the table's defaults are of their kinds: a test reads them all"),
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn unique<T: PartialEq>(mut sorted: Vec<T>) -> Vec<T> {
    sorted.dedup();
    sorted
}

fn parse_uint32(text: &str) -> Result<u64, String> {
    let value = go::parse_uint(text)
        .and_then(|v| if u32::try_from(v).is_ok() { Ok(v) } else { Err(ParseError::Range) });
    value.map_err(|e| {
        let reason = match e {
            ParseError::Syntax => "invalid syntax",
            ParseError::Range => "value out of range",
        };
        format!("strconv.ParseUint: parsing {}: {reason}", go::quote(text))
    })
}

fn parse_some_of(valid: &[&str], text: &str) -> Result<Value, String> {
    let mut parts = split(text);
    if let Some(bad) = parts.iter().find(|part| !valid.contains(&part.as_str())) {
        return Err(format!("invalid value {}", go::quote(bad)));
    }
    parts.sort();
    Ok(Value::List(parts))
}
