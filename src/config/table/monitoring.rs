//! Metrics, profiles, log lines, traces.

use super::{FileKey, Flag, SINCE_3_4, SINCE_3_5, SINCE_3_6, Section, TRACING};
use crate::config::value::Kind;

const fn tracing(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Tracing, name, kind, default, SINCE_3_6, help).not_yet(TRACING)
}

const fn logging(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Logging, name, kind, default, SINCE_3_4, help)
}

const ROTATION: &str = "log files are not rotated by castd yet";

/// etcd's default of `--log-rotation-config-json`.
const ROTATION_DEFAULT: &str = concat!(
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "#,
    r#""localtime": false, "compress": false}"#
);

pub(super) const FLAGS: &[Flag] = &[
    Flag::new(
        Section::Monitoring,
        "enable-pprof",
        Kind::Bool,
        "false",
        SINCE_3_4,
        "Serve Go's profiles under /debug/pprof/.",
    )
    .not_yet("there are no profiles to serve yet"),
    Flag::new(
        Section::Monitoring,
        "metrics",
        Kind::Text,
        "basic",
        SINCE_3_4,
        "How much /metrics tells: basic, or extensive with histograms of every method.",
    ),
    Flag::new(
        Section::Monitoring,
        "listen-metrics-urls",
        Kind::Urls,
        "",
        SINCE_3_4,
        "Further listeners for /metrics, /health, /livez and /readyz.",
    ),
    logging("logger", Kind::Text, "zap", "The form of log lines. Only zap, which is etcd's own."),
    logging(
        "log-outputs",
        Kind::UniqueList,
        "default",
        "Where log lines go: default or stderr, stdout, or files, separated by commas.",
    ),
    logging(
        "log-level",
        Kind::Text,
        "info",
        "The lowest level written: debug, info, warn, error, panic or fatal.",
    ),
    Flag::new(
        Section::Logging,
        "log-format",
        Kind::Text,
        "json",
        SINCE_3_6,
        "How a line looks: json or console.",
    ),
    Flag::new(
        Section::Logging,
        "enable-log-rotation",
        Kind::Bool,
        "false",
        SINCE_3_5,
        "Rotate the one file of --log-outputs.",
    )
    .not_yet(ROTATION),
    Flag::new(
        Section::Logging,
        "log-rotation-config-json",
        Kind::Text,
        ROTATION_DEFAULT,
        SINCE_3_5,
        "How the log file is rotated.",
    )
    .not_yet(ROTATION),
    Flag::new(
        Section::Logging,
        "warning-unary-request-duration",
        Kind::Duration,
        "300ms",
        SINCE_3_6,
        "Log unary requests that take longer.",
    ),
    tracing("enable-distributed-tracing", Kind::Bool, "false", "Send traces by OpenTelemetry."),
    tracing(
        "distributed-tracing-address",
        Kind::Text,
        "localhost:4317",
        "The collector's address.",
    ),
    tracing(
        "distributed-tracing-service-name",
        Kind::Text,
        "etcd",
        "The service's name in traces.",
    ),
    tracing("distributed-tracing-instance-id", Kind::Text, "", "This member's name in traces."),
    tracing("distributed-tracing-sampling-rate", Kind::Int, "0", "Traces kept of each million."),
    Flag::new(
        Section::Hidden,
        "grpc-additional-server-options",
        Kind::List,
        "",
        SINCE_3_6,
        "Options for etcd's gRPC library.",
    )
    .not_yet("castd's gRPC library takes no such options")
    .file(FileKey::OnlyInside("", "grpc-additional-server-options")),
];
