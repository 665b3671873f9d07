//! The workloads: what the calls are.

pub(crate) mod empty;
pub(crate) mod fill;
pub(crate) mod mixed;
pub(crate) mod put;
pub(crate) mod range;
pub(crate) mod txn;
pub(crate) mod watch;

use std::cell::Cell;
use std::rc::Rc;

use crate::driver::Share;
use crate::keys::{KeySpace, KeyTable, Picker, Values};

/// What the clients of one thread need to choose keys and values.
#[derive(Debug)]
pub(crate) struct KeyRoom {
    share: Share,
    space: KeySpace,
    cursor: Rc<Cell<u64>>,
    /// The keys.
    pub(crate) table: KeyTable,
    /// The values.
    pub(crate) values: Values,
}

impl KeyRoom {
    /// Lays out keys and values for a thread.
    pub(crate) fn new(space: &KeySpace, values: &Values, share: Share) -> Self {
        Self {
            share,
            space: space.clone(),
            cursor: Rc::default(),
            table: space.table(),
            values: values.clone(),
        }
    }

    /// Chooses keys for a client of the thread.
    pub(crate) fn picker(&self, client: usize) -> Picker {
        self.space.picker(self.share, client, &self.cursor)
    }
}
