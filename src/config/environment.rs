//! The `ETCD_` variables.
//!
//! Receives: the environment as pairs. Sends: the values it sets, and notices about what
//! it saw. Never: reads the process's environment by itself.

use super::go::quote;
use super::settings::{Settings, Source};
use super::table;
use crate::logging::{Level, Notice};
use std::collections::BTreeSet;

/// The variables the program was started with, in their order.
pub(crate) type Variables = Vec<(String, String)>;

/// What is wrong with the environment.
pub(crate) enum Fault {
    /// A value that cannot be read; the text says which.
    BadValue(String),
    /// A setting is set by its flag too; the line says which.
    Conflict(Notice),
}

/// The value of a variable, when it is set and not empty.
pub(crate) fn get<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(key, _)| key == name)?;
    Some(found.1.as_str()).filter(|value| !value.is_empty())
}

/// Reads the variables into `settings`, those set by flags excepted.
pub(crate) fn apply(
    variables: &Variables,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    let mut variables = variables.clone();
    if let Some(value) = get(&variables, "ETCD_VERSION") {
        let notice = Notice::warn("cannot set special environment variable");
        notices.push(notice.with("key", "ETCD_VERSION").with("value", value));
        variables.retain(|(key, _)| key != "ETCD_VERSION");
    }
    let mut used = BTreeSet::new();
    let mut shadowed = BTreeSet::new();
    let mut bad_value = None;
    let names: BTreeSet<&str> =
        table::all().filter(|flag| flag.on_command_line()).map(|flag| flag.name).collect();
    for flag in names.into_iter().filter_map(table::find) {
        let key = flag.variable();
        if settings.is_set(flag.name) {
            shadowed.insert(key);
            continue;
        }
        let Some(value) = get(&variables, &key) else { continue };
        match flag.kind.parse(value) {
            Ok(parsed) => {
                settings.set(flag, parsed, Source::Environment);
                let notice = Notice::info("recognized and used environment variable");
                let shown = if flag.name.contains("password") { "***" } else { value };
                notices
                    .push(notice.with("variable-name", key.as_str()).with("variable-value", shown));
            }
            // As in etcd, the last fault is the one told.
            Err(e) => bad_value = Some(format!("invalid value {} for {key}: {e}", quote(value))),
        }
        used.insert(key);
    }
    look_for_strangers(&variables, &used, &shadowed, notices)?;
    bad_value.map_or(Ok(()), |text| Err(Fault::BadValue(text)))
}

/// Warns of `ETCD_` variables no flag has; refuses those a flag has set already.
fn look_for_strangers(
    variables: &Variables,
    used: &BTreeSet<String>,
    shadowed: &BTreeSet<String>,
    notices: &mut Vec<Notice>,
) -> Result<(), Fault> {
    for (key, value) in variables.iter().filter(|(key, _)| !used.contains(key)) {
        if shadowed.contains(key) {
            let text = "conflicting environment variable is shadowed by corresponding \
                        command-line flag (either unset environment variable or disable flag))";
            let line = Notice::new(Level::Fatal, text).with("environment-variable", key.as_str());
            return Err(Fault::Conflict(line));
        }
        if key.starts_with("ETCD_") {
            let notice = Notice::warn("unrecognized environment variable");
            notices.push(notice.with("environment-variable", format!("{key}={value}")));
        }
    }
    Ok(())
}
