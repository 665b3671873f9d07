//! The members a new cluster begins with, and whether this member may begin it.
//!
//! Owns: `--initial-cluster`. Never: touches the data directory.

use super::model::{ClusterState, Config};
use super::url::{self, Url};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The members named by `--initial-cluster`, each with its peer URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitialCluster {
    members: BTreeMap<String, Vec<Url>>,
}

impl InitialCluster {
    /// Reads `name=url,name=url,...`; a name may come again for a further URL. More than
    /// one member is refused: clusters of several are not built in yet.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            let url =
                Url::parse(url).map_err(|e| format!("error setting up initial cluster: {e}"))?;
            members.entry(name.to_owned()).or_default().push(url);
        }
        members.values_mut().for_each(|urls| urls.sort());
        if members.len() > 1 {
            return Err(format!(
                "--initial-cluster with {} members is not supported by castd: clusters of \
                 several members are not built in yet",
                members.len()
            ));
        }
        Ok(Self { members })
    }

    /// Each member's name and its peer URLs, sorted.
    pub fn members(&self) -> &BTreeMap<String, Vec<Url>> {
        &self.members
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pair = |(name, urls): (&String, &Vec<Url>)| -> Vec<String> {
            urls.iter().map(|url| format!("{name}={url}")).collect()
        };
        let mut pairs: Vec<String> = self.members.iter().flat_map(pair).collect();
        pairs.sort();
        f.write_str(&pairs.join(","))
    }
}

impl Config {
    /// Whether this member may begin a cluster; to be asked when its data directory
    /// holds no WAL yet. Resolves host names when the URLs' texts differ. The error has
    /// etcd's words and ends the start.
    pub fn check_bootstrap(&self) -> Result<(), String> {
        self.check_bootstrap_with(&resolve)
    }

    pub(crate) fn check_bootstrap_with(
        &self,
        resolve: &dyn Fn(&Url) -> io::Result<SocketAddr>,
    ) -> Result<(), String> {
        let name = &self.name;
        let Some(own) = self.initial_cluster.members.get(name) else {
            return Err(format!(
                "couldn't find local name {} in the initial cluster configuration",
                super::go::quote(name)
            ));
        };
        if self.initial_cluster_state == ClusterState::Existing {
            return Err("--initial-cluster-state existing is not supported by castd: \
                        clusters of several members are not built in yet"
                .to_owned());
        }
        if let Err(reason) = same_urls(&self.advertise_peer_urls, own, resolve) {
            return Err(self.mismatch(own, &reason));
        }
        let distinct: BTreeSet<&Url> = own.iter().collect();
        if distinct.len() < own.len() {
            return Err(format!("initial cluster {} has duplicate url", self.initial_cluster));
        }
        Ok(())
    }

    /// How the advertised URLs and those of the initial cluster differ.
    fn mismatch(&self, own: &[Url], reason: &str) -> String {
        let advertised = url::join(&self.advertise_peer_urls);
        let name = &self.name;
        let named = |urls: &[&Url]| {
            urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
        };
        let all: Vec<&Url> = self.advertise_peer_urls.iter().collect();
        let missing: Vec<&Url> =
            own.iter().filter(|url| !self.advertise_peer_urls.contains(url)).collect();
        if !missing.is_empty() {
            return format!(
                "--initial-cluster has {} but missing from \
                 --initial-advertise-peer-urls={advertised} ({reason})",
                named(&missing)
            );
        }
        let missing: Vec<&str> = self
            .advertise_peer_urls
            .iter()
            .filter(|url| !own.contains(url))
            .map(Url::as_str)
            .collect();
        if !missing.is_empty() {
            return format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
                missing.join(","),
                named(&all)
            );
        }
        format!(
            "failed to resolve {advertised} to match --initial-cluster={} ({reason})",
            named(&all)
        )
    }
}

/// Whether two sorted lists name the same places, by text or else by address.
fn same_urls(
    a: &[Url],
    b: &[Url],
    resolve: &dyn Fn(&Url) -> io::Result<SocketAddr>,
) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("len({}) != len({})", shown(a), shown(b)));
    }
    if a == b {
        return Ok(());
    }
    let place = |url: &Url| -> Result<String, String> {
        if url.scheme().is_unix() || url.host() == "localhost" {
            return Ok(url.to_string());
        }
        let address = resolve(url)
            .map_err(|e| format!("failed to resolve {} ({e})", super::go::quote(url.as_str())))?;
        Ok(format!("{}://{address}", url.scheme().as_str()))
    };
    let places = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut places = urls.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        places.sort();
        Ok(places)
    };
    for (x, y) in places(a)?.iter().zip(places(b)?) {
        if *x != y {
            return Err(format!("resolved urls: {x:?} != {y:?}"));
        }
    }
    Ok(())
}

/// The list as Go prints one with quotes.
fn shown(urls: &[Url]) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| super::go::quote(url.as_str())).collect();
    format!("[{}]", quoted.join(" "))
}

/// The first address of a URL's host.
fn resolve(url: &Url) -> io::Result<SocketAddr> {
    (url.host(), url.port().unwrap_or(0))
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
}
