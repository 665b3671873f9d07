//! The members of a new cluster, from DNS SRV records.

use std::net::SocketAddr;

use hickory_resolver::Resolver;
use hickory_resolver::proto::rr::RData;

use crate::config::{Config, InitialCluster, Url, quote};

/// A place that a record names, and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    address: Option<SocketAddr>,
}

/// Asks for `_etcd-server-ssl` and `_etcd-server` of the domain and puts what is found
/// together.
///
/// # Errors
/// When nothing is found or this member is not in it, in etcd's words.
pub(super) async fn cluster(
    config: &Config,
    domain: &str,
    suffix: &str,
) -> Result<InitialCluster, String> {
    let own = own_places(&config.advertise_peer_urls).await?;
    let mut parts = Vec::new();
    let mut errors = Vec::new();
    for (service, scheme) in [("etcd-server-ssl", "https"), ("etcd-server", "http")] {
        let service = format!("{service}{suffix}");
        let found = match look_up(&service, domain).await {
            Ok(places) => named(&places, &own, &config.name, scheme, &service),
            Err(error) => Err(error),
        };
        tracing::info!(service, domain, ?found, "get cluster for SRV");
        match found {
            Ok(found) => parts.extend(found),
            Err(error) => {
                errors.push(format!("error querying DNS SRV records for _{service} {error}"));
            }
        }
    }
    if parts.is_empty() {
        return Err(format!("error setting up initial cluster: {}", errors.join("\n")));
    }
    let cluster = InitialCluster::parse(&parts.join(","))?;
    if !cluster.members().contains_key(&config.name) {
        return Err(format!(
            "error setting up initial cluster: cannot find local etcd member {} in SRV records",
            quote(&config.name)
        ));
    }
    Ok(cluster)
}

/// The addresses at which this member is reached.
async fn own_places(urls: &[Url]) -> Result<Vec<(SocketAddr, Url)>, String> {
    let mut places = Vec::new();
    for url in urls {
        let found = tokio::net::lookup_host(url.authority()).await;
        let mut addresses = found.map_err(|error| {
            format!("error setting up initial cluster: failed to resolve {url}: {error}")
        })?;
        places.extend(addresses.next().map(|address| (address, url.clone())));
    }
    Ok(places)
}

async fn look_up(service: &str, domain: &str) -> Result<Vec<Place>, String> {
    let resolver = Resolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|error| error.to_string())?;
    let name = format!("_{service}._tcp.{}.", domain.trim_end_matches('.'));
    let answer = resolver.srv_lookup(name.as_str()).await.map_err(|error| {
        match error.is_no_records_found() {
            true => format!("lookup {}: no such host", name.trim_end_matches('.')),
            false => format!("lookup {}: {error}", name.trim_end_matches('.')),
        }
    })?;
    let mut records: Vec<(u16, String, u16)> = Vec::new();
    for record in answer.answers() {
        if let RData::SRV(srv) = &record.data {
            records.push((srv.priority, srv.target.to_utf8(), srv.port));
        }
    }
    records.sort();
    let mut places = Vec::new();
    for (_, target, port) in records {
        let host = target.trim_end_matches('.').to_owned();
        let address = tokio::net::lookup_host((host.as_str(), port)).await.ok();
        places.push(Place { address: address.and_then(|mut all| all.next()), host, port });
    }
    Ok(places)
}

/// A name for each place: this member's own where it is reached, numbers for the others.
/// Places without an address are left out.
fn named(
    places: &[Place],
    own: &[(SocketAddr, Url)],
    name: &str,
    scheme: &str,
    service: &str,
) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut problem = "no record leads anywhere".to_owned();
    let mut number = 0;
    for Place { host, port, address } in places {
        let Some(address) = address else {
            problem = format!("{host} has no address");
            continue;
        };
        let url = format!("{scheme}://{host}:{port}");
        match own.iter().find(|(ours, _)| ours == address) {
            Some((_, ours)) if ours.scheme().as_str() != scheme => {
                problem = format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with \
                     expected peer {ours}"
                );
            }
            Some(_) => parts.push(format!("{name}={url}")),
            None => {
                parts.push(format!("{number}={url}"));
                number += 1;
            }
        }
    }
    if parts.is_empty() { Err(problem) } else { Ok(parts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, last: u8) -> Place {
        Place { host: host.to_owned(), port: 2380, address: Some(([10, 0, 0, last], 2380).into()) }
    }

    fn own(url: &str, last: u8) -> Vec<(SocketAddr, Url)> {
        vec![(([10, 0, 0, last], 2380).into(), Url::parse(url).unwrap())]
    }

    #[test]
    fn a_member_finds_itself_by_its_address_and_numbers_the_others() {
        let lost = Place { address: None, ..place("gone", 9) };
        let places = [place("a.example", 1), lost, place("b.example", 2), place("c.example", 3)];
        let own = own("http://elsewhere:2380", 2);
        assert_eq!(
            named(&places, &own, "me", "http", "etcd-server").unwrap(),
            ["0=http://a.example:2380", "me=http://b.example:2380", "1=http://c.example:2380"]
        );
    }

    #[test]
    fn the_scheme_must_be_the_advertised_one() {
        let places = [place("b.example", 2)];
        assert_eq!(
            named(&places, &own("http://me:2380", 2), "me", "https", "etcd-server-ssl")
                .unwrap_err(),
            "bootstrap at https://b.example:2380 from DNS for etcd-server-ssl has scheme mismatch \
             with expected peer http://me:2380"
        );
    }

    #[test]
    fn nothing_found_is_an_error() {
        let lost = Place { address: None, ..place("gone", 9) };
        let own = own("http://me:2380", 2);
        assert_eq!(named(&[lost], &own, "me", "http", "s").unwrap_err(), "gone has no address");
        assert!(named(&[], &own, "me", "http", "s").is_err());
    }
}
