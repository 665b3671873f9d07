//! The `--experimental-` names of etcd 3.4 to 3.6.

use super::{Flag, Section, Support, Versions, versions};
use crate::config::value::Kind;

const IN_3_4_TO_3_6: Versions = versions(4, 6);
const IN_3_5_AND_3_6: Versions = versions(5, 6);

const fn alias(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    versions: Versions,
    of: &'static str,
) -> Flag {
    Flag::new(Section::Older, name, kind, default, versions, "").support(Support::AliasOf(of))
}

const fn gate(
    name: &'static str,
    default: &'static str,
    versions: Versions,
    of: &'static str,
) -> Flag {
    let kind = Kind::Bool;
    Flag::new(Section::Older, name, kind, default, versions, "").support(Support::GateAlias(of))
}

#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    alias("experimental-backend-bbolt-freelist-type", Kind::Text, "map", versions(4, 4), "backend-bbolt-freelist-type"),
    alias("experimental-bootstrap-defrag-threshold-megabytes", Kind::Uint, "0", IN_3_5_AND_3_6, "bootstrap-defrag-threshold-megabytes"),
    alias("experimental-compact-hash-check-time", Kind::Duration, "1m", IN_3_5_AND_3_6, "compact-hash-check-time"),
    alias("experimental-compaction-batch-limit", Kind::Int, "1000", IN_3_4_TO_3_6, "compaction-batch-limit"),
    alias("experimental-compaction-sleep-interval", Kind::Duration, "10ms", IN_3_5_AND_3_6, "compaction-sleep-interval"),
    alias("experimental-corrupt-check-time", Kind::Duration, "0s", IN_3_4_TO_3_6, "corrupt-check-time"),
    alias("experimental-distributed-tracing-address", Kind::Text, "localhost:4317", IN_3_5_AND_3_6, "distributed-tracing-address"),
    alias("experimental-distributed-tracing-instance-id", Kind::Text, "", IN_3_5_AND_3_6, "distributed-tracing-instance-id"),
    alias("experimental-distributed-tracing-sampling-rate", Kind::Int, "0", IN_3_5_AND_3_6, "distributed-tracing-sampling-rate"),
    alias("experimental-distributed-tracing-service-name", Kind::Text, "etcd", IN_3_5_AND_3_6, "distributed-tracing-service-name"),
    alias("experimental-downgrade-check-time", Kind::Duration, "5s", IN_3_5_AND_3_6, "downgrade-check-time"),
    alias("experimental-enable-distributed-tracing", Kind::Bool, "false", IN_3_5_AND_3_6, "enable-distributed-tracing"),
    alias("experimental-memory-mlock", Kind::Bool, "false", IN_3_5_AND_3_6, "memory-mlock"),
    alias("experimental-peer-skip-client-san-verification", Kind::Bool, "false", IN_3_4_TO_3_6, "peer-skip-client-san-verification"),
    alias("experimental-snapshot-catchup-entries", Kind::Uint, "5000", IN_3_5_AND_3_6, "snapshot-catchup-entries"),
    alias("experimental-warning-apply-duration", Kind::Duration, "100ms", IN_3_4_TO_3_6, "warning-apply-duration"),
    alias("experimental-warning-unary-request-duration", Kind::Duration, "300ms", versions(6, 6), "warning-unary-request-duration"),
    alias("experimental-watch-progress-notify-interval", Kind::Duration, "10m", IN_3_4_TO_3_6, "watch-progress-notify-interval"),
    gate("experimental-compact-hash-check-enabled", "false", IN_3_5_AND_3_6, "CompactHashCheck"),
    gate("experimental-enable-lease-checkpoint", "false", IN_3_4_TO_3_6, "LeaseCheckpoint"),
    gate("experimental-enable-lease-checkpoint-persist", "false", IN_3_4_TO_3_6, "LeaseCheckpointPersist"),
    gate("experimental-initial-corrupt-check", "false", IN_3_4_TO_3_6, "InitialCorruptCheck"),
    gate("experimental-stop-grpc-service-on-defrag", "false", IN_3_5_AND_3_6, "StopGRPCServiceOnDefrag"),
    gate("experimental-txn-mode-write-with-shared-buffer", "true", IN_3_5_AND_3_6, "TxnModeWriteWithSharedBuffer"),
];
