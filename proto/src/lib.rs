//! castd's wire types: etcd's v3 API, as etcd 3.7 speaks it, and what castd writes to its log.
//!
//! One module per protobuf package, side by side, because generated code names its
//! neighbours so. Every `bytes` field is a [`bytes::Bytes`]: decoding a request shares
//! the receive buffer instead of copying keys and values out of it.
//!
//! | module | holds |
//! |---|---|
//! | [`etcdserverpb`] | the services KV, Watch, Lease, Cluster, Maintenance, Auth |
//! | [`mvccpb`] | key-value pairs and their events |
//! | [`authpb`] | users, roles, permissions |
//! | [`v3lockpb`], [`v3electionpb`] | the services Lock and Election |
//! | [`castdpb`] | the raft log entry's payload, and what members say to each other |
//!
//! For a service `X`, `x_server` holds the trait to implement and the server around it,
//! `x_client` the client. A `oneof f` of message `M` is the enum `m::F`.
//!
//! Owns: the wire form. Never does: validation, defaults, or anything else with a meaning.

/// etcd's client API: the services KV, Watch, Lease, Cluster, Maintenance, Auth.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[allow(clippy::needless_pass_by_value, clippy::redundant_clone)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Key-value pairs and the events that change them.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles, and permissions.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The lock service.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// What castd writes to its raft log, and what members say to each other.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[allow(clippy::needless_pass_by_value, clippy::redundant_clone)]
pub mod castdpb {
    tonic::include_proto!("castdpb");
}
