//! Mailboxes: the bounded edges between actors.
//!
//! An edge has an [`Inlet`] for its senders and an [`Outlet`] for the actor.
//! An actix actor takes its outlet as a stream of batches (everything that
//! waited while it was busy comes as one `Vec`), an actor with an OS thread of
//! its own takes a [`ThreadOutlet`]. A full edge refuses or makes the sender
//! wait; none of them grows. What is admitted to the company at all is decided
//! by [`Credits`] at its door, so that edges inside can be sized never to fill.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossbeam_channel as crossbeam;
use futures::Stream;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The most messages that one batch takes from a mailbox.
const BATCH_MAX: usize = 512;

/// Why a message was not taken. It is given back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<M> {
    /// The mailbox is full.
    Full(M),
    /// The actor has ended.
    Closed(M),
}

impl<M> Refused<M> {
    /// The same refusal of something else.
    pub fn map<N>(self, change: impl FnOnce(M) -> N) -> Refused<N> {
        match self {
            Self::Full(message) => Refused::Full(change(message)),
            Self::Closed(message) => Refused::Closed(change(message)),
        }
    }
}

/// What is known of one mailbox, for metrics and for the operator.
#[derive(Debug)]
pub struct MailboxStats {
    /// The edge's name, `sender_receiver` or the receiver's.
    pub name: String,
    /// How many messages it holds at most.
    pub capacity: usize,
    sent: AtomicU64,
    taken: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
    busy_ns: AtomicU64,
}

impl MailboxStats {
    fn new(name: String, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            capacity,
            sent: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
        })
    }

    /// Messages that wait now.
    pub fn depth(&self) -> u64 {
        // The counters are read one after the other, so a busy edge may look
        // as if more were taken than sent.
        self.sent.load(Relaxed).saturating_sub(self.taken.load(Relaxed))
    }

    /// Messages taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Batches taken so far.
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// Messages refused so far because the mailbox was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Time the actor has spent on what it took.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Relaxed))
    }

    /// Adds the time since `started` to the actor's service time.
    pub fn served(&self, started: Instant) {
        let ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(ns, Relaxed);
    }

    fn took(&self, messages: usize) {
        self.taken.fetch_add(messages as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
    }
}

/// Makes mailboxes and remembers them, so that every edge can be seen.
#[derive(Clone, Debug, Default)]
pub struct Switchboard(Arc<RwLock<Vec<Arc<MailboxStats>>>>);

impl Switchboard {
    /// A mailbox for an actix actor.
    pub fn mailbox<M>(&self, name: impl Into<String>, capacity: usize) -> (Inlet<M>, Outlet<M>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let stats = self.watch(name.into(), capacity);
        (Inlet { sender, stats: Arc::clone(&stats) }, Outlet { receiver, stats })
    }

    /// A mailbox for an actor on an OS thread of its own.
    pub fn thread_mailbox<M>(
        &self,
        name: impl Into<String>,
        capacity: usize,
    ) -> (ThreadInlet<M>, ThreadOutlet<M>) {
        let (sender, receiver) = crossbeam::bounded(capacity);
        let stats = self.watch(name.into(), capacity);
        (ThreadInlet { sender, stats: Arc::clone(&stats) }, ThreadOutlet { receiver, stats })
    }

    /// Every mailbox made so far.
    pub fn all(&self) -> Vec<Arc<MailboxStats>> {
        self.0.read().clone()
    }

    fn watch(&self, name: String, capacity: usize) -> Arc<MailboxStats> {
        let stats = MailboxStats::new(name, capacity);
        self.0.write().push(Arc::clone(&stats));
        stats
    }
}

/// The sending end of an actix actor's mailbox.
#[derive(Debug)]
pub struct Inlet<M> {
    sender: mpsc::Sender<M>,
    stats: Arc<MailboxStats>,
}

impl<M> Clone for Inlet<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<M> Inlet<M> {
    /// Whether both lead to the same mailbox.
    pub fn is_same(&self, other: &Self) -> bool {
        self.sender.same_channel(&other.sender)
    }

    /// How many more messages it takes now.
    pub fn room(&self) -> usize {
        self.sender.capacity()
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// [`Refused`] with the message when the mailbox is full or closed.
    pub fn try_send(&self, message: M) -> Result<(), Refused<M>> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(message)) => {
                self.stats.refused.fetch_add(1, Relaxed);
                Err(Refused::Full(message))
            }
            Err(mpsc::error::TrySendError::Closed(message)) => Err(Refused::Closed(message)),
        }
    }

    /// Sends from a thread that is not an actix one, waiting for room. When the
    /// actor has ended, so has the process or it is about to: the message is
    /// dropped.
    pub fn send_blocking(&self, message: M) {
        if self.sender.blocking_send(message).is_ok() {
            self.stats.sent.fetch_add(1, Relaxed);
        }
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    /// [`Refused::Closed`] with the message when the actor has ended.
    pub async fn send(&self, message: M) -> Result<(), Refused<M>> {
        match self.sender.send(message).await {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(mpsc::error::SendError(message)) => Err(Refused::Closed(message)),
        }
    }
}

/// The receiving end of an actix actor's mailbox: a stream of batches.
#[derive(Debug)]
pub struct Outlet<M> {
    receiver: mpsc::Receiver<M>,
    stats: Arc<MailboxStats>,
}

impl<M> Outlet<M> {
    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// What waits, as one batch, for who gives an actor its turns without actix;
    /// `None` when nothing does.
    pub fn take_waiting(&mut self) -> Option<Vec<M>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX
            && let Ok(message) = self.receiver.try_recv()
        {
            batch.push(message);
        }
        if batch.is_empty() {
            return None;
        }
        self.stats.took(batch.len());
        Some(batch)
    }

    /// The mailbox's figures.
    pub fn stats(&self) -> Arc<MailboxStats> {
        Arc::clone(&self.stats)
    }
}

impl<M> Stream for Outlet<M> {
    type Item = Vec<M>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<M>>> {
        let mut batch = Vec::new();
        match self.receiver.poll_recv_many(context, &mut batch, BATCH_MAX) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(0) => Poll::Ready(None),
            Poll::Ready(taken) => {
                self.stats.took(taken);
                Poll::Ready(Some(batch))
            }
        }
    }
}

/// The sending end of a thread actor's mailbox.
#[derive(Debug)]
pub struct ThreadInlet<M> {
    sender: crossbeam::Sender<M>,
    stats: Arc<MailboxStats>,
}

impl<M> Clone for ThreadInlet<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<M> ThreadInlet<M> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// [`Refused`] with the message when the mailbox is full or closed.
    pub fn try_send(&self, message: M) -> Result<(), Refused<M>> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(crossbeam::TrySendError::Full(message)) => {
                self.stats.refused.fetch_add(1, Relaxed);
                Err(Refused::Full(message))
            }
            Err(crossbeam::TrySendError::Disconnected(message)) => Err(Refused::Closed(message)),
        }
    }
}

impl<M> ThreadInlet<M> {
    /// Sends from a thread that is not an actix one, waiting for room; dropped
    /// when the actor has ended.
    pub fn send_blocking(&self, message: M) {
        if self.sender.send(message).is_ok() {
            self.stats.sent.fetch_add(1, Relaxed);
        }
    }
}

/// The receiving end of a thread actor's mailbox.
#[derive(Debug)]
pub struct ThreadOutlet<M> {
    receiver: crossbeam::Receiver<M>,
    stats: Arc<MailboxStats>,
}

impl<M> ThreadOutlet<M> {
    /// Waits for a message; `None` when every inlet is gone.
    pub fn take(&self) -> Option<M> {
        let message = self.receiver.recv().ok()?;
        self.stats.took(1);
        Some(message)
    }

    /// A message that waits, if there is one.
    pub fn take_waiting(&self) -> Option<M> {
        let message = self.receiver.try_recv().ok()?;
        self.stats.took(1);
        Some(message)
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// The mailbox's figures.
    pub fn stats(&self) -> &MailboxStats {
        &self.stats
    }
}

/// What may be inside the company at a time: a number of requests and their
/// bytes. A request takes a [`Permit`] at the door and gives it back when it
/// has been answered, wherever it was by then.
#[derive(Clone, Debug)]
pub struct Credits {
    requests: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// One request's share of the [`Credits`]. Dropping it gives the share back.
#[derive(Debug)]
pub struct Permit {
    _request: OwnedSemaphorePermit,
    _kib: OwnedSemaphorePermit,
}

impl Credits {
    /// Room for `requests` at a time with `bytes` in all.
    pub fn new(requests: usize, bytes: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            kib: Arc::new(Semaphore::new(bytes / 1024)),
        }
    }

    /// A permit for a request of `bytes`, or `None` when there is no room.
    pub fn take(&self, bytes: usize) -> Option<Permit> {
        let kib = u32::try_from(bytes / 1024 + 1).ok()?;
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let kib = Arc::clone(&self.kib).try_acquire_many_owned(kib).ok()?;
        Some(Permit { _request: request, _kib: kib })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn what_waited_comes_as_one_batch() {
        let board = Switchboard::default();
        let (inlet, mut outlet) = board.mailbox("test", 4);
        for n in 0..4 {
            inlet.try_send(n).unwrap();
        }
        assert_eq!(inlet.try_send(4), Err(Refused::Full(4)));
        let batch = futures::executor::block_on(outlet.next());
        assert_eq!(batch, Some(vec![0, 1, 2, 3]));
        let stats = &board.all()[0];
        assert_eq!((stats.depth(), stats.refused(), stats.batches()), (0, 1, 1));
    }

    #[test]
    fn a_mailbox_without_an_actor_is_closed() {
        let (inlet, outlet) = Switchboard::default().mailbox("test", 4);
        drop(outlet);
        assert_eq!(inlet.try_send(1), Err(Refused::Closed(1)));
    }

    #[test]
    fn credits_bound_requests_and_bytes() {
        let credits = Credits::new(2, 8 * 1024);
        let first = credits.take(5000).expect("5 of 8 KiB");
        assert!(credits.take(5000).is_none(), "8 KiB would be exceeded");
        let second = credits.take(10).expect("one more request fits");
        assert!(credits.take(10).is_none(), "two requests are inside");
        drop((first, second));
        assert!(credits.take(7000).is_some());
    }
}
