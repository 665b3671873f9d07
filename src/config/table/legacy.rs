//! Names of older releases: what etcd itself ignores, and what went with the v2 API.

use super::{FileKey, Flag, PROXY, SINCE_3_4, Section, Support, V2, Versions, versions};
use crate::config::value::Kind;

const ONLY_3_4: Versions = versions(4, 4);
const TO_3_5: Versions = versions(4, 5);

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    versions: Versions,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Older, name, kind, default, versions, help)
}

const fn proxy(name: &'static str, default: &'static str) -> Flag {
    flag(name, Kind::Uint, default, TO_3_5, "A time of the v2 proxy, in milliseconds.")
        .not_yet(PROXY)
}

const fn ignored(name: &'static str) -> Flag {
    Flag::new(Section::Hidden, name, Kind::Ignored, "", SINCE_3_4, "")
        .support(Support::Ignored)
        .file(FileKey::None)
}

pub(super) const FLAGS: &[Flag] = &[
    flag("enable-v2", Kind::Bool, "false", TO_3_5, "Serve the v2 API.").not_yet(V2),
    flag("experimental-enable-v2v3", Kind::Text, "", TO_3_5, "Serve v2 out of v3 keys.")
        .not_yet(V2),
    flag("proxy", Kind::OneOf(&["off", "readonly", "on"]), "off", TO_3_5, "Be a v2 proxy.")
        .not_yet(PROXY),
    proxy("proxy-failure-wait", "5000"),
    proxy("proxy-refresh-interval", "30000"),
    proxy("proxy-dial-timeout", "1000"),
    proxy("proxy-write-timeout", "5000"),
    proxy("proxy-read-timeout", "0"),
    flag("log-output", Kind::UniqueList, "default", ONLY_3_4, "")
        .support(Support::AliasOf("log-outputs")),
    flag("log-package-levels", Kind::Text, "", ONLY_3_4, "Levels of etcd's Go packages.")
        .not_yet("etcd's Go packages are not those of castd: use --log-level"),
    flag("debug", Kind::Bool, "false", ONLY_3_4, "The same as --log-level=debug."),
    flag(
        "next-cluster-version-compatible",
        Kind::Bool,
        "false",
        ONLY_3_4,
        "Let a 3.4 member join a 3.5 cluster.",
    )
    .not_yet("castd is a 3.7 member"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-election-timeout"),
    ignored("peer-heartbeat-interval"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
    ignored("v"),
    ignored("vv"),
];
