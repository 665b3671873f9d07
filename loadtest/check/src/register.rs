//! One key of an etcd store, as the linearizability checker sees it.
//!
//! The answers tell revisions and versions, and these leave little to guess: the revision of
//! a write orders it, and the version of a key counts every write since its creation.

use super::linear::Model;
use crate::history::{Event, Input, Kv, Operation, Output, Seen, Value};

/// A key's state. Revisions are 0 while they are not known: those of writes whose answers
/// were lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyState {
    present: Option<Present>,
    /// No earlier revision than this can be the store's: that of the key's last change, or of
    /// a read since. Whatever changes the key next has a higher one.
    floor: i64,
    /// The revision of the key's last change, where it is known what is stored.
    changed: i64,
}

/// The key, while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Present {
    value: Value,
    create: i64,
    modified: i64,
    version: i64,
}

/// The model of one key.
#[derive(Debug)]
pub(super) struct KeyModel<'a> {
    /// The key's stored events in order, if they are known: the order of its writes.
    pub(super) stored: Option<&'a [&'a Event]>,
}

impl KeyModel<'_> {
    /// Makes a revision the key's last change. It must be the one stored behind the last.
    fn advance(&self, state: &mut KeyState, revision: i64) -> Option<()> {
        let Some(stored) = self.stored else { return Some(()) };
        let place = stored.binary_search_by_key(&revision, |event| event.revision);
        // What is acknowledged and not stored is told elsewhere.
        let Ok(place) = place else { return Some(()) };
        let before = place.checked_sub(1).map_or(0, |before| stored[before].revision);
        (state.changed == before).then(|| state.changed = revision)
    }

    /// Takes in that the key was in this state at a revision.
    fn dwell(&self, state: &mut KeyState, revision: i64) -> Option<()> {
        let Some(stored) = self.stored else {
            (revision >= state.floor).then_some(())?;
            state.floor = revision;
            return Some(());
        };
        // Which of several reads of one state came first matters to nobody here; with the times
        // of all keys their revisions are compared elsewhere.
        let count = stored.partition_point(|event| event.revision <= revision);
        let changed = count.checked_sub(1).map_or(0, |last| stored[last].revision);
        (state.changed == changed).then_some(())
    }
}

impl Model for KeyModel<'_> {
    type State = KeyState;
    type Operation = Operation;

    fn initial(&self) -> KeyState {
        KeyState { present: None, floor: 0, changed: 0 }
    }

    fn step(&self, state: &KeyState, operation: &Operation) -> Option<KeyState> {
        match operation.output {
            Output::Unknown => state.lost(&operation.input),
            Output::Done { revision, seen, effect } => {
                let mut state = state.clone();
                if let Seen::Kv(kv) = seen {
                    state.learn(kv)?;
                }
                match (effect, operation.input) {
                    (true, input) => {
                        self.advance(&mut state, revision)?;
                        state.changed(&input, revision)
                    }
                    (false, Input::Get | Input::Swap(..) | Input::Join(_) | Input::Delete) => {
                        self.dwell(&mut state, revision)?;
                        state.unchanged(&operation.input)
                    }
                    // A put always has an effect. Stale reads are checked elsewhere.
                    (false, Input::Put(_) | Input::GetStale) => None,
                }
            }
        }
    }
}

impl KeyState {
    /// The state when a write takes effect whose answer was lost. Where it would change
    /// nothing it is left out: it may as well never have happened.
    fn lost(&self, input: &Input) -> Option<Self> {
        let mut state = self.clone();
        match input {
            Input::Put(value) | Input::Join(value) => state.put(*value, 0),
            Input::Delete => {
                state.present.take()?;
            }
            Input::Swap(expected, value) => {
                state.expect(*expected).then_some(())?;
                state.put(*value, 0);
            }
            Input::Get | Input::GetStale => return None,
        }
        // Its revision is not known, only that it was a further one.
        state.floor += 1;
        Some(state)
    }

    fn changed(mut self, input: &Input, revision: i64) -> Option<Self> {
        if revision <= self.floor {
            return None;
        }
        match input {
            Input::Put(value) | Input::Join(value) => self.put(*value, revision),
            Input::Delete => {
                self.present.take()?;
            }
            Input::Swap(expected, value) => {
                self.expect(*expected).then_some(())?;
                self.put(*value, revision);
            }
            Input::Get | Input::GetStale => return None,
        }
        self.floor = revision;
        Some(self)
    }

    fn unchanged(self, input: &Input) -> Option<Self> {
        let explained = match input {
            Input::Delete => self.present.is_none(),
            Input::Swap(expected, _) => {
                self.present.map_or(0, |present| present.modified) != *expected
            }
            _ => true,
        };
        explained.then_some(self)
    }

    fn put(&mut self, value: Value, revision: i64) {
        let (create, version) =
            self.present.map_or((revision, 1), |present| (present.create, present.version + 1));
        self.present = Some(Present { value, create, modified: revision, version });
    }

    /// Takes in what an answer tells of the key, if it can be so.
    fn learn(&mut self, kv: Option<Kv>) -> Option<()> {
        match (&mut self.present, kv) {
            (None, None) => Some(()),
            (Some(present), Some(kv)) => {
                let fits = present.value == kv.value
                    && present.version == kv.version
                    && (present.create == 0 || present.create == kv.create)
                    && (present.modified == kv.modified
                        || (present.modified == 0 && kv.modified >= self.floor));
                (present.create, present.modified) = (kv.create, kv.modified);
                fits.then_some(())
            }
            _ => None,
        }
    }

    /// Whether the key's mod revision is, or may be, the given one; then it is from now on.
    fn expect(&mut self, revision: i64) -> bool {
        match &mut self.present {
            None => revision == 0,
            Some(present) if present.modified == 0 && revision >= self.floor => {
                present.modified = revision;
                true
            }
            Some(present) => present.modified == revision,
        }
    }
}
