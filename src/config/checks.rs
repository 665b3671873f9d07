//! The rules a configuration must keep, in etcd's order and with etcd's words; then
//! what castd does not do yet.
//!
//! Receives: settings. Sends: the first rule that is broken. Never: changes a value.

use super::gates;
use super::go::{GoDuration, parse_duration, parse_int, quote};
use super::model::AutoCompaction;
use super::settings::{Setting, Settings, Source};
use super::table::Support;
use super::url::{self, Scheme, Url};
use crate::logging::{Format, Level, LogConfig, Notice, Output};
use std::path::PathBuf;
use std::time::Duration;

/// The longest election timeout, in milliseconds.
const MAX_ELECTION_MS: u64 = 50_000;

/// What is told when clients' listeners are set and advertised URLs are not.
pub(crate) const ADVERTISE_UNSET: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// Checks every rule of etcd's that needs no disk and no network.
pub(crate) fn check(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), String> {
    check_fallback(settings)?;
    check_urls(settings, notices)?;
    check_bootstrap_flags(settings)?;
    check_timing(settings)?;
    if settings.urls("advertise-client-urls").is_empty() {
        return Err(ADVERTISE_UNSET.to_owned());
    }
    match settings.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".to_owned()),
        other => return Err(format!("unknown auto-compaction-mode {}", quote(other))),
    }
    let hash_check = settings.duration("compact-hash-check-time");
    if hash_check <= GoDuration(0) {
        return Err(format!("--compact-hash-check-time must be >0 (set to {hash_check})"));
    }
    let name = settings.text("name");
    if name == "default" {
        let text = "it isn't recommended to use default name, please set a value for --name. \
                    Note that etcd might run into issue when multiple members have the same \
                    default name";
        notices.push(Notice::warn(text).with("name", name));
    }
    check_tls_versions(settings)
}

fn check_fallback(settings: &Settings) -> Result<(), String> {
    if settings.text("discovery-fallback") == "proxy" {
        let text = "v2 proxy is deprecated, and --discovery-fallback can't be configured as";
        return Err(format!("{text} {}", quote("proxy")));
    }
    Ok(())
}

fn check_urls(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), String> {
    for name in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls"] {
        url::check_bind(settings.urls(name))?;
    }
    if settings.urls("listen-client-http-urls").is_empty() {
        let text = "Running http and grpc server on single port. This is not recommended for \
                    production.";
        notices.push(Notice::warn(text));
    }
    url::check_bind(settings.urls("listen-metrics-urls"))?;
    let peers = settings.urls("initial-advertise-peer-urls");
    url::check_host(peers).map_err(|e| {
        let shown = quote(&url::join(peers));
        format!("--initial-advertise-peer-urls {shown} must be \"host:port\" ({e})")
    })?;
    let clients = settings.urls("advertise-client-urls");
    url::check_host(clients).map_err(|e| {
        let shown = quote(&url::join(clients));
        format!(
            "--advertise-client-urls {shown} must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({e})"
        )
    })
}

fn check_bootstrap_flags(settings: &Settings) -> Result<(), String> {
    let endpoints = settings.list("discovery-endpoints");
    let ways = [
        !settings.text("initial-cluster").is_empty(),
        !settings.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.iter().filter(|way| **way).count() > 1 {
        let text = "multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
        return Err(text.to_owned());
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".to_owned());
    }
    Ok(())
}

fn check_timing(settings: &Settings) -> Result<(), String> {
    let tick = settings.uint("heartbeat-interval");
    let election = settings.uint("election-timeout");
    if tick == 0 {
        return Err(format!("--heartbeat-interval must be >0 (set to {tick}ms)"));
    }
    if election == 0 {
        return Err(format!("--election-timeout must be >0 (set to {election}ms)"));
    }
    if tick.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{tick}ms]"
        ));
    }
    if election > MAX_ELECTION_MS {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {MAX_ELECTION_MS}ms"
        ));
    }
    Ok(())
}

fn check_tls_versions(settings: &Settings) -> Result<(), String> {
    let rank = |name: &str| match settings.text(name) {
        "" => Ok(0),
        "TLS1.2" => Ok(12),
        "TLS1.3" => Ok(13),
        other => {
            let shown = quote(other);
            Err(format!("unexpected TLS version {shown} (must be one of: TLS1.2, TLS1.3)"))
        }
    };
    let (min, max) = (rank("tls-min-version")?, rank("tls-max-version")?);
    if max != 0 && min > max {
        return Err(format!(
            "min version ({}) is greater than max version ({})",
            settings.text("tls-min-version"),
            settings.text("tls-max-version")
        ));
    }
    if min == 13 && !settings.list("cipher-suites").is_empty() {
        let text = "cipher suites cannot be configured when only TLS1.3 is enabled";
        return Err(text.to_owned());
    }
    Ok(())
}

/// The logger's configuration, with etcd's rules for it.
pub(crate) fn logging(settings: &Settings) -> Result<LogConfig, String> {
    match settings.text("logger") {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
        other => return Err(format!("unknown logger option {}", quote(other))),
    }
    let names = match settings.list("log-outputs") {
        [] => &["default".to_owned()][..],
        names => names,
    };
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return Err(format!("multi logoutput for {} is not supported yet", quote("default")));
    }
    let mut outputs = Vec::new();
    for name in names {
        outputs.push(output(name)?);
    }
    outputs.sort();
    outputs.dedup();
    if names.iter().any(|name| name == "/dev/null") {
        outputs.clear();
    }
    let format = match settings.text("log-format") {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => {
            return Err(format!("unknown log format: {other}, supported values json, console"));
        }
    };
    let level = Level::parse(settings.text("log-level"))?;
    Ok(LogConfig { level, format, outputs })
}

fn output(name: &str) -> Result<Output, String> {
    match name {
        "default" | "stderr" => Ok(Output::Stderr),
        "stdout" => Ok(Output::Stdout),
        "systemd/journal" => Err(format!(
            "--log-outputs {} is not supported by castd: there is no journald writer yet",
            quote(name)
        )),
        _ => match name.split_once("://") {
            None => Ok(Output::File(PathBuf::from(name))),
            Some(("file", path)) => Ok(Output::File(PathBuf::from(path))),
            Some((scheme, _)) => Err(format!(
                "couldn't open sink {}: no sink found for scheme {}",
                quote(name),
                quote(scheme)
            )),
        },
    }
}

/// What the member compacts by itself.
pub(crate) fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, String> {
    let text = match settings.text("auto-compaction-retention") {
        "" => "0",
        text => text,
    };
    let periodic = settings.text("auto-compaction-mode") == "periodic";
    let plain = text.trim_start_matches('+').bytes().all(|b| b.is_ascii_digit());
    let count = if plain { parse_decimal(text) } else { None };
    let nanos = match (count, periodic) {
        (Some(0), _) => return Ok(AutoCompaction::Off),
        (Some(count), false) => return Ok(AutoCompaction::Revision(count)),
        (Some(hours), true) => {
            return Ok(AutoCompaction::Periodic(Duration::from_secs(hours.saturating_mul(3600))));
        }
        (None, _) => {
            parse_duration(text).map_err(|e| format!("error parsing CompactionRetention: {e}"))?.0
        }
    };
    match (u64::try_from(nanos), periodic) {
        (Err(_), _) => Err(format!("--auto-compaction-retention must not be negative ({text})")),
        (Ok(0), _) => Ok(AutoCompaction::Off),
        (Ok(nanos), true) => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanos))),
        (Ok(_), false) => Err(format!(
            "--auto-compaction-retention {} is a time, but --auto-compaction-mode=revision \
             counts revisions",
            quote(text)
        )),
    }
}

/// A decimal number as Go's `Atoi` reads it, leading zeros and all.
fn parse_decimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text).trim_start_matches('0');
    if digits.is_empty() {
        return text.ends_with('0').then_some(0);
    }
    parse_int(digits).ok().and_then(|number| u64::try_from(number).ok())
}

/// Refuses whatever is set to what castd does not do yet.
pub(crate) fn refuse_unsupported(settings: &Settings) -> Result<(), String> {
    let mut refused: Vec<String> = settings
        .iter()
        .filter(|setting| setting.source != Source::Default && setting.changed())
        .filter_map(refusal)
        .collect();
    if settings.uint("max-snapshots") == 1 {
        let name = settings.get("max-snapshots").spelled();
        refused.push(format!("{name} 1 is not supported by castd: two checkpoints are kept"));
    }
    refused.extend(gate_refusals(settings));
    refused.extend(listener_refusals(settings));
    if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) }
}

fn refusal(setting: &Setting) -> Option<String> {
    match setting.flag.support {
        Support::NotYet(reason) => {
            Some(format!("{} is not supported by castd: {reason}", setting.spelled()))
        }
        Support::GateAlias(gate) => {
            let gate = gates::GATES.iter().find(|known| known.name == gate)?;
            Some(format!("{} is not supported by castd: {}", setting.spelled(), gate.reason))
        }
        Support::Works | Support::Holds(_) | Support::AliasOf(_) | Support::Ignored => None,
    }
}

fn gate_refusals(settings: &Settings) -> Vec<String> {
    let text = settings.text("feature-gates");
    // The text was read once already, when it was set.
    let values = gates::parse(text).unwrap_or_default();
    let changed = |gate: &&gates::Gate| values.get(gate.name).is_some_and(|v| *v != gate.default);
    let told = |gate: &gates::Gate| {
        let (name, value) = (gate.name, !gate.default);
        format!("feature gate {name}={value} is not supported by castd: {}", gate.reason)
    };
    gates::GATES.iter().filter(changed).map(told).collect()
}

fn listener_refusals(settings: &Settings) -> Vec<String> {
    let listeners = [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "listen-metrics-urls",
    ];
    let mut refused = Vec::new();
    for name in listeners {
        for url in settings.urls(name) {
            if let Some(reason) = listener_refusal(name, url) {
                refused.push(format!("--{name} {url} is not supported by castd: {reason}"));
            }
        }
    }
    refused
}

fn listener_refusal(name: &str, url: &Url) -> Option<&'static str> {
    match url.scheme() {
        Scheme::Https | Scheme::Unixs => Some("TLS is not built in yet"),
        Scheme::Unix if name == "listen-peer-urls" => Some("peers are reached over TCP only"),
        Scheme::Unix | Scheme::Http => None,
    }
}
