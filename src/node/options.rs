//! From the configuration to what the company and the faces are told.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

use rustix::io::Errno;

use crate::config::{Config, ETCD_VERSION, MetricsDetail, Url};
use crate::grpc::FaceOptions;
use crate::server::{Endpoint, ServerOptions};

/// What the network faces are told.
///
/// # Errors
/// When a host in a URL has no address.
pub(super) fn server_options(config: &Config) -> Result<ServerOptions, String> {
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let interval = config.keepalive.interval;
    Ok(ServerOptions {
        faces: FaceOptions {
            version: ETCD_VERSION.to_owned(),
            max_request_bytes: bytes(config.max_request_bytes),
            max_txn_ops: bytes(config.max_txn_ops),
            quota_backend_bytes: quota(config.quota_backend_bytes),
            election_timeout: config.election_timeout(),
            slow_request: config.warning_unary_request_duration,
            extensive_metrics: config.metrics == MetricsDetail::Extensive,
        },
        client: endpoints(&config.listen.client_urls)?,
        client_http: endpoints(&config.listen.client_http_urls)?,
        metrics: endpoints(&config.listen.metrics_urls)?,
        peer: endpoints(&config.listen.peer_urls)?,
        reuse_port: config.listen.reuse_port,
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_interval: (!interval.is_zero()).then_some(interval),
        keepalive_timeout: config.keepalive.timeout,
        ..ServerOptions::default()
    })
}

/// The faces count as etcd's flag does: negative for no limit.
fn quota(bytes: Option<u64>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn endpoints(urls: &[Url]) -> Result<Vec<Endpoint>, String> {
    let mut all = Vec::new();
    for url in urls {
        match url.socket_path() {
            Some(path) => all.push(Endpoint::Unix(path)),
            None => all.extend(tcp(url)?),
        }
    }
    Ok(all)
}

/// Every address of the host that this machine has: `localhost` may be one of each family,
/// and some containers know the name of one that they do not have.
fn tcp(url: &Url) -> Result<Vec<Endpoint>, String> {
    let port = url.port().unwrap_or_default();
    let failed = |why: &str| format!("cannot listen at {}: {why}", url.as_str());
    let addresses =
        (url.host(), port).to_socket_addrs().map_err(|error| failed(&error.to_string()))?;
    let mut addresses: Vec<_> = addresses.collect();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed("the host has no address"));
    }
    Ok(those_here(addresses).into_iter().map(Endpoint::Tcp).collect())
}

/// Those of the addresses that this machine has; all of them if it has none, so that who
/// listens there is told why not.
fn those_here(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.iter().any(is_here) {
        addresses.retain(is_here);
    }
    addresses
}

fn is_here(address: &SocketAddr) -> bool {
    let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
    match UdpSocket::bind((address.ip(), 0)) {
        Ok(_) => true,
        Err(error) => {
            !absent.iter().any(|absent| error.raw_os_error() == Some(absent.raw_os_error()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_name_that_this_machine_has_not_are_left_out() {
        let here: SocketAddr = "127.0.0.1:2380".parse().unwrap();
        // Set aside for documentation: nobody has them.
        let elsewhere: SocketAddr = "192.0.2.1:2380".parse().unwrap();
        assert_eq!(those_here(vec![elsewhere, here]), [here]);
        assert_eq!(those_here(vec![elsewhere]), [elsewhere], "an error must name it");
    }
}
