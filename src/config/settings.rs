//! The value of every setting, and who set it.
//!
//! Owns: defaults, what overrides them, older names. Never: whether the values agree.

use super::go::GoDuration;
use super::table::{self, FileKey, Flag, Support};
use super::url::Url;
use super::value::Value;
use crate::logging::Notice;
use std::collections::BTreeMap;

/// Who set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody.
    Default,
    /// A flag.
    CommandLine,
    /// A variable.
    Environment,
    /// The configuration file.
    File,
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) flag: &'static Flag,
    pub(crate) value: Value,
    pub(crate) source: Source,
}

impl Setting {
    /// Whether it differs from its default.
    pub(crate) fn changed(&self) -> bool {
        self.value != self.flag.kind.default_value(self.flag.default)
    }

    /// The name it was set by, as its user wrote it.
    pub(crate) fn spelled(&self) -> String {
        match (self.source, self.flag.file) {
            (Source::Environment, _) => self.flag.variable(),
            (Source::File, FileKey::Inside(object, key) | FileKey::OnlyInside(object, key))
                if !object.is_empty() =>
            {
                format!("{object}.{key}")
            }
            (Source::File, FileKey::OnlyInside(_, key)) => key.to_owned(),
            (Source::File, _) => self.flag.name.to_owned(),
            _ => format!("--{}", self.flag.name),
        }
    }
}

/// Every setting of the table with its value.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    entries: BTreeMap<&'static str, Setting>,
}

impl Settings {
    pub(crate) fn defaults() -> Self {
        let entry = |flag: &'static Flag| {
            let value = flag.kind.default_value(flag.default);
            (flag.name, Setting { flag, value, source: Source::Default })
        };
        Self { entries: table::all().map(entry).collect() }
    }

    /// Sets a value; `None` only notes who spoke of the setting.
    pub(crate) fn set(&mut self, flag: &'static Flag, value: Option<Value>, source: Source) {
        let Some(setting) = self.entries.get_mut(flag.name) else { return };
        setting.source = source;
        if let Some(value) = value {
            setting.value = value;
        }
    }

    pub(crate) fn get(&self, name: &str) -> &Setting {
        self.entries.get(name).expect("only names of the table are asked for: a test loads them")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.entries.values()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).source != Source::Default
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        matches!(self.get(name).value, Value::Bool(true))
    }

    pub(crate) fn uint(&self, name: &str) -> u64 {
        match self.get(name).value {
            Value::Uint(value) => value,
            _ => 0,
        }
    }

    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.get(name).value {
            Value::Int(value) => value,
            _ => 0,
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match &self.get(name).value {
            Value::Text(value) => value,
            _ => "",
        }
    }

    pub(crate) fn duration(&self, name: &str) -> GoDuration {
        match self.get(name).value {
            Value::Duration(value) => value,
            _ => GoDuration(0),
        }
    }

    pub(crate) fn urls(&self, name: &str) -> &[Url] {
        match &self.get(name).value {
            Value::Urls(value) => value,
            _ => &[],
        }
    }

    pub(crate) fn list(&self, name: &str) -> &[String] {
        match &self.get(name).value {
            Value::List(value) => value,
            _ => &[],
        }
    }

    /// Overwrites a value without a change of who set it.
    pub(crate) fn replace(&mut self, name: &str, value: Value) {
        if let Some(setting) = self.entries.get_mut(name) {
            setting.value = value;
        }
    }

    /// Hands what was set by an older name to the name of today.
    pub(crate) fn resolve_older_names(&mut self) -> Result<Vec<Notice>, String> {
        let mut notices = Vec::new();
        let older: Vec<Setting> = self
            .iter()
            .filter(|setting| setting.source != Source::Default)
            .filter(|setting| matches!(setting.flag.support, Support::AliasOf(_)))
            .cloned()
            .collect();
        for setting in older {
            let Support::AliasOf(today) = setting.flag.support else { continue };
            if self.is_set(today) {
                return Err(format!(
                    "both --{} and --{today} flags are set. Use only --{today}",
                    setting.flag.name
                ));
            }
            notices.push(Notice::warn(format!(
                "--{} is an older name, use --{today} instead",
                setting.flag.name
            )));
            if let Some(target) = self.entries.get_mut(today) {
                target.value = setting.value;
                target.source = setting.source;
            }
        }
        if self.bool("debug") && !self.is_set("log-level") {
            notices.push(Notice::warn("--debug is an older name, use --log-level=debug instead"));
            self.replace("log-level", Value::Text("debug".to_owned()));
        }
        Ok(notices)
    }
}
