//! The members a new cluster begins with, and whether this member may begin it.
//!
//! Owns: `--initial-cluster`. Never: touches the data directory.

use super::model::{Config, Discovery};
use super::url::{self, Url};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// The members named by `--initial-cluster`, each with its peer URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitialCluster {
    members: BTreeMap<String, Vec<Url>>,
}

impl InitialCluster {
    /// Reads `name=url,name=url,...`; a name may come again for a further URL.
    ///
    /// # Errors
    /// What is wrong with a URL, in etcd's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            let url =
                Url::parse(url).map_err(|e| format!("error setting up initial cluster: {e}"))?;
            members.entry(name.to_owned()).or_default().push(url);
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Self { members })
    }

    /// A single member.
    pub fn of_one(name: &str, urls: &[Url]) -> Self {
        let mut urls = urls.to_vec();
        urls.sort();
        Self { members: [(name.to_owned(), urls)].into() }
    }

    /// A URL belongs to one member, and is named once.
    pub fn check_distinct(&self, what: &str) -> Result<(), String> {
        let all = || self.members.values().flatten();
        let distinct: BTreeSet<&Url> = all().collect();
        if distinct.len() < all().count() {
            return Err(format!("{what} {self} has duplicate url"));
        }
        Ok(())
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
    /// The URLs whose addresses [`Self::check_bootstrap`] asks for: none when their texts
    /// say enough.
    pub(crate) fn bootstrap_urls(&self) -> Vec<&Url> {
        match self.own_urls() {
            Ok(own) if own != self.advertise_peer_urls => {
                own.iter().chain(&self.advertise_peer_urls).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether this member may begin a cluster; to be asked when its data directory
    /// holds no WAL yet. `address` tells where the [`Self::bootstrap_urls`] lead. The
    /// error has etcd's words and ends the start.
    pub(crate) fn check_bootstrap(&self, address: &AddressOf<'_>) -> Result<(), String> {
        let own = self.own_urls()?;
        if let Err(reason) = same_urls(&self.advertise_peer_urls, own, address) {
            return Err(self.mismatch(own, &reason));
        }
        self.initial_cluster.check_distinct("initial cluster")
    }

    /// Whether this member may join a cluster; as [`Self::check_bootstrap`]. Its own URLs
    /// need not be those it advertises: the cluster knows them since it was added.
    pub fn check_join(&self) -> Result<(), String> {
        self.own_urls()?;
        self.initial_cluster.check_distinct("initial cluster")?;
        if matches!(self.discovery, Discovery::V3(_)) {
            let text = "discovery URL should not be set when joining existing initial cluster";
            return Err(text.to_owned());
        }
        Ok(())
    }

    /// This member's URLs in the initial cluster.
    fn own_urls(&self) -> Result<&[Url], String> {
        let own = self.initial_cluster.members.get(&self.name).map(Vec::as_slice);
        own.ok_or_else(|| {
            format!(
                "couldn't find local name {} in the initial cluster configuration",
                super::go::quote(&self.name)
            )
        })
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

/// Tells where a URL leads, or why it leads nowhere.
pub(crate) type AddressOf<'a> = dyn Fn(&Url) -> Result<SocketAddr, String> + 'a;

/// Whether a URL's address is asked for: `localhost` is the same everywhere.
pub(crate) fn has_address(url: &Url) -> bool {
    !url.scheme().is_unix() && url.host() != "localhost"
}

/// Whether two sorted lists name the same places, by text or else by address; the error
/// says where they differ, in etcd's words.
pub(crate) fn same_urls(a: &[Url], b: &[Url], address: &AddressOf<'_>) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("len({}) != len({})", shown(a), shown(b)));
    }
    if a == b {
        return Ok(());
    }
    let place = |url: &Url| -> Result<String, String> {
        if !has_address(url) {
            return Ok(url.to_string());
        }
        let address = address(url)
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
