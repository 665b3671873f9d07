//! What the shells wait for, without a runtime.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use castd_actors::shared::Waiting;

/// Set when a future wants to be looked at again.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Futures that are looked at in their order when one of them was woken.
pub(crate) struct Futures<T> {
    list: Vec<Pin<Box<dyn Future<Output = T>>>>,
    woken: Arc<Flag>,
    waker: Waker,
}

impl<T> Default for Futures<T> {
    fn default() -> Self {
        let woken = Arc::new(Flag::default());
        Self { list: Vec::new(), waker: Arc::clone(&woken).into(), woken }
    }
}

impl<T> Futures<T> {
    /// Adds a future, which is looked at with the next [`Self::poll`].
    pub(crate) fn push(&mut self, future: impl Future<Output = T> + 'static) {
        self.list.push(Box::pin(future));
        self.woken.0.store(true, Relaxed);
    }

    /// Whether there is reason to look.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Relaxed)
    }

    /// What has come to its end.
    pub(crate) fn poll(&mut self) -> Vec<T> {
        let mut done = Vec::new();
        if !self.woken.0.swap(false, Relaxed) {
            return done;
        }
        let mut context = Context::from_waker(&self.waker);
        self.list.retain_mut(|future| match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => {
                done.push(value);
                false
            }
            Poll::Pending => true,
        });
        done
    }
}

type Then<A> = Box<dyn FnOnce(&mut A, &mut Waits<A>)>;

/// What one shell waits for.
pub(crate) struct Waits<A> {
    futures: Futures<Then<A>>,
    pauses: BTreeMap<u64, Then<A>>,
    begun: Vec<(u64, Duration)>,
    next: u64,
}

impl<A> Default for Waits<A> {
    fn default() -> Self {
        Self { futures: Futures::default(), pauses: BTreeMap::new(), begun: Vec::new(), next: 0 }
    }
}

impl<A: 'static> Waiting<A> for Waits<A> {
    fn when<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut A, &mut Self, T) + 'static,
    ) {
        self.futures.push(async move {
            let value = future.await;
            Box::new(move |actor: &mut A, waits: &mut Self| then(actor, waits, value)) as Then<A>
        });
    }

    fn after(&mut self, pause: Duration, then: impl FnOnce(&mut A, &mut Self) + 'static) {
        self.next += 1;
        self.pauses.insert(self.next, Box::new(then));
        self.begun.push((self.next, pause));
    }
}

impl<A> Waits<A> {
    /// Whether there is reason to look.
    pub(crate) fn is_woken(&self) -> bool {
        self.futures.is_woken()
    }

    /// Calls the actor back for all that has come.
    pub(crate) fn poll(&mut self, actor: &mut A) {
        while self.is_woken() {
            for then in self.futures.poll() {
                then(actor, self);
            }
        }
    }

    /// A pause is over.
    pub(crate) fn over(&mut self, pause: u64, actor: &mut A) {
        if let Some(then) = self.pauses.remove(&pause) {
            then(actor, self);
        }
    }

    /// The pauses that have begun since this was last asked.
    pub(crate) fn take_begun(&mut self) -> Vec<(u64, Duration)> {
        std::mem::take(&mut self.begun)
    }
}
