//! What the clients did and what they were told: the history that is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

/// Nanoseconds since the start of the history, of real or of virtual time.
pub type Moment = u64;

/// No moment: the return of a call whose outcome is unknown. It may take effect at any later
/// time.
pub const NEVER: Moment = Moment::MAX;

/// A value on the wire is a number, unique in a round, and some padding.
pub type Value = u64;

/// A key, by its number.
pub type Key = u32;

/// Keys from this number on are not for the clients whose operations are recorded: they are
/// held by leases, or mark the end of a history.
pub const LEASE_KEYS: Key = 1 << 31;

/// What is known of a key at some revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Kv {
    /// The value's number.
    pub value: Value,
    /// Revision of the key's creation.
    pub create: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Number of changes since its creation.
    pub version: i64,
}

impl fmt::Display for Kv {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, create, modified, version } = self;
        write!(out, "v{value} (create {create}, mod {modified}, version {version})")
    }
}

/// A change of a key, as the store keeps it and a watch tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Event {
    /// The revision that made it.
    pub revision: i64,
    /// The key.
    pub key: Key,
    /// The key behind it; `None` for a deletion.
    pub now: Option<Kv>,
    /// The key before it.
    pub before: Option<Kv>,
}

/// What a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Input {
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
    /// Put the value if another part of the same transaction, a swap, takes effect, else read.
    Join(Value),
}

impl Input {
    /// The value it writes, if it writes.
    pub fn written(&self) -> Option<Value> {
        match self {
            Self::Put(value) | Self::Swap(_, value) | Self::Join(value) => Some(*value),
            Self::Delete | Self::Get | Self::GetStale => None,
        }
    }

    /// Whether it can change anything.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get | Self::GetStale)
    }
}

/// What an answer tells about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Seen {
    /// It was not asked.
    NotAsked,
    /// For reads: the key at that revision. For writes: the key before it.
    Kv(Option<Kv>),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Output {
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

/// One operation on one key. A transaction over several keys is as many of them, with the same
/// call number, at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The call's number: the parts of a transaction share it.
    pub call_number: u32,
    /// The client.
    pub client: u16,
    /// The member it was sent to.
    pub member: u8,
    /// Which process of that member answered; 0 where that is not known.
    pub life: u16,
    /// The key.
    pub key: Key,
    /// When it was sent.
    pub called: Moment,
    /// When the answer came, or [`NEVER`].
    pub returned: Moment,
    /// What was asked.
    pub input: Input,
    /// What came back.
    pub output: Output,
}

impl Operation {
    /// The revision it made, for a write that is known to have taken effect.
    pub fn made(&self) -> Option<i64> {
        match self.output {
            Output::Done { revision, effect: true, .. } => Some(revision),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_times(out, self.called, self.returned)?;
        write!(out, " client {:2} m{} key {} ", self.client, self.member + 1, self.key)?;
        match self.input {
            Input::Put(value) => write!(out, "put v{value}")?,
            Input::Delete => write!(out, "delete")?,
            Input::Get => write!(out, "get")?,
            Input::GetStale => write!(out, "get (serializable)")?,
            Input::Swap(expected, value) => write!(out, "if mod={expected} put v{value}")?,
            Input::Join(value) => write!(out, "with the swap put v{value}")?,
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
            Seen::Kv(Some(kv)) => write!(out, ", saw {kv}"),
        }
    }
}

/// A read of all keys of a range, that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RangeRead {
    /// The call's number.
    pub call_number: u32,
    /// The client.
    pub client: u16,
    /// The member it was sent to.
    pub member: u8,
    /// Which process of that member answered; 0 where that is not known.
    pub life: u16,
    /// When it was sent.
    pub called: Moment,
    /// When the answer came.
    pub returned: Moment,
    /// The keys asked for.
    pub keys: RangeInclusive<Key>,
    /// Asked of the member's own state, possibly stale.
    pub serializable: bool,
    /// The revision asked for; 0 for the newest.
    pub asked: i64,
    /// The most keys wanted; 0 for all.
    pub limit: u64,
    /// The store's revision in the answer's header.
    pub revision: i64,
    /// The keys told, in ascending order.
    pub pairs: Vec<(Key, Kv)>,
    /// How many keys the answer says the range has.
    pub count: u64,
}

impl RangeRead {
    /// The revision whose state it must tell.
    pub fn of(&self) -> i64 {
        if self.asked > 0 { self.asked } else { self.revision }
    }
}

impl fmt::Display for RangeRead {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_times(out, self.called, self.returned)?;
        write!(out, " client {:2} m{} range {:?}", self.client, self.member + 1, self.keys)?;
        if self.serializable {
            write!(out, " (serializable)")?;
        }
        if self.asked > 0 {
            write!(out, " of revision {}", self.asked)?;
        }
        if self.limit > 0 {
            write!(out, " at most {}", self.limit)?;
        }
        let (told, count) = (self.pairs.len(), self.count);
        write!(out, " -> revision {}, {told} keys of {count}", self.revision)
    }
}

fn write_times(out: &mut fmt::Formatter<'_>, called: Moment, returned: Moment) -> fmt::Result {
    let seconds = |moment: Moment| Duration::from_nanos(moment).as_secs_f64();
    write!(out, "[{:10.6} ", seconds(called))?;
    match returned {
        NEVER => write!(out, "         -]"),
        moment => write!(out, "{:10.6}]", seconds(moment)),
    }
}

/// What became of the calls, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Calls answered.
    pub ok: u64,
    /// Calls that certainly did nothing.
    pub failed: u64,
    /// Calls of which nobody knows.
    pub unknown: u64,
    /// Attempts to connect that failed: no call was made.
    pub unconnected: u64,
    /// Failed and unknown calls by text.
    pub errors: BTreeMap<String, u64>,
}

/// The part of the history that the clients write together.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Operations whose outcome is a success or unknown.
    pub operations: Vec<Operation>,
    /// Reads of ranges that were answered.
    pub range_reads: Vec<RangeRead>,
    /// Values of writes that certainly did nothing: they may never show up.
    pub refused: Vec<(Key, Value)>,
    /// When each write succeeded, in order: what availability is computed from.
    pub successes: Vec<Moment>,
    /// Answers that cannot be right, whatever happened before.
    pub wrong: Vec<String>,
    /// Counts.
    pub tally: Tally,
}
