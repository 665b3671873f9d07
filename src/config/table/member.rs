//! The member itself.

use super::{BBOLT, FileKey, Flag, PEER_LINKS, SINCE_3_4, SINCE_3_5, SINCE_3_6, Section, Support};
use crate::config::value::Kind;

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Member, name, kind, default, SINCE_3_4, help)
}

const fn flag35(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Member, name, kind, default, SINCE_3_5, help)
}

const fn flag36(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Member, name, kind, default, SINCE_3_6, help)
}

pub(super) const FLAGS: &[Flag] = &[
    flag("name", Kind::Text, "default", "The member's name among people."),
    flag("data-dir", Kind::Text, "", "The data directory; ${name}.etcd when empty."),
    flag("wal-dir", Kind::Text, "", "A directory of its own for the write-ahead log."),
    flag(
        "snapshot-count",
        Kind::Uint,
        "10000",
        "Applied entries after which a checkpoint lets the raft log be cut.",
    ),
    flag36(
        "snapshot-catchup-entries",
        Kind::Uint,
        "5000",
        "Raft entries kept behind a checkpoint for slow followers.",
    ),
    flag("heartbeat-interval", Kind::Uint, "100", "The raft tick, in milliseconds."),
    flag(
        "election-timeout",
        Kind::Uint,
        "1000",
        "The election timeout, in milliseconds: 5 ticks or more, 50000 at most.",
    ),
    flag(
        "initial-election-tick-advance",
        Kind::Bool,
        "true",
        "Let the first election after boot come early.",
    ),
    flag(
        "listen-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "Where peers connect. Only http so far.",
    ),
    flag(
        "listen-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        "Where clients connect, for gRPC and HTTP: http or unix.",
    ),
    flag(
        "listen-client-http-urls",
        Kind::Urls,
        "",
        "Listeners for HTTP alone; --listen-client-urls then serve gRPC only.",
    ),
    flag(
        "max-snapshots",
        Kind::Uint,
        "5",
        "The most snapshot files kept (0: no limit). castd keeps two checkpoints at most.",
    )
    .support(Support::Holds("there are never more than two checkpoints")),
    flag("max-wals", Kind::Uint, "5", "The most WAL files kept beyond those needed (0: no limit)."),
    flag36("memory-mlock", Kind::Bool, "false", "Lock the process's pages in memory."),
    flag(
        "quota-backend-bytes",
        Kind::Int,
        "0",
        "The size of the store from which writes are refused (0: 2 GiB, negative: no limit).",
    ),
    flag35("backend-bbolt-freelist-type", Kind::Text, "map", "The kind of bbolt's free list.")
        .not_yet(BBOLT),
    flag(
        "backend-batch-interval",
        Kind::Duration,
        "0s",
        "The longest time between bbolt's commits.",
    )
    .not_yet(BBOLT),
    flag("backend-batch-limit", Kind::Int, "0", "The most operations in one of bbolt's commits.")
        .not_yet(BBOLT),
    flag("max-txn-ops", Kind::Uint, "128", "The most operations in one transaction."),
    flag("max-request-bytes", Kind::Uint, "1572864", "The largest client request, in bytes."),
    flag(
        "max-concurrent-streams",
        Kind::Uint32,
        "4294967295",
        "The most HTTP/2 streams one client connection may have open.",
    ),
    flag(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "The shortest time a client must leave between two pings.",
    )
    .not_yet("pings of clients are not counted yet"),
    flag(
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h",
        "The time between the server's pings to a client (0: none).",
    ),
    flag(
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "How long a ping's answer may take before the connection is closed (0: any time).",
    ),
    flag35("socket-reuse-port", Kind::Bool, "false", "Set SO_REUSEPORT on listeners.")
        .file(FileKey::Inside("socket-options", "reuse-port")),
    flag35("socket-reuse-address", Kind::Bool, "false", "Set SO_REUSEADDR on listeners.")
        .file(FileKey::Inside("socket-options", "reuse-address")),
    flag35(
        "raft-read-timeout",
        Kind::Duration,
        "5s",
        "Read timeout of peer connections, 5s or more.",
    )
    .not_yet(PEER_LINKS)
    .file(FileKey::None),
    flag35(
        "raft-write-timeout",
        Kind::Duration,
        "5s",
        "Write timeout of peer connections, 5s or more.",
    )
    .not_yet(PEER_LINKS)
    .file(FileKey::None),
    flag("enable-grpc-gateway", Kind::Bool, "true", "Serve the JSON gateway, once it is built in."),
    flag36("feature-gates", Kind::Gates, "", "Gates to set, as Name=true|false,..."),
    flag("version", Kind::Bool, "false", "Print the versions and exit.").file(FileKey::None),
    flag(
        "config-file",
        Kind::Text,
        "",
        "A YAML or JSON file with the configuration. Flags and variables are then ignored.",
    )
    .file(FileKey::None),
];
