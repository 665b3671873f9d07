//! What the clients did and what they were told: the history that is checked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Nanoseconds since the start of the round.
pub(crate) type Moment = u64;

/// The return of a call whose outcome is unknown: it may take effect at any later time.
pub(crate) const NEVER: Moment = Moment::MAX;

/// A value on the wire is a number, unique in a round, and some padding.
pub(crate) type Value = u64;

/// A key, by its number.
pub(crate) type Key = u32;

/// What is known of a key at some revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Kv {
    /// The value's number.
    pub(crate) value: Value,
    /// Revision of the key's creation.
    pub(crate) create: i64,
    /// Revision of its last change.
    pub(crate) modified: i64,
    /// Number of changes since its creation.
    pub(crate) version: i64,
}

/// What a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Input {
    /// Put the value.
    Put(Value),
    /// Delete the key.
    Delete,
    /// Read the key, linearizably.
    Get,
    /// Read the key from the member's own state, possibly stale.
    GetStale,
    /// Put the value if the key's mod revision is the given one (0: is not there), else read.
    Swap(i64, Value),
}

impl Input {
    /// The value it writes, if it writes.
    pub(crate) fn written(&self) -> Option<Value> {
        match self {
            Self::Put(value) | Self::Swap(_, value) => Some(*value),
            Self::Delete | Self::Get | Self::GetStale => None,
        }
    }

    /// Whether it can change anything.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get | Self::GetStale)
    }
}

/// What an answer tells about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Seen {
    /// It was not asked.
    NotAsked,
    /// For reads: the key at that revision. For writes: the key before it.
    Kv(Option<Kv>),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Output {
    /// It may have taken effect, or may yet, or never will.
    Unknown,
    /// It took place.
    Done {
        /// The store's revision in the answer's header.
        revision: i64,
        /// What the answer tells about the key.
        seen: Seen,
        /// Whether it changed the key.
        effect: bool,
    },
}

/// One operation on one key. A transaction over two keys is two of them, at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    /// The call's number: the parts of a transaction share it.
    pub(crate) call_number: u32,
    /// The client.
    pub(crate) client: u16,
    /// The member it was sent to.
    pub(crate) member: u8,
    /// Which process of that member answered; 0 where that is not known.
    pub(crate) life: u16,
    /// The key.
    pub(crate) key: Key,
    /// When it was sent.
    pub(crate) called: Moment,
    /// When the answer came, or [`NEVER`].
    pub(crate) returned: Moment,
    /// What was asked.
    pub(crate) input: Input,
    /// What came back.
    pub(crate) output: Output,
}

impl Operation {
    /// The revision it made, for a write that is known to have taken effect.
    pub(crate) fn made(&self) -> Option<i64> {
        match self.output {
            Output::Done { revision, effect: true, .. } => Some(revision),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |moment: Moment| Duration::from_nanos(moment).as_secs_f64();
        write!(out, "[{:10.6} ", seconds(self.called))?;
        match self.returned {
            NEVER => write!(out, "         -]")?,
            moment => write!(out, "{:10.6}]", seconds(moment))?,
        }
        write!(out, " client {:2} m{} ", self.client, self.member + 1)?;
        match self.input {
            Input::Put(value) => write!(out, "put v{value}")?,
            Input::Delete => write!(out, "delete")?,
            Input::Get => write!(out, "get")?,
            Input::GetStale => write!(out, "get (serializable)")?,
            Input::Swap(expected, value) => write!(out, "if mod={expected} put v{value}")?,
        }
        let Output::Done { revision, seen, effect } = self.output else {
            return write!(out, " -> unknown");
        };
        write!(out, " -> revision {revision}")?;
        if self.input.is_write() && !effect {
            write!(out, ", not done")?;
        }
        match seen {
            Seen::NotAsked => Ok(()),
            Seen::Kv(None) => write!(out, ", saw no key"),
            Seen::Kv(Some(kv)) => write!(
                out,
                ", saw v{} (create {}, mod {}, version {})",
                kv.value, kv.create, kv.modified, kv.version
            ),
        }
    }
}

/// What became of the calls, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Calls answered.
    pub(crate) ok: u64,
    /// Calls that certainly did nothing.
    pub(crate) failed: u64,
    /// Calls of which nobody knows.
    pub(crate) unknown: u64,
    /// Attempts to connect that failed: no call was made.
    pub(crate) unconnected: u64,
    /// Failed and unknown calls by text.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// The part of the history a round's clients write together. They share one thread.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Operations whose outcome is a success or unknown.
    pub(crate) operations: Vec<Operation>,
    /// Values of writes that certainly did nothing: they may never show up.
    pub(crate) refused: Vec<(Key, Value)>,
    /// When each write succeeded, in order: what availability is computed from.
    pub(crate) successes: Vec<Moment>,
    /// Answers that cannot be right, whatever happened before.
    pub(crate) wrong: Vec<String>,
    /// Counts.
    pub(crate) tally: Tally,
}

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
