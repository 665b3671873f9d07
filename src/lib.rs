//! The node.

pub mod grpc;
pub mod http;
pub mod metrics;
pub mod server;
