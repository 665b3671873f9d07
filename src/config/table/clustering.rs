//! The cluster the member is in.

use super::{DISCOVERY, FileKey, Flag, SINCE_3_4, SINCE_3_6, Section, Support, Versions, versions};
use crate::config::value::Kind;

const TO_3_6: Versions = versions(4, 6);

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Clustering, name, kind, default, SINCE_3_4, help)
}

/// A setting of v3 discovery: in a file it stands inside `discovery-config`.
const fn discovery(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Clustering, name, kind, default, SINCE_3_6, help)
        .not_yet(DISCOVERY)
        .file(FileKey::None)
}

pub(super) const FLAGS: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "The peer URLs this member tells the cluster.",
    ),
    flag(
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "The members a new cluster begins with, as name=url,... Only one member so far.",
    ),
    flag(
        "initial-cluster-state",
        Kind::OneOf(&["new", "existing"]),
        "new",
        "Begin a cluster (new), or join one (existing, not built in yet). Without meaning\n    once the member has data.",
    ),
    flag(
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "Mixed into member and cluster ids, so that clusters made alike stay apart.",
    ),
    flag(
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "The client URLs this member tells clients. Required with --listen-client-urls.",
    ),
    flag("discovery-srv", Kind::Text, "", "The DNS domain whose SRV records name the cluster.")
        .not_yet(DISCOVERY),
    flag("discovery-srv-name", Kind::Text, "", "A suffix of the SRV name asked for.")
        .not_yet(DISCOVERY),
    discovery("discovery-token", Kind::Text, "", "v3 discovery: the cluster's token."),
    discovery(
        "discovery-endpoints",
        Kind::UniqueList,
        "",
        "v3 discovery: the service's endpoints.",
    ),
    discovery("discovery-dial-timeout", Kind::Duration, "2s", "v3 discovery: time to connect."),
    discovery("discovery-request-timeout", Kind::Duration, "5s", "v3 discovery: time to answer."),
    discovery(
        "discovery-keepalive-time",
        Kind::Duration,
        "2s",
        "v3 discovery: time between pings.",
    ),
    discovery(
        "discovery-keepalive-timeout",
        Kind::Duration,
        "6s",
        "v3 discovery: time to answer a ping.",
    ),
    discovery(
        "discovery-insecure-transport",
        Kind::Bool,
        "true",
        "v3 discovery: connect without TLS.",
    ),
    discovery(
        "discovery-insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        "v3 discovery: do not check the server's certificate.",
    ),
    discovery("discovery-cert", Kind::Text, "", "v3 discovery: the client certificate's file."),
    discovery("discovery-key", Kind::Text, "", "v3 discovery: the client key's file."),
    discovery("discovery-cacert", Kind::Text, "", "v3 discovery: the trusted authorities' file."),
    discovery("discovery-user", Kind::Text, "", "v3 discovery: user, or user:password."),
    discovery("discovery-password", Kind::Text, "", "v3 discovery: the user's password."),
    Flag::new(
        Section::Clustering,
        "discovery",
        Kind::Text,
        "",
        TO_3_6,
        "v2 discovery: the cluster's URL.",
    )
    .not_yet(DISCOVERY),
    Flag::new(
        Section::Clustering,
        "discovery-proxy",
        Kind::Text,
        "",
        TO_3_6,
        "v2 discovery: an HTTP proxy to reach the service by.",
    )
    .not_yet(DISCOVERY),
    flag(
        "discovery-fallback",
        Kind::OneOf(&["exit", "proxy"]),
        "exit",
        "What to do when discovery fails. Only exit is left.",
    )
    .not_yet(DISCOVERY)
    .file(FileKey::None),
    flag(
        "strict-reconfig-check",
        Kind::Bool,
        "true",
        "Refuse membership changes that would lose quorum.",
    )
    .not_yet("membership cannot be changed yet"),
    flag(
        "pre-vote",
        Kind::Bool,
        "true",
        "Ask before electing, so that a returning member disturbs less.",
    ),
    flag(
        "auto-compaction-mode",
        Kind::Text,
        "periodic",
        "How --auto-compaction-retention is meant: periodic (a time) or revision (a count).",
    ),
    flag(
        "auto-compaction-retention",
        Kind::Text,
        "0",
        "History kept when compacting by itself: a time as 5m or 1h, a bare number being\n    hours, or a count of revisions. 0 does not compact.",
    ),
    Flag::new(
        Section::Clustering,
        "v2-deprecation",
        Kind::SomeOf(&[
            "not-yet",
            "write-only",
            "write-only-skip-check",
            "write-only-drop-data",
            "gone",
        ]),
        "",
        versions(5, 7),
        "Ignored, as etcd 3.7 does.",
    )
    .support(Support::Ignored),
];
