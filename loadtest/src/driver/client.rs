//! The loop of one client.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::pacing::Slots;
use super::shared::Shared;
use super::{Caller, Recorder, Window};

/// What the clients of a thread have in common.
pub(super) struct Desk {
    pub(super) window: Window,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: RefCell<Recorder>,
    /// The open loop's slots; none in the closed loop.
    pub(super) slots: Option<Rc<Slots>>,
}

impl Desk {
    /// Waits until the next call is due, and answers since when; `None` ends the client.
    async fn next(&self) -> Option<Instant> {
        let due = match &self.slots {
            None => Instant::now(),
            Some(slots) => slots.next().await?,
        };
        let over = due >= self.window.end || self.shared.stopped();
        let exhausted = due >= self.window.begin && !self.shared.take();
        (!over && !exhausted).then_some(due)
    }
}

/// Makes calls until the window or the budget ends.
pub(super) async fn run<C: Caller>(mut caller: C, desk: Rc<Desk>) {
    while let Some(begun) = desk.next().await {
        match caller.call().await {
            Ok(done) => desk.recorder.borrow_mut().success(done, begun, Instant::now()),
            Err(error) => {
                desk.recorder.borrow_mut().failure(&error);
                if error.lost_connection() {
                    caller.rpc().revive().await;
                }
            }
        }
        desk.shared.add_done();
    }
}
