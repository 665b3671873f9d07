//! The paths of every service method, as clients and server are generated.

use std::collections::BTreeSet;

const GENERATED: [&str; 3] = [
    include_str!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs")),
    include_str!(concat!(env!("OUT_DIR"), "/v3lockpb.rs")),
    include_str!(concat!(env!("OUT_DIR"), "/v3electionpb.rs")),
];

const SERVICES: [(&str, &[&str]); 8] = [
    ("etcdserverpb.KV", &["Range", "RangeStream", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", &["Watch"]),
    (
        "etcdserverpb.Lease",
        &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"],
    ),
    (
        "etcdserverpb.Cluster",
        &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
    ),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Observe", "Resign"]),
];

/// The method paths in generated code: those clients call, and those servers match on.
fn called_and_served() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut called, mut served) = (BTreeSet::new(), BTreeSet::new());
    for code in GENERATED {
        let pieces: Vec<&str> = code.split('"').skip(1).collect();
        for pair in pieces.windows(2).filter(|pair| pair[0].starts_with('/')) {
            let arm = pair[1].trim_start().starts_with("=>");
            let paths = if arm { &mut served } else { &mut called };
            assert!(paths.insert(pair[0].to_owned()), "{} appears twice", pair[0]);
        }
    }
    (called, served)
}

#[test]
fn every_method_of_etcd_has_its_path() {
    let expected: BTreeSet<String> = SERVICES
        .iter()
        .flat_map(|(service, methods)| methods.iter().map(move |m| format!("/{service}/{m}")))
        .collect();
    assert_eq!(expected.len(), 49);
    let (called, served) = called_and_served();
    assert_eq!(called, expected);
    assert_eq!(served, expected);
}

#[test]
fn services_go_by_etcds_names() {
    use castd_proto::{etcdserverpb as api, v3electionpb, v3lockpb};
    let names = [
        api::kv_server::SERVICE_NAME,
        api::watch_server::SERVICE_NAME,
        api::lease_server::SERVICE_NAME,
        api::cluster_server::SERVICE_NAME,
        api::maintenance_server::SERVICE_NAME,
        api::auth_server::SERVICE_NAME,
        v3lockpb::lock_server::SERVICE_NAME,
        v3electionpb::election_server::SERVICE_NAME,
    ];
    assert_eq!(names, SERVICES.map(|(name, _)| name));
}
