//! The way back to whoever proposed.

use std::fmt;

use tokio::sync::oneshot;

use super::messages::Applied;
use crate::shared::{Error, Inlet, Permit};

/// Who waits for an outcome, with the share of the company's room that the
/// request took.
pub struct Reply {
    sender: oneshot::Sender<Result<Applied, Error>>,
    courier: Option<Courier>,
    _permit: Option<Permit>,
}

impl Reply {
    /// A reply, and the end at which it arrives: by `courier` if there is one.
    pub fn new(
        permit: Option<Permit>,
        courier: Option<Courier>,
    ) -> (Self, oneshot::Receiver<Result<Applied, Error>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, courier, _permit: permit }, receiver)
    }

    /// Answers at once. A client that went away hears nothing: what it asked
    /// for happened all the same.
    pub fn send(self, outcome: Result<Applied, Error>) {
        let _ = self.sender.send(outcome);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Carries answers to one thread, many at a time.
#[derive(Clone, Debug)]
pub struct Courier(Inlet<Vec<Delivery>>);

impl Courier {
    /// A courier to the task behind `inlet`.
    pub fn new(inlet: Inlet<Vec<Delivery>>) -> Self {
        Self(inlet)
    }
}

/// An answer on its way to the thread of whoever waits for it.
#[derive(Debug)]
pub struct Delivery {
    reply: Reply,
    outcome: Result<Applied, Error>,
}

impl Delivery {
    /// Hands the answer over.
    pub fn deliver(self) {
        self.reply.send(self.outcome);
    }
}

/// The answers of one batch, sorted by courier.
#[derive(Debug, Default)]
pub(super) struct Answers {
    direct: Vec<Delivery>,
    /// A handful at most: one for each network thread.
    by_courier: Vec<(Courier, Vec<Delivery>)>,
}

impl Answers {
    pub(super) fn add(&mut self, mut reply: Reply, outcome: Result<Applied, Error>) {
        let Some(courier) = reply.courier.take() else {
            return self.direct.push(Delivery { reply, outcome });
        };
        let delivery = Delivery { reply, outcome };
        let same = |(other, _): &&mut (Courier, _)| other.0.is_same(&courier.0);
        match self.by_courier.iter_mut().find(same) {
            Some((_, deliveries)) => deliveries.push(delivery),
            None => self.by_courier.push((courier, vec![delivery])),
        }
    }

    /// Sends everything off.
    pub(super) fn send(self) {
        self.direct.into_iter().for_each(Delivery::deliver);
        for (courier, deliveries) in self.by_courier {
            courier.0.send_blocking(deliveries);
        }
    }
}
