//! The configuration file, YAML or JSON, in etcd's forms: durations as integer
//! nanoseconds, TLS settings as objects, lists of URLs as one text.
//!
//! Receives: the file's text. Sends: the values it sets, or an error with the key and
//! the line. Never: opens a file.

use super::go::GoDuration;
use super::settings::{Settings, Source};
use super::table::{self, FileKey, Flag};
use super::url::Url;
use super::value::{Kind, Value};
use crate::logging::Notice;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use std::fmt;

/// Reads a file's text into `settings`.
pub(crate) fn apply(
    text: &str,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), String> {
    let Some(document) = serde_yaml_ng::Deserializer::from_str(text).next() else {
        return Ok(());
    };
    let reader = Object { name: "", settings, notices };
    reader.deserialize(document).map_err(|e| e.to_string())
}

/// What a key stands for.
enum Meaning {
    Setting(&'static Flag),
    Object(&'static str),
    Unknown,
}

/// Keys are matched in any case, as Go's JSON does.
fn meaning(object: &str, key: &str) -> Meaning {
    let is_key = |flag: &&Flag| match flag.file {
        FileKey::SameName => object.is_empty() && flag.name.eq_ignore_ascii_case(key),
        FileKey::Inside(outer, inner) | FileKey::OnlyInside(outer, inner) => {
            outer == object && inner.eq_ignore_ascii_case(key)
        }
        FileKey::None => false,
    };
    if let Some(flag) = table::all().find(is_key) {
        return Meaning::Setting(flag);
    }
    let inside = |(outer, name, _): &&(&str, &str, &'static str)| {
        *outer == object && name.eq_ignore_ascii_case(key)
    };
    OBJECTS.iter().find(inside).map_or(Meaning::Unknown, |(_, _, path)| Meaning::Object(path))
}

/// Objects: what they are in, their key, and what they are called in the table.
const OBJECTS: [(&str, &str, &str); 7] = [
    ("", "client-transport-security", "client-transport-security"),
    ("", "peer-transport-security", "peer-transport-security"),
    ("", "socket-options", "socket-options"),
    ("", "discovery-config", "discovery-config"),
    ("discovery-config", "client", "discovery-config.client"),
    ("discovery-config.client", "secure", "discovery-config.client.secure"),
    ("discovery-config.client", "auth", "discovery-config.client.auth"),
];

/// Reads the file itself (`name` is empty) or an object in it.
struct Object<'a> {
    name: &'static str,
    settings: &'a mut Settings,
    notices: &'a mut Vec<Notice>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "" => f.write_str("settings, one to a key"),
            name => write!(f, "an object for {name}"),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match meaning(self.name, &key) {
                Meaning::Setting(flag) => {
                    let value = map.next_value_seed(Scalar(flag))?;
                    self.settings.set(flag, value, Source::File);
                }
                Meaning::Object(name) => map.next_value_seed(Object {
                    name,
                    settings: self.settings,
                    notices: self.notices,
                })?,
                Meaning::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    let place =
                        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) };
                    let notice = Notice::warn("unknown key in the configuration file, ignored");
                    self.notices.push(notice.with("key", place));
                }
            }
        }
        Ok(())
    }
}

/// Reads one setting's value; `None` leaves its default.
struct Scalar(&'static Flag);

impl Scalar {
    fn expected(&self) -> &'static str {
        match self.0.kind {
            Kind::Bool => "true or false",
            Kind::Uint | Kind::Uint32 => "a non-negative integer",
            Kind::Int => "an integer",
            Kind::Duration => "a duration in integer nanoseconds",
            Kind::List | Kind::UniqueList => "a list of strings",
            Kind::Urls | Kind::Origins => "a string of comma-separated URLs",
            Kind::Hosts => "a string of comma-separated host names",
            Kind::Text | Kind::OneOf(_) | Kind::SomeOf(_) | Kind::Gates | Kind::Ignored => {
                "a string"
            }
        }
    }

    /// Reads what is a string in the file.
    fn read_text(&self, text: &str) -> Result<Option<Value>, String> {
        match self.0.kind {
            Kind::Text | Kind::Ignored | Kind::SomeOf(_) => Ok(Some(Value::Text(text.to_owned()))),
            _ if text.is_empty() => Ok(None),
            Kind::OneOf(valid)
                if !valid.contains(&text) && self.0.name == "initial-cluster-state" =>
            {
                Err(format!("unexpected clusterState {}", super::go::quote(text)))
            }
            Kind::Urls => {
                let urls = Url::parse_list(text).map_err(|e| self.setting_up(&e))?;
                Ok(Some(Value::Urls(urls)))
            }
            Kind::Origins => self.0.kind.parse(text).map_err(|e| self.setting_up(&e)),
            kind => kind.parse(text),
        }
    }

    fn setting_up(&self, error: &str) -> String {
        format!("unexpected error setting up {}: {error}", self.0.name)
    }
}

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.expected(), self.0.name)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
        match self.0.kind {
            Kind::Bool => Ok(Some(Value::Bool(on))),
            _ => Err(E::invalid_type(Unexpected::Bool(on), &self)),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let wrong = E::invalid_value(Unexpected::Unsigned(number), &self);
        match (self.0.kind, i64::try_from(number)) {
            (Kind::Uint, _) => Ok(Some(Value::Uint(number))),
            (Kind::Uint32, _) if u32::try_from(number).is_ok() => Ok(Some(Value::Uint(number))),
            (Kind::Int, Ok(signed)) => Ok(Some(Value::Int(signed))),
            (Kind::Duration, Ok(nanos)) => Ok(Some(Value::Duration(GoDuration(nanos)))),
            (Kind::Uint32 | Kind::Int | Kind::Duration, _) => Err(wrong),
            _ => Err(E::invalid_type(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        match self.0.kind {
            Kind::Int => Ok(Some(Value::Int(number))),
            Kind::Duration => Ok(Some(Value::Duration(GoDuration(number)))),
            Kind::Uint | Kind::Uint32 if number < 0 => {
                Err(E::invalid_value(Unexpected::Signed(number), &self))
            }
            Kind::Uint | Kind::Uint32 => self.visit_u64(number.unsigned_abs()),
            _ => Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        // `1e3` and `100.0` are whole; above 2^53 a float no longer tells which number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if number.fract() == 0.0 && number.abs() <= EXACT {
            return self.visit_i64(number as i64);
        }
        Err(E::invalid_type(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match self.0.kind {
            // YAML 1.1's other booleans, which etcd's parser knows.
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => Ok(Some(Value::Bool(true))),
                "no" | "off" | "n" => Ok(Some(Value::Bool(false))),
                _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
            },
            Kind::Uint
            | Kind::Uint32
            | Kind::Int
            | Kind::Duration
            | Kind::List
            | Kind::UniqueList => Err(E::invalid_type(Unexpected::Str(text), &self)),
            _ => self.read_text(text).map_err(E::custom),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        if !matches!(self.0.kind, Kind::List | Kind::UniqueList) {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<String>()? {
            items.push(item);
        }
        Ok(if items.is_empty() { None } else { Some(Value::List(items)) })
    }
}
