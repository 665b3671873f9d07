//! Clients: they ask, wait, give up, and try again, as real ones do.

mod historian;
mod holder;
mod keyed;
mod locker;
mod operator;
mod steward;
mod watcher;

use castd_check::Evidence;
pub(crate) use historian::Historian;
pub(crate) use holder::{Holder, LATE as LEASES_LATE};
pub(crate) use keyed::KeyClient;
pub(crate) use locker::Locker;
pub(crate) use operator::Operator;
pub(crate) use steward::Steward;
pub(crate) use watcher::Watcher;

use crate::door::{CallId, Failure, Reply};
use crate::world::World;

/// Someone who uses the cluster. `number` is the client's own.
pub(crate) trait Client {
    /// It does what it has planned.
    fn wake(&mut self, world: &mut World, number: usize, token: u64);

    /// It hears what became of a call.
    fn answer(
        &mut self,
        world: &mut World,
        number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    );

    /// It is to begin nothing new.
    fn retire(&mut self);

    /// Whether it waits for nothing any more.
    fn is_content(&self, world: &World) -> bool;

    /// What it is about, for people.
    fn describe(&self) -> String;

    /// It adds what it was told.
    fn testify(&mut self, evidence: &mut Evidence);
}

/// A lease's id; a client chooses its own.
fn lease_id(number: usize, lease: u32) -> i64 {
    (i64::try_from(number).unwrap_or(0) + 1) << 32 | i64::from(lease)
}
