//! Where names lead, asked for until it can be told.
//!
//! A name may not be known yet when the member starts: with its container, its record
//! comes. Names are looked up on other threads, so that signals are heard meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Url, has_address};

/// How often and how long names are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Persistence {
    /// The pause after a failure.
    pub(super) pause: Duration,
    /// The time for all names.
    pub(super) total: Duration,
}

impl Default for Persistence {
    /// As etcd does it.
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), total: Duration::from_secs(30) }
    }
}

/// The addresses of hosts, or why they have none.
#[derive(Debug)]
pub(super) struct Addresses(BTreeMap<String, Result<IpAddr, String>>);

impl Addresses {
    /// Looks up the hosts of these URLs, each once, and again where it fails.
    pub(super) async fn find<'a>(urls: impl IntoIterator<Item = &'a Url>) -> Self {
        Self::find_with(urls, Persistence::default(), look_up).await
    }

    async fn find_with<'a, F, L>(
        urls: impl IntoIterator<Item = &'a Url>,
        persistence: Persistence,
        look_up: F,
    ) -> Self
    where
        F: Fn(String) -> L,
        L: Future<Output = io::Result<IpAddr>>,
    {
        let hosts: BTreeSet<&str> =
            urls.into_iter().filter(|url| has_address(url)).map(Url::host).collect();
        let found = hosts.iter().map(|host| find(host, persistence, &look_up));
        let found = join_all(found).await;
        Self(hosts.into_iter().map(str::to_owned).zip(found).collect())
    }

    /// Where a URL leads. The error says why its name leads nowhere.
    pub(super) fn of(&self, url: &Url) -> Result<SocketAddr, String> {
        match self.0.get(url.host()) {
            Some(found) => Ok(SocketAddr::new(found.clone()?, url.port().unwrap_or_default())),
            None => Err("the host was not looked up".to_owned()),
        }
    }
}

/// Asks for one host until its address is known or the time is over.
async fn find<F, L>(host: &str, persistence: Persistence, look_up: &F) -> Result<IpAddr, String>
where
    F: Fn(String) -> L,
    L: Future<Output = io::Result<IpAddr>>,
{
    let Persistence { pause, total } = persistence;
    let deadline = Instant::now() + total;
    let mut reason = "no answer in time".to_owned();
    let asking = async {
        loop {
            match look_up(host.to_owned()).await {
                Ok(address) => return address,
                Err(error) => reason = error.to_string(),
            }
            tracing::warn!(
                { host, "retry-interval" = ?pause, error = reason },
                "failed to resolve URL Host"
            );
            sleep(pause).await;
        }
    };
    match timeout_at(deadline, asking).await {
        Ok(address) => {
            tracing::info!({ host, "resolved-addr" = %address }, "resolved URL Host");
            Ok(address)
        }
        Err(_) => {
            tracing::warn!({ host, error = reason }, "failed to resolve URL Host; returning");
            Err(reason)
        }
    }
}

/// The first address of a host.
async fn look_up(host: String) -> io::Result<IpAddr> {
    let mut found = tokio::net::lookup_host((host, 0)).await?;
    let first = found.next().map(|address| address.ip());
    first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const OFTEN: Persistence =
        Persistence { pause: Duration::from_millis(1), total: Duration::from_secs(60) };

    fn urls(list: &str) -> Vec<Url> {
        Url::parse_list(list).unwrap()
    }

    #[tokio::test]
    async fn a_name_is_asked_for_until_it_is_known_and_then_no_more() {
        let asked = RefCell::new(Vec::new());
        let look_up = async |host: String| {
            asked.borrow_mut().push(host.clone());
            let times = asked.borrow().iter().filter(|other| **other == host).count();
            match host.as_str() {
                "late" if times < 3 => Err(io::Error::other("no such host")),
                _ => Ok([10, 0, 0, 1].into()),
            }
        };
        let urls = urls("http://late:1,http://late:2,http://soon:3,http://localhost:4");
        let found = Addresses::find_with(&urls, OFTEN, look_up).await;
        let ports: Vec<Option<u16>> =
            urls.iter().map(|url| Some(found.of(url).ok()?.port())).collect();
        // They are sorted, and localhost is never asked for.
        assert_eq!(ports, [Some(1), Some(2), None, Some(3)]);
        assert_eq!(asked.into_inner(), ["late", "soon", "late", "late"]);
    }

    #[tokio::test]
    async fn who_stays_unknown_is_given_up_with_the_last_reason() {
        let urls = urls("http://never:1");
        let hurry = Persistence { total: Duration::from_millis(20), ..OFTEN };
        let unknown = async |_| Err(io::Error::other("no such host"));
        let found = Addresses::find_with(&urls, hurry, unknown).await;
        assert_eq!(found.of(&urls[0]), Err("no such host".to_owned()));
        let silent = async |_| std::future::pending().await;
        let found = Addresses::find_with(&urls, hurry, silent).await;
        assert_eq!(found.of(&urls[0]), Err("no answer in time".to_owned()));
    }

    #[tokio::test]
    async fn addresses_need_no_name_server() {
        let urls = urls("http://127.0.0.1:1,http://[::1]:2");
        let found = Addresses::find(&urls).await;
        assert_eq!(found.of(&urls[0]), Ok(([127, 0, 0, 1], 1).into()));
        assert_eq!(found.of(&urls[1]), Ok((std::net::Ipv6Addr::LOCALHOST, 2).into()));
    }
}
