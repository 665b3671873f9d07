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
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
