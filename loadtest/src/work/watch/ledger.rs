//! Who put what, and who saw it.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the stamp in front of a value: the put's number on its key, and its moment.
pub(super) const STAMP_BYTES: usize = 16;

/// What a put's value tells its watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Number of the put on its key, from 0.
    pub(super) number: u64,
    /// When it was sent, since the run's epoch.
    pub(super) sent: Duration,
}

impl Stamp {
    /// A value of `value_bytes` bytes (at least the stamp's) that carries this stamp.
    pub(super) fn value(self, value_bytes: usize) -> Bytes {
        let mut value = BytesMut::with_capacity(value_bytes.max(STAMP_BYTES));
        value.put_u64(self.number);
        value.put_u64(u64::try_from(self.sent.as_nanos()).unwrap_or(u64::MAX));
        value.resize(value_bytes.max(STAMP_BYTES), b'.');
        value.freeze()
    }

    /// The stamp of a value, if it has one.
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let number = value.get(..8)?.try_into().ok()?;
        let sent = value.get(8..STAMP_BYTES)?.try_into().ok()?;
        let sent = Duration::from_nanos(u64::from_be_bytes(sent));
        Some(Self { number: u64::from_be_bytes(number), sent })
    }

    /// How long ago the put was sent.
    pub(super) fn age(self, epoch: Instant, now: Instant) -> Duration {
        now.saturating_duration_since(epoch).saturating_sub(self.sent)
    }
}

/// A set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    words: Vec<u64>,
}

impl Numbers {
    /// Adds a number; `false` if it was in already.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    /// How many numbers are in.
    pub(super) fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many of these numbers are not in `other`.
    pub(super) fn missing_in(&self, other: &Self) -> u64 {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(theirs).map(|(w, t)| u64::from((w & !t).count_ones())).sum()
    }
}

/// The puts of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct PutLog {
    issued: u64,
    /// Those the server acknowledged.
    pub(super) acknowledged: Numbers,
}

impl PutLog {
    /// The number for the next put.
    pub(super) fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued - 1
    }
}

/// The most puts of one key that are kept account of: beyond it a number is not believed.
const NUMBER_MAX: u64 = 1 << 26;

/// What one watcher saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    seen: Numbers,
    last_revision: i64,
    /// Events that came once more.
    pub(super) doubled: u64,
    /// Events with a revision below the one before.
    pub(super) disordered: u64,
    /// Events that no put of this run explains.
    pub(super) foreign: u64,
}

impl Account {
    /// Takes an event; answers whether it was a new one.
    pub(super) fn event(&mut self, stamp: Option<Stamp>, revision: i64) -> bool {
        let Some(stamp) = stamp.filter(|stamp| stamp.number < NUMBER_MAX) else {
            self.foreign += 1;
            return false;
        };
        if !self.seen.insert(stamp.number) {
            self.doubled += 1;
            return false;
        }
        if revision < self.last_revision {
            self.disordered += 1;
        }
        self.last_revision = self.last_revision.max(revision);
        true
    }

    /// Acknowledged puts this watcher never saw.
    pub(super) fn missing(&self, puts: &PutLog) -> u64 {
        puts.acknowledged.missing_in(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Option<Stamp> {
        Some(Stamp { number, sent: Duration::ZERO })
    }

    #[test]
    fn a_stamp_survives_in_the_value() {
        let stamp = Stamp { number: 77, sent: Duration::from_nanos(123_456_789) };
        let value = stamp.value(256);
        assert_eq!(value.len(), 256);
        assert_eq!(Stamp::of(&value), Some(stamp));
        assert_eq!(stamp.value(0).len(), STAMP_BYTES);
        assert_eq!(Stamp::of(b"too short"), None);
    }

    #[test]
    fn age_is_the_time_since_the_put_was_sent() {
        let epoch = Instant::now();
        let stamp = Stamp { number: 0, sent: Duration::from_millis(10) };
        let now = epoch + Duration::from_millis(17);
        assert_eq!(stamp.age(epoch, now), Duration::from_millis(7));
        assert_eq!(stamp.age(epoch, epoch), Duration::ZERO);
    }

    #[test]
    fn sets_of_numbers() {
        let mut odd = Numbers::default();
        assert!((0..1000).filter(|n| n % 2 == 1).all(|n| odd.insert(n)));
        assert!(!odd.insert(501));
        assert_eq!(odd.len(), 500);
        let mut few = Numbers::default();
        few.insert(1);
        few.insert(2);
        assert_eq!(odd.missing_in(&few), 499);
        assert_eq!(few.missing_in(&odd), 1);
        assert_eq!(Numbers::default().missing_in(&odd), 0);
    }

    #[test]
    fn an_account_tells_missing_doubled_and_disordered_apart() {
        let mut puts = PutLog::default();
        for _ in 0..6 {
            let number = puts.issue();
            if number != 5 {
                puts.acknowledged.insert(number);
            }
        }
        let mut account = Account::default();
        assert!(account.event(stamp(0), 10));
        assert!(account.event(stamp(2), 12));
        assert!(account.event(stamp(1), 11), "late, but new");
        assert!(!account.event(stamp(2), 12), "once more");
        assert!(account.event(stamp(5), 15), "not acknowledged, and there all the same");
        assert!(!account.event(None, 16));
        let found = (account.missing(&puts), account.doubled, account.disordered, account.foreign);
        assert_eq!(found, (2, 1, 1, 1));
    }
}
