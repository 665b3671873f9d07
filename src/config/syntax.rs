//! The command line, read as Go's flag package reads it.
//!
//! Receives: the arguments after the program's name. Sends: the values they set, or the
//! words Go has for what is wrong. Never: looks at the environment.

use super::go::quote;
use super::settings::{Settings, Source};
use super::table::{self, Flag};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// To go on. The first argument that is no flag stopped the reading.
    Flags {
        /// That argument.
        positional: Option<String>,
    },
    /// `-h` or `--help`.
    Help,
}

/// Reads `args` into `settings`. An error is for standard error, above the usage text.
pub(crate) fn parse(args: &[String], settings: &mut Settings) -> Result<Parsed, String> {
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            return Ok(Parsed::Flags { positional: rest.next().cloned() });
        }
        if arg.len() < 2 || !arg.starts_with('-') {
            return Ok(Parsed::Flags { positional: Some(arg.clone()) });
        }
        let body = arg.strip_prefix("--").unwrap_or(&arg[1..]);
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = table::find(name).filter(|flag| flag.on_command_line()) else {
            if name == "help" || name == "h" {
                return Ok(Parsed::Help);
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        if flag.kind.is_bool() {
            set_bool(flag, value, settings)?;
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => rest.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        let parsed = flag
            .kind
            .parse(value)
            .map_err(|e| format!("invalid value {} for flag -{name}: {e}", quote(value)))?;
        settings.set(flag, parsed, Source::CommandLine);
    }
    Ok(Parsed::Flags { positional: None })
}

fn set_bool(
    flag: &'static Flag,
    value: Option<&str>,
    settings: &mut Settings,
) -> Result<(), String> {
    let text = value.unwrap_or("true");
    let parsed = flag
        .kind
        .parse(text)
        .map_err(|e| format!("invalid boolean value {} for -{}: {e}", quote(text), flag.name))?;
    settings.set(flag, parsed, Source::CommandLine);
    Ok(())
}
