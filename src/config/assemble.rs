//! Settings made into the configuration a member runs with.
//!
//! Receives: settings that passed etcd's rules. Sends: the typed configuration. Never:
//! asks the system for anything but its default address.

use super::Surroundings;
use super::bootstrap::InitialCluster;
use super::model::{
    ClusterState, Config, Discovery, DiscoveryService, KeepAlive, Listen, MetricsDetail,
};
use super::settings::Settings;
use super::table;
use super::url::Url;
use super::value::Value;
use super::{checks, gates};
use crate::logging::{LogConfig, Notice};
use std::path::PathBuf;
use std::time::Duration;

/// The quota when none is set, in bytes.
const DEFAULT_QUOTA: u64 = 2 << 30;
/// The quota etcd warns above, in bytes.
const SUGGESTED_QUOTA: u64 = 8 << 30;
/// The request size etcd warns above, in bytes.
const SUGGESTED_REQUEST: u64 = 10 << 20;

/// Makes the configuration.
pub(crate) fn assemble(
    settings: &mut Settings,
    log: LogConfig,
    surroundings: &Surroundings<'_>,
    notices: &mut Vec<Notice>,
) -> Result<Config, String> {
    fill_cluster_from_name(settings, surroundings, notices)?;
    let data_dir = data_dir(settings, notices);
    let discovery = discovery(settings)?;
    let config = Config {
        name: settings.text("name").to_owned(),
        data_dir,
        dedicated_wal_dir: dedicated_wal_dir(settings),
        snapshot_count: or_default(settings, "snapshot-count"),
        snapshot_catchup_entries: settings.uint("snapshot-catchup-entries"),
        heartbeat_ms: settings.uint("heartbeat-interval"),
        election_ms: settings.uint("election-timeout"),
        initial_election_tick_advance: settings.bool("initial-election-tick-advance"),
        listen: listen(settings),
        max_wals: settings.uint("max-wals"),
        quota_backend_bytes: quota(settings, notices),
        max_txn_ops: settings.uint("max-txn-ops"),
        max_request_bytes: request_bytes(settings, notices),
        max_concurrent_streams: concurrent_streams(settings),
        keepalive: keepalive(settings),
        enable_grpc_gateway: settings.bool("enable-grpc-gateway"),
        memory_mlock: settings.bool("memory-mlock"),
        unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
        advertise_peer_urls: settings.urls("initial-advertise-peer-urls").to_vec(),
        advertise_client_urls: settings.urls("advertise-client-urls").to_vec(),
        initial_cluster: initial_cluster(settings, &discovery)?,
        initial_cluster_state: cluster_state(settings),
        initial_cluster_token: token(settings, &discovery),
        discovery,
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        max_learners: max_learners(settings)?,
        force_new_cluster: settings.bool("force-new-cluster"),
        pre_vote: settings.bool("pre-vote"),
        auto_compaction: checks::auto_compaction(settings)?,
        log,
        metrics: metrics(settings, notices),
        features: gates::features(settings.text("feature-gates"))?,
        warning_apply_duration: span(settings, "warning-apply-duration")?,
        warning_unary_request_duration: span_or_default(
            settings,
            "warning-unary-request-duration",
        )?,
        compaction_batch_limit: batch_limit(settings)?,
        compaction_sleep_interval: span_or_default(settings, "compaction-sleep-interval")?,
        watch_progress_notify_interval: span_or_default(
            settings,
            "watch-progress-notify-interval",
        )?,
        notices: Vec::new(),
    };
    Ok(config)
}

/// Where the member listens.
fn listen(settings: &Settings) -> Listen {
    let urls = |name| settings.urls(name).to_vec();
    Listen {
        peer_urls: urls("listen-peer-urls"),
        client_urls: urls("listen-client-urls"),
        client_http_urls: urls("listen-client-http-urls"),
        metrics_urls: urls("listen-metrics-urls"),
        reuse_port: settings.bool("socket-reuse-port"),
        reuse_address: settings.bool("socket-reuse-address"),
    }
}

/// How clients' connections are kept alive.
fn keepalive(settings: &Settings) -> KeepAlive {
    KeepAlive {
        min_time: settings.duration("grpc-keepalive-min-time").to_std(),
        interval: settings.duration("grpc-keepalive-interval").to_std(),
        timeout: settings.duration("grpc-keepalive-timeout").to_std(),
    }
}

fn concurrent_streams(settings: &Settings) -> u32 {
    u32::try_from(settings.uint("max-concurrent-streams")).unwrap_or(u32::MAX)
}

fn dedicated_wal_dir(settings: &Settings) -> Option<PathBuf> {
    Some(settings.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

fn cluster_state(settings: &Settings) -> ClusterState {
    match settings.text("initial-cluster-state") {
        "existing" => ClusterState::Existing,
        _ => ClusterState::New,
    }
}

/// What is mixed into the ids: members who meet at a discovery service have its token.
fn token(settings: &Settings, discovery: &Discovery) -> String {
    match discovery {
        Discovery::V3(service) => service.token.clone(),
        _ => settings.text("initial-cluster-token").to_owned(),
    }
}

/// How the others are found.
fn discovery(settings: &Settings) -> Result<Discovery, String> {
    let endpoints = settings.list("discovery-endpoints");
    let domain = settings.text("discovery-srv");
    if !endpoints.is_empty() {
        return Ok(Discovery::V3(DiscoveryService {
            token: settings.text("discovery-token").to_owned(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect(),
            dial_timeout: span_or_default(settings, "discovery-dial-timeout")?,
            request_timeout: span_or_default(settings, "discovery-request-timeout")?,
            keepalive_time: span_or_default(settings, "discovery-keepalive-time")?,
            keepalive_timeout: span_or_default(settings, "discovery-keepalive-timeout")?,
            credentials: credentials(settings)?,
        }));
    }
    if domain.is_empty() {
        return Ok(Discovery::Static);
    }
    let suffix = match settings.text("discovery-srv-name") {
        "" => String::new(),
        name => format!("-{name}"),
    };
    Ok(Discovery::Srv { domain: domain.to_owned(), suffix })
}

/// The discovery service's user and password, given together or apart.
fn credentials(settings: &Settings) -> Result<Option<(String, String)>, String> {
    let (user, password) = (settings.text("discovery-user"), settings.text("discovery-password"));
    let (user, password) = match (user.split_once(':'), password) {
        (Some((user, password)), "") => (user, password),
        _ => (user, password),
    };
    match (user, password) {
        ("", _) => Ok(None),
        (_, "") => Err("--discovery-user without a password: give user:password, or \
                        --discovery-password"
            .to_owned()),
        (user, password) => Ok(Some((user.to_owned(), password.to_owned()))),
    }
}

/// The members that are known before any is asked.
fn initial_cluster(settings: &Settings, discovery: &Discovery) -> Result<InitialCluster, String> {
    match discovery {
        Discovery::V3(_) => {
            let urls = settings.urls("initial-advertise-peer-urls");
            Ok(InitialCluster::of_one(settings.text("name"), urls))
        }
        Discovery::Srv { .. } => Ok(InitialCluster::default()),
        Discovery::Static => InitialCluster::parse(settings.text("initial-cluster")),
    }
}

fn max_learners(settings: &Settings) -> Result<u32, String> {
    const NAME: &str = "max-learners";
    let given = settings.int(NAME);
    u32::try_from(given)
        .ok()
        .ok_or_else(|| format!("--{NAME} must not be negative (set to {given})"))
}

/// The default host and `--name` shape URLs and the cluster nobody set.
fn fill_cluster_from_name(
    settings: &mut Settings,
    surroundings: &Surroundings<'_>,
    notices: &mut Vec<Notice>,
) -> Result<(), String> {
    let pairs = [
        ("listen-peer-urls", "initial-advertise-peer-urls"),
        ("listen-client-urls", "advertise-client-urls"),
    ];
    for (listen, advertise) in pairs {
        if !wants_default_host(settings, listen, advertise) {
            continue;
        }
        match (surroundings.default_host)() {
            Ok(host) => {
                let url = settings.urls(listen)[0].with_host(&host.to_string())?;
                settings.replace(advertise, Value::Urls(vec![url]));
                let notice = Notice::info("detected default host for advertise");
                notices.push(notice.with("host", host.to_string()));
            }
            Err(e) => {
                let notice = Notice::info("failed to detect default host");
                notices.push(notice.with("error", e.to_string()));
            }
        }
    }
    let default = table::find("initial-cluster").map_or("", |flag| flag.default);
    let name = settings.text("name");
    if name != "default" && settings.text("initial-cluster") == default {
        let name = if name.is_empty() { "default" } else { name };
        let part = |url: &Url| format!("{name}={url}");
        let parts: Vec<String> =
            settings.urls("initial-advertise-peer-urls").iter().map(part).collect();
        settings.replace("initial-cluster", Value::Text(parts.join(",")));
    }
    Ok(())
}

/// Whether the member listens everywhere and advertises the default of one place.
fn wants_default_host(settings: &Settings, listen: &str, advertise: &str) -> bool {
    let everywhere = settings.urls(listen).first().is_some_and(|url| url.host() == "0.0.0.0");
    let default = table::find(advertise).map_or("", |flag| flag.default);
    let advertised = settings.urls(advertise);
    everywhere && advertised.len() == 1 && advertised[0].as_str() == default
}

fn data_dir(settings: &Settings, notices: &mut Vec<Notice>) -> PathBuf {
    match settings.text("data-dir") {
        "" => {
            let dir = format!("{}.etcd", settings.text("name"));
            let notice = Notice::warn("'data-dir' was empty; using default");
            notices.push(notice.with("data-dir", dir.as_str()));
            PathBuf::from(dir)
        }
        dir => PathBuf::from(dir),
    }
}

fn quota(settings: &Settings, notices: &mut Vec<Notice>) -> Option<u64> {
    let bytes = match settings.int("quota-backend-bytes") {
        0 => DEFAULT_QUOTA,
        // A negative number sets no limit.
        bytes => u64::try_from(bytes).ok()?,
    };
    if bytes > SUGGESTED_QUOTA {
        let notice = Notice::warn("quota exceeds the maximum value");
        notices.push(
            notice
                .with("quota-size-bytes", bytes)
                .with("quota-maximum-size-bytes", SUGGESTED_QUOTA),
        );
    }
    Some(bytes)
}

fn request_bytes(settings: &Settings, notices: &mut Vec<Notice>) -> u64 {
    let bytes = settings.uint("max-request-bytes");
    if bytes > SUGGESTED_REQUEST {
        let notice = Notice::warn("exceeded recommended request limit");
        notices.push(
            notice
                .with("max-request-bytes", bytes)
                .with("recommended-request-bytes", SUGGESTED_REQUEST),
        );
    }
    bytes
}

fn metrics(settings: &Settings, notices: &mut Vec<Notice>) -> MetricsDetail {
    match settings.text("metrics") {
        "extensive" => MetricsDetail::Extensive,
        "basic" => MetricsDetail::Basic,
        other => {
            let notice = Notice::warn("unknown level of --metrics; basic is used");
            notices.push(notice.with("metrics", other));
            MetricsDetail::Basic
        }
    }
}

/// A count whose zero stands for its default.
fn or_default(settings: &Settings, name: &str) -> u64 {
    let default =
        || match settings.get(name).flag.kind.default_value(settings.get(name).flag.default) {
            Value::Uint(value) => value,
            _ => 0,
        };
    Some(settings.uint(name)).filter(|value| *value != 0).unwrap_or_else(default)
}

fn batch_limit(settings: &Settings) -> Result<u64, String> {
    const NAME: &str = "compaction-batch-limit";
    match settings.int(NAME) {
        0 => Ok(1000),
        limit => u64::try_from(limit)
            .map_err(|_| format!("--{NAME} must not be negative (set to {limit})")),
    }
}

/// A time that must not be negative.
fn span(settings: &Settings, name: &str) -> Result<Duration, String> {
    let value = settings.duration(name);
    if value.0 < 0 {
        return Err(format!("--{name} must not be negative (set to {value})"));
    }
    Ok(value.to_std())
}

/// A time whose zero stands for its default.
fn span_or_default(settings: &Settings, name: &str) -> Result<Duration, String> {
    let value = span(settings, name)?;
    let flag = settings.get(name).flag;
    match flag.kind.default_value(flag.default) {
        Value::Duration(default) if value.is_zero() => Ok(default.to_std()),
        _ => Ok(value),
    }
}
