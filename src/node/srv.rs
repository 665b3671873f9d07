//! The members of a new cluster, from DNS SRV records.

use std::io;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;

use crate::config::{Config, InitialCluster, Url, quote};

/// What the system's functions say of a name that is nobody's, glibc's and musl's.
const NOBODY: [&str; 3] = ["not known", "No address associated", "does not resolve"];

/// A place that a record names, and its address or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    address: Result<SocketAddr, String>,
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
    let mut parts = Vec::new();
    let mut errors = Vec::new();
    for (service, scheme) in [("etcd-server-ssl", "https"), ("etcd-server", "http")] {
        let service = format!("{service}{suffix}");
        let found = members(config, &service, scheme, domain).await;
        tracing::info!(service, domain, ?found, "get cluster for SRV");
        match found {
            Ok(found) => parts.extend(found),
            Err(error) => errors.push(error),
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

/// The members that one service names.
async fn members(
    config: &Config,
    service: &str,
    scheme: &str,
    domain: &str,
) -> Result<Vec<String>, String> {
    let names = Names::of_the_system().map_err(|error| error.to_string())?;
    let own = names.own_places(&config.advertise_peer_urls).await?;
    let found = names.places(service, domain).await;
    let found = found.and_then(|places| named(&places, &own, &config.name, scheme, service));
    found.map_err(|error| format!("error querying DNS SRV records for _{service} {error}"))
}

/// Who is asked for names.
struct Names {
    resolver: TokioResolver,
    /// The first of the servers, for errors: where there are several, another may
    /// have answered.
    server: String,
}

impl Names {
    fn of_the_system() -> Result<Self, NetError> {
        let (config, options) = read_system_conf()?;
        let first = config.name_servers().first();
        let server = first.map_or_else(String::new, |server| match server.connections.first() {
            Some(connection) => SocketAddr::new(server.ip, connection.port).to_string(),
            None => server.ip.to_string(),
        });
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Ok(Self { resolver: builder.with_options(options).build()?, server })
    }

    /// The addresses at which this member is reached.
    async fn own_places(&self, urls: &[Url]) -> Result<Vec<(SocketAddr, Url)>, String> {
        let mut places = Vec::new();
        for url in urls {
            let address = first_address(url.host(), url.port().unwrap_or(0)).await;
            let address = address.map_err(|error| self.failure(url.host(), &error))?;
            places.push((address, url.clone()));
        }
        Ok(places)
    }

    /// What a service's records name. A domain that does not end in a dot is also
    /// looked for in the system's search domains.
    async fn places(&self, service: &str, domain: &str) -> Result<Vec<Place>, String> {
        let name = format!("_{service}._tcp.{domain}");
        let answer = self.resolver.srv_lookup(name.as_str()).await;
        let answer = answer.map_err(|error| match error.is_no_records_found() {
            true => self.nobody(&name),
            false => format!("lookup {name} on {}: {error}", self.server),
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
            let address = self.address(&host, port).await;
            places.push(Place { host, port, address });
        }
        Ok(places)
    }

    /// The address of a record's target, which is absolute; a hosts file knows it
    /// without the dot that says so.
    async fn address(&self, host: &str, port: u16) -> Result<SocketAddr, String> {
        let absolute = format!("{host}.");
        match first_address(&absolute, port).await {
            Ok(address) => Ok(address),
            Err(error) => {
                first_address(host, port).await.map_err(|_| self.failure(&absolute, &error))
            }
        }
    }

    fn failure(&self, host: &str, error: &io::Error) -> String {
        let text = error.to_string();
        match NOBODY.iter().any(|nobody| text.contains(nobody)) {
            true => self.nobody(host),
            false => format!("lookup {host} on {}: {text}", self.server),
        }
    }

    fn nobody(&self, name: &str) -> String {
        format!("lookup {name} on {}: no such host", self.server)
    }
}

/// A host's first address, of IPv4 if it has one, as etcd compares them.
async fn first_address(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    found.sort_by_key(SocketAddr::is_ipv6); // stable
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "no address");
    found.into_iter().next().ok_or_else(nothing)
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
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                problem.clone_from(error);
                continue;
            }
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
        Place { host: host.to_owned(), port: 2380, address: Ok(([10, 0, 0, last], 2380).into()) }
    }

    fn own(url: &str, last: u8) -> Vec<(SocketAddr, Url)> {
        vec![(([10, 0, 0, last], 2380).into(), Url::parse(url).unwrap())]
    }

    #[test]
    fn a_member_finds_itself_by_its_address_and_numbers_the_others() {
        let lost = Place { address: Err("gone is lost".to_owned()), ..place("gone", 9) };
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
        let lost = Place { address: Err("gone is lost".to_owned()), ..place("gone", 9) };
        let own = own("http://me:2380", 2);
        assert_eq!(named(&[lost], &own, "me", "http", "s").unwrap_err(), "gone is lost");
        assert!(named(&[], &own, "me", "http", "s").is_err());
    }
}
