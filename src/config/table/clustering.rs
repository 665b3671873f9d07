//! The cluster the member is in.

use super::{
    FileKey, Flag, SINCE_3_4, SINCE_3_6, Section, Support, TLS, V2_DISCOVERY, Versions, versions,
};
use crate::config::value::Kind;

const CLIENT: &str = "discovery-config.client";
const SECURE: &str = "discovery-config.client.secure";
const AUTH: &str = "discovery-config.client.auth";

const TO_3_6: Versions = versions(4, 6);

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Clustering, name, kind, default, SINCE_3_4, help)
}

/// A setting of v3 discovery: in a file it stands inside `discovery-config`, where most
/// have their place in the object for its client.
const fn discovery(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Clustering, name, kind, default, SINCE_3_6, help)
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
        "The members a new cluster begins with, as name=url,...",
    ),
    flag(
        "initial-cluster-state",
        Kind::OneOf(&["new", "existing"]),
        "new",
        "Begin a cluster (new), or join one (existing). Without meaning once the member has\n    data.",
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
    flag("discovery-srv", Kind::Text, "", "The DNS domain whose SRV records name the cluster."),
    flag("discovery-srv-name", Kind::Text, "", "A suffix of the SRV name asked for."),
    discovery("discovery-token", Kind::Text, "", "v3 discovery: the cluster's token.")
        .file(FileKey::Inside("discovery-config", "token")),
    discovery(
        "discovery-endpoints",
        Kind::UniqueList,
        "",
        "v3 discovery: the service's endpoints.",
    )
    .file(FileKey::Inside(CLIENT, "endpoints")),
    discovery("discovery-dial-timeout", Kind::Duration, "2s", "v3 discovery: time to connect.")
        .file(FileKey::Inside(CLIENT, "dial-timeout")),
    discovery("discovery-request-timeout", Kind::Duration, "5s", "v3 discovery: time to answer.")
        .file(FileKey::Inside(CLIENT, "request-timeout")),
    discovery(
        "discovery-keepalive-time",
        Kind::Duration,
        "2s",
        "v3 discovery: time between pings.",
    )
    .file(FileKey::Inside(CLIENT, "keepalive-time")),
    discovery(
        "discovery-keepalive-timeout",
        Kind::Duration,
        "6s",
        "v3 discovery: time to answer a ping.",
    )
    .file(FileKey::Inside(CLIENT, "keepalive-timeout")),
    discovery(
        "discovery-insecure-transport",
        Kind::Bool,
        "true",
        "v3 discovery: connect without TLS.",
    )
    .file(FileKey::Inside(SECURE, "insecure-transport"))
    .not_yet(TLS),
    discovery(
        "discovery-insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        "v3 discovery: do not check the server's certificate.",
    )
    .file(FileKey::Inside(SECURE, "insecure-skip-tls-verify"))
    .not_yet(TLS),
    discovery("discovery-cert", Kind::Text, "", "v3 discovery: the client certificate's file.")
        .file(FileKey::Inside(SECURE, "cert"))
        .not_yet(TLS),
    discovery("discovery-key", Kind::Text, "", "v3 discovery: the client key's file.")
        .file(FileKey::Inside(SECURE, "key"))
        .not_yet(TLS),
    discovery("discovery-cacert", Kind::Text, "", "v3 discovery: the trusted authorities' file.")
        .file(FileKey::Inside(SECURE, "cacert"))
        .not_yet(TLS),
    discovery("discovery-user", Kind::Text, "", "v3 discovery: user, or user:password.")
        .file(FileKey::Inside(AUTH, "username")),
    discovery("discovery-password", Kind::Text, "", "v3 discovery: the user's password.")
        .file(FileKey::Inside(AUTH, "password")),
    Flag::new(
        Section::Clustering,
        "discovery",
        Kind::Text,
        "",
        TO_3_6,
        "v2 discovery: the cluster's URL.",
    )
    .not_yet(V2_DISCOVERY),
    Flag::new(
        Section::Clustering,
        "discovery-proxy",
        Kind::Text,
        "",
        TO_3_6,
        "v2 discovery: an HTTP proxy to reach the service by.",
    )
    .not_yet(V2_DISCOVERY),
    flag(
        "discovery-fallback",
        Kind::OneOf(&["exit", "proxy"]),
        "exit",
        "What to do when discovery fails. Only exit is left.",
    )
    .not_yet(V2_DISCOVERY)
    .file(FileKey::None),
    flag(
        "strict-reconfig-check",
        Kind::Bool,
        "true",
        "Refuse membership changes that would lose quorum.",
    ),
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
