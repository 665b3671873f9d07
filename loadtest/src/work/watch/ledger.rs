//! Who put what, and who saw it.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::skim::Event;
use crate::keys::KeyTable;

/// Bytes of the stamp in front of a value: the key, the put's number on it, and its moment.
pub(super) const STAMP_BYTES: usize = 16;

/// What a put's value tells its watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Index of the key.
    pub(super) key: u32,
    /// Number of the put on its key, from 0.
    pub(super) number: u32,
    /// When it was sent: nanoseconds since the run's epoch.
    pub(super) sent_ns: u64,
}

impl Stamp {
    /// A value of `value_bytes` bytes (at least the stamp's) that carries this stamp.
    pub(super) fn value(self, value_bytes: usize) -> Bytes {
        let mut value = BytesMut::with_capacity(value_bytes.max(STAMP_BYTES));
        value.put_u32(self.key);
        value.put_u32(self.number);
        value.put_u64(self.sent_ns);
        value.resize(value_bytes.max(STAMP_BYTES), b'.');
        value.freeze()
    }

    /// The stamp of a value, if it has one.
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let (stamp, _) = value.split_first_chunk::<STAMP_BYTES>()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(Self {
            key: number(&stamp[..4]) as u32,
            number: number(&stamp[4..8]) as u32,
            sent_ns: number(&stamp[8..]),
        })
    }
}

/// A set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// Adds a number.
    pub(super) fn insert(&mut self, number: u32) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.count += u64::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// How many numbers are in.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// The numbers from `first` on.
    fn from(&self, first: u32) -> impl Iterator<Item = u32> {
        let words = self.words.iter().enumerate().skip((first / 64) as usize);
        words.flat_map(move |(index, word)| {
            let start = index as u32 * 64;
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| start + bit)
                .filter(move |number| *number >= first)
        })
    }
}

/// A set of numbers that come nearly in order: it stays small, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// All numbers below this one are in.
    below: u32,
    /// The 64 numbers from `below` on, one bit each.
    beyond: u64,
    /// Those further ahead.
    far: BTreeSet<u32>,
}

impl Seen {
    /// Adds a number; `false` if it was in already.
    fn insert(&mut self, number: u32) -> bool {
        let Some(ahead) = number.checked_sub(self.below) else { return false };
        if ahead >= u64::BITS {
            return self.far.insert(number);
        }
        let bit = 1 << ahead;
        let fresh = self.beyond & bit == 0;
        self.beyond |= bit;
        while self.beyond & 1 == 1 {
            self.advance();
        }
        fresh
    }

    /// Moves the window on by the numbers that are in at its beginning.
    fn advance(&mut self) {
        let run = self.beyond.trailing_ones();
        self.below += run;
        self.beyond = self.beyond.checked_shr(run).unwrap_or(0);
        while let Some(ahead) = self.far.first().map(|number| number - self.below)
            && ahead < u64::BITS
        {
            self.far.pop_first();
            self.beyond |= 1 << ahead;
        }
    }

    fn contains(&self, number: u32) -> bool {
        let Some(ahead) = number.checked_sub(self.below) else { return true };
        match ahead {
            0..64 => self.beyond >> ahead & 1 == 1,
            _ => self.far.contains(&number),
        }
    }

    /// How many of these numbers are not in.
    fn missing(&self, wanted: &Numbers) -> u64 {
        wanted.from(self.below).filter(|number| !self.contains(*number)).count() as u64
    }
}

/// The puts of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct PutLog {
    issued: u32,
    /// Those the server acknowledged.
    pub(super) acknowledged: Numbers,
}

impl PutLog {
    /// The number for the next put.
    pub(super) fn issue(&mut self) -> u32 {
        self.issued += 1;
        self.issued - 1
    }
}

/// What was wrong with the events of a watcher, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Events that came once more.
    pub(super) doubled: u64,
    /// Events with a revision below the one before.
    pub(super) disordered: u64,
    /// Responses that go on with a revision which the one before had begun, without having
    /// said so.
    pub(super) split: u64,
    /// Events that no put of this run explains.
    pub(super) foreign: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.split += other.split;
        self.foreign += other.foreign;
    }
}

/// What one watcher saw.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// The keys it watches.
    keys: Range<u32>,
    /// The puts it saw, key by key.
    seen: Box<[Seen]>,
    last_revision: i64,
    /// The response before said that more of its last revision is to come.
    in_fragments: bool,
    /// What was wrong.
    pub(super) faults: Faults,
}

impl Account {
    /// An empty account of a watcher of these keys.
    pub(super) fn new(keys: Range<u32>) -> Self {
        let seen = vec![Seen::default(); keys.len()].into();
        Self { keys, seen, last_revision: 0, in_fragments: false, faults: Faults::default() }
    }

    /// The revision of the latest event, or 0.
    pub(super) fn last_revision(&self) -> i64 {
        self.last_revision
    }

    /// Another response begins, with an event of this revision.
    pub(super) fn response_begins(&mut self, revision: i64) {
        let goes_on = revision == self.last_revision && !self.in_fragments;
        self.faults.split += u64::from(goes_on);
    }

    /// It has ended; `fragment` if its last revision goes on in the next one.
    pub(super) fn response_ends(&mut self, fragment: bool) {
        self.in_fragments = fragment;
    }

    /// Takes an event; answers its stamp if it is a new one.
    pub(super) fn event(&mut self, event: &Event<'_>, table: &KeyTable) -> Option<Stamp> {
        let stamp = Stamp::of(event.value).filter(|stamp| {
            event.is_put && self.keys.contains(&stamp.key) && table.has(stamp.key.into(), event.key)
        });
        let Some(stamp) = stamp else {
            self.faults.foreign += 1;
            return None;
        };
        if !self.seen[(stamp.key - self.keys.start) as usize].insert(stamp.number) {
            self.faults.doubled += 1;
            return None;
        }
        if event.mod_revision < self.last_revision {
            self.faults.disordered += 1;
        } else {
            self.last_revision = event.mod_revision;
        }
        Some(stamp)
    }

    /// Acknowledged puts this watcher never saw.
    pub(super) fn missing(&self, puts: &[PutLog]) -> u64 {
        let keys = self.keys.clone().zip(&self.seen);
        keys.map(|(key, seen)| seen.missing(&puts[key as usize].acknowledged)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeySpace, Order};

    #[test]
    fn a_stamp_survives_in_the_value() {
        let stamp = Stamp { key: 1 << 20, number: 77, sent_ns: 123_456_789_012 };
        let value = stamp.value(256);
        assert_eq!(value.len(), 256);
        assert_eq!(Stamp::of(&value), Some(stamp));
        assert_eq!(stamp.value(0).len(), STAMP_BYTES);
        assert_eq!(Stamp::of(b"too short"), None);
    }

    #[test]
    fn numbers_in_any_order_are_seen_once_and_missed_exactly() {
        let mut wanted = Numbers::default();
        (0..1000).for_each(|number| wanted.insert(number));
        wanted.insert(7);
        assert_eq!(wanted.len(), 1000);
        // 617 has no divisor in common with 1000: every number comes once.
        let scattered = (0..1000).map(|step| step * 617 % 1000);
        let swapped = (0..1000).map(|step| step ^ 1);
        for order in [scattered.collect::<Vec<u32>>(), swapped.collect(), (0..1000).collect()] {
            let mut seen = Seen::default();
            for (position, number) in order.iter().enumerate() {
                assert!(!seen.contains(*number));
                assert!(seen.insert(*number), "{number} is new");
                assert!(!seen.insert(*number), "{number} was in");
                assert!(seen.contains(*number));
                assert_eq!(seen.missing(&wanted), 999 - position as u64);
            }
            assert_eq!(seen, Seen { below: 1000, ..Seen::default() });
        }
        let mut gap = Seen::default();
        (1..=64).for_each(|number| assert!(gap.insert(number)));
        assert!(gap.insert(500) && gap.insert(0));
        assert_eq!((gap.below, gap.missing(&wanted)), (65, 934));
    }

    struct Bench {
        table: KeyTable,
        space: KeySpace,
        account: Account,
    }

    impl Bench {
        fn new(keys: Range<u32>) -> Self {
            let space = KeySpace::new("k", 4, 100, Order::Random).unwrap();
            Self { table: space.table(), space, account: Account::new(keys) }
        }

        fn event(&mut self, key: u32, number: u32, revision: i64) -> bool {
            let value = Stamp { key, number, sent_ns: 0 }.value(0);
            let name = self.space.key(key.into());
            let event = Event { is_put: true, key: &name, value: &value, mod_revision: revision };
            self.account.event(&event, &self.table).is_some()
        }
    }

    #[test]
    fn an_account_tells_missing_doubled_and_disordered_apart() {
        let mut puts = vec![PutLog::default(); 100];
        for number in 0..6 {
            assert_eq!(puts[3].issue(), number);
            if number != 5 {
                puts[3].acknowledged.insert(number);
            }
        }
        let mut bench = Bench::new(3..4);
        assert!(bench.event(3, 0, 10));
        assert!(bench.event(3, 2, 12));
        assert!(bench.event(3, 1, 11), "late, but new");
        assert!(!bench.event(3, 2, 12), "once more");
        assert!(bench.event(3, 5, 15), "not acknowledged, and there all the same");
        assert!(!bench.event(4, 0, 16), "a key it does not watch");
        let found = bench.account.faults;
        assert_eq!(found, Faults { doubled: 1, disordered: 1, split: 0, foreign: 1 });
        assert_eq!(bench.account.missing(&puts), 2);
        assert_eq!(bench.account.last_revision(), 15);
    }

    #[test]
    fn events_that_no_put_explains() {
        let mut bench = Bench::new(0..100);
        let value = Stamp { key: 5, number: 0, sent_ns: 0 }.value(0);
        let event = Event { is_put: true, key: b"k005", value: &value, mod_revision: 2 };
        for foreign in [
            Event { is_put: false, ..event },
            Event { key: b"k006", ..event },
            Event { value: b"short", ..event },
        ] {
            assert_eq!(bench.account.event(&foreign, &bench.table), None);
        }
        assert_eq!(bench.account.faults.foreign, 3);
        assert!(bench.account.event(&event, &bench.table).is_some());
    }

    #[test]
    fn a_revision_in_two_responses_is_split_unless_they_are_fragments() {
        let mut bench = Bench::new(0..10);
        let mut respond = |keys: Range<u32>, revision, fragment| {
            bench.account.response_begins(revision);
            keys.for_each(|key| assert!(bench.event(key, revision as u32, revision)));
            bench.account.response_ends(fragment);
            bench.account.faults.split
        };
        assert_eq!(respond(0..3, 5, false), 0);
        assert_eq!(respond(0..2, 6, true), 0);
        assert_eq!(respond(2..4, 6, false), 0);
        assert_eq!(respond(4..5, 6, false), 1);
        assert_eq!(respond(0..1, 7, false), 1);
    }
}
