//! castd, the member: everything between the network and the company of actors.
//!
//! | room | what |
//! |---|---|
//! | [`config`] | flags, environment, configuration file |
//! | [`logging`] | log lines as etcd writes them |
//! | [`node`] | start, service, stop; the data directory |
//! | [`server`] | listeners and connections |
//! | [`grpc`] | etcd's services over the company's door |
//! | [`http`] | health, version, metrics |
//! | [`metrics`] | the figures, under etcd's names |

pub mod config;
pub mod grpc;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod server;
