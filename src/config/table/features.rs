//! What was experimental once, and what can lose data.

use super::{Flag, HASHES, SINCE_3_4, SINCE_3_6, Section};
use crate::config::value::Kind;

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Features, name, kind, default, SINCE_3_6, help)
}

pub(super) const FLAGS: &[Flag] = &[
    flag(
        "corrupt-check-time",
        Kind::Duration,
        "0s",
        "Time between comparisons of the members' hashes.",
    )
    .not_yet(HASHES),
    flag(
        "compact-hash-check-time",
        Kind::Duration,
        "1m",
        "Time between comparisons of the members' compaction hashes.",
    )
    .not_yet(HASHES),
    flag(
        "compaction-batch-limit",
        Kind::Int,
        "1000",
        "The most revisions removed in one piece of a compaction.",
    ),
    flag(
        "compaction-sleep-interval",
        Kind::Duration,
        "10ms",
        "The pause between two pieces of a compaction.",
    ),
    flag(
        "watch-progress-notify-interval",
        Kind::Duration,
        "10m",
        "How long an idle watch waits between two progress notices.",
    ),
    flag(
        "warning-apply-duration",
        Kind::Duration,
        "100ms",
        "Log requests whose apply takes longer.",
    ),
    flag(
        "bootstrap-defrag-threshold-megabytes",
        Kind::Uint,
        "0",
        "Defragment at boot when it frees this much.",
    )
    .not_yet("castd does not defragment at boot"),
    flag("max-learners", Kind::Int, "1", "The most learners the cluster may have."),
    flag(
        "downgrade-check-time",
        Kind::Duration,
        "5s",
        "Time between two looks at a downgrade under way.",
    )
    .not_yet("downgrades are not built in yet"),
    Flag::new(
        Section::Unsafe,
        "force-new-cluster",
        Kind::Bool,
        "false",
        SINCE_3_4,
        "Make a new cluster of one member out of this member's data.",
    ),
    Flag::new(
        Section::Unsafe,
        "unsafe-no-fsync",
        Kind::Bool,
        "false",
        SINCE_3_4,
        "Never fsync. A power cut loses data.",
    ),
];
