//! Places for connections: everyone who connects takes one, and gives it back.
//!
//! Whoever may come in numbers gets a stock of their own, so that nobody uses up the
//! descriptors that the log and the other members need.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listeners::Role;

/// Connections to the metrics listeners: a few scrapers and health checks, who are to
/// get through when clients have taken all of theirs.
const METRICS_CONNECTIONS_MAX: usize = 32;

/// The stocks. Cheap to clone; all clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places {
    clients: Arc<Semaphore>,
    metrics: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(clients: usize) -> Self {
        let stock = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { clients: stock(clients), metrics: stock(METRICS_CONNECTIONS_MAX) }
    }

    /// A place for a connection to a listener of this role, as soon as there is one;
    /// `None` for other members, who need none.
    pub(super) async fn take(&self, role: Role) -> Option<OwnedSemaphorePermit> {
        let stock = match role {
            Role::Peer => return None,
            Role::Metrics => &self.metrics,
            Role::Client | Role::GrpcOnly | Role::HttpOnly => &self.clients,
        };
        if let Ok(place) = Arc::clone(stock).try_acquire_owned() {
            return Some(place);
        }
        tracing::warn!(?role, "as many connections as there may be: the next waits for one to end");
        // A stock is never closed.
        Arc::clone(stock).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn clients_share_their_places_and_others_need_none_of_them() {
        let places = Places::new(2);
        let first = places.take(Role::Client).now_or_never().flatten().unwrap();
        let _second = places.take(Role::HttpOnly).now_or_never().flatten().unwrap();
        assert!(places.take(Role::GrpcOnly).now_or_never().is_none(), "both are taken");
        assert!(places.take(Role::Peer).now_or_never().unwrap().is_none(), "members need none");
        assert!(places.take(Role::Metrics).now_or_never().flatten().is_some());
        drop(first);
        assert!(places.take(Role::GrpcOnly).now_or_never().flatten().is_some());
    }
}
