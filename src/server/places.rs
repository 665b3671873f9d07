//! Places for connections: everyone who connects takes one, and gives it back.
//!
//! Whoever may come in numbers gets a stock of their own, so that nobody uses up the
//! descriptors that the log and the others need. Who says nothing keeps a place only as
//! long as nobody waits for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::listeners::Role;
use super::options::ConnectionsMax;

/// The stocks. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    clients: Stock,
    metrics: Stock,
    peers: Stock,
}

impl Places {
    pub(super) fn new(most: ConnectionsMax) -> Self {
        let ConnectionsMax { clients, metrics, peers } = most;
        Self {
            clients: Stock::new(clients),
            metrics: Stock::new(metrics),
            peers: Stock::new(peers),
        }
    }

    /// Those of the connections to a listener of this role.
    pub(super) fn of(&self, role: Role) -> &Stock {
        match role {
            Role::Peer => &self.peers,
            Role::Metrics => &self.metrics,
            Role::Client | Role::GrpcOnly | Role::HttpOnly => &self.clients,
        }
    }
}

/// The places of those who share theirs.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    free: Arc<Semaphore>,
    /// How many wait for a place.
    waiting: Arc<watch::Sender<usize>>,
}

impl Stock {
    fn new(places: usize) -> Self {
        let free = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { free, waiting: Arc::new(watch::Sender::new(0)) }
    }

    /// A place, if there is one.
    pub(super) fn try_take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, waiting: Arc::clone(&self.waiting) })
    }

    /// A place, as soon as there is one.
    pub(super) async fn take(&self) -> Option<Place> {
        let _waiting = Waiting::begin(&self.waiting);
        // A stock is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Place { _permit: permit, waiting: Arc::clone(&self.waiting) })
    }
}

/// Someone without a place, counted for as long as this lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    waiting: Arc<watch::Sender<usize>>,
}

impl Place {
    /// Returns when somebody waits for a place like this one.
    pub(super) fn wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut waiting = self.waiting.subscribe();
        async move {
            if waiting.wait_for(|waiting| *waiting > 0).await.is_err() {
                // Whoever might want it is gone.
                std::future::pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MOST: ConnectionsMax = ConnectionsMax { clients: 2, metrics: 1, peers: 1 };

    #[test]
    fn clients_share_their_places_and_others_need_none_of_them() {
        let places = Places::new(MOST);
        let first = places.of(Role::Client).try_take().unwrap();
        let _second = places.of(Role::HttpOnly).try_take().unwrap();
        assert!(places.of(Role::GrpcOnly).try_take().is_none(), "both are taken");
        let _peer = places.of(Role::Peer).try_take().unwrap();
        assert!(places.of(Role::Peer).try_take().is_none(), "members are many, not endless");
        assert!(places.of(Role::Metrics).try_take().is_some());
        drop(first);
        assert!(places.of(Role::GrpcOnly).try_take().is_some());
    }

    #[test]
    fn who_has_a_place_hears_of_those_who_have_none() {
        let places = Places::new(MOST);
        let place = places.of(Role::Peer).try_take().unwrap();
        let mut waiting = Box::pin(places.of(Role::Peer).take());
        assert!(place.wanted().now_or_never().is_none(), "nobody has asked");
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(place.wanted().now_or_never().is_some());
        drop(place);
        let place = waiting.now_or_never().flatten().unwrap();
        assert!(place.wanted().now_or_never().is_none(), "nobody waits any more");
    }
}
