//! Compiles the .proto files with no system protoc.

use std::error::Error;

const FILES: [&str; 10] = [
    "castd/internal.proto",
    "castd/peer.proto",
    "etcd/auth.proto",
    "etcd/cluster.proto",
    "etcd/kv.proto",
    "etcd/lease.proto",
    "etcd/maintenance.proto",
    "etcd/v3electionpb.proto",
    "etcd/v3lockpb.proto",
    "etcd/watch.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=castd");
    println!("cargo:rerun-if-changed=etcd");
    println!("cargo:rerun-if-changed=raft-proto/proto");
    let descriptors = protox::compile(FILES, [".", "raft-proto/proto"])?;
    // Members send raft's own messages: an entry's data goes from the log into the frame in
    // one copy, and out of the received one in none.
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".eraftpb", "::raft_proto::eraftpb")
        .compile_fds(descriptors)?;
    Ok(())
}
