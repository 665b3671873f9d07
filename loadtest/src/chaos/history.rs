//! How the clients' history is written: its clock, its numbers, and the records they share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use castd_check::{Moment, NEVER, Records, Value};

/// How many processes each member has had.
#[derive(Debug, Clone)]
pub(crate) struct Lives(Rc<[Cell<u16>]>);

impl Lives {
    /// Of members that have not been started.
    pub(crate) fn new(members: usize) -> Self {
        Self((0..members).map(|_| Cell::new(0)).collect())
    }

    /// A member's next process starts.
    pub(crate) fn begin(&self, member: usize) {
        self.0[member].set(self.0[member].get() + 1);
    }

    /// The number of a member's present process.
    pub(crate) fn get(&self, member: usize) -> u16 {
        self.0[member].get()
    }
}

/// Writes the history. Clones write the same one.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    start: Instant,
    records: Rc<RefCell<Records>>,
    calls: Rc<Cell<u32>>,
    values: Rc<Cell<Value>>,
}

impl Recorder {
    /// An empty history that starts now.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            records: Rc::default(),
            calls: Rc::default(),
            values: Rc::default(),
        }
    }

    /// Now, in the history's time.
    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// A moment in the history's time.
    pub(crate) fn moment(&self, instant: Instant) -> Moment {
        let since = instant.saturating_duration_since(self.start).as_nanos();
        Moment::try_from(since).unwrap_or(NEVER - 1)
    }

    /// A number for the next call.
    pub(crate) fn next_call(&self) -> u32 {
        self.calls.set(self.calls.get() + 1);
        self.calls.get()
    }

    /// A value nobody has written yet.
    pub(crate) fn next_value(&self) -> Value {
        self.values.set(self.values.get() + 1);
        self.values.get()
    }

    /// Gives access to the records.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Records) -> T) -> T {
        look(&mut self.records.borrow_mut())
    }
}
