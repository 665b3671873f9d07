//! The search for a linearization: Wing and Gong's, with Lowe's memory of what was tried.

use std::collections::HashSet;
use std::hash::Hash;

/// What an object does, one operation at a time.
pub(super) trait Model {
    /// The object's state.
    type State: Clone + Eq + Hash;
    /// An operation with its result.
    type Operation;

    /// The state before everything.
    fn initial(&self) -> Self::State;

    /// The state behind the operation, or `None` where its result cannot be had.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation and when it was under way. Without an end it may take effect at any time
/// after its start, or never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval<O> {
    /// When it was called.
    pub(super) called: u64,
    /// When it returned.
    pub(super) returned: Option<u64>,
    /// The operation.
    pub(super) operation: O,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violation {
        /// The longest explanation of a beginning of the history: indices, in order.
        explained: Vec<usize>,
        /// The operation that returned without any way to have taken place then.
        stuck: usize,
    },
    /// The search was given up: too many steps.
    Undecided,
}

/// No entry: the end of the list.
const END: usize = usize::MAX;

/// Calls and returns in the order of time, as a list from which an operation can be taken out
/// and put back in constant time.
struct Timeline {
    /// Per entry: the operation, and whether this is its call.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Per operation: the entries of its call and its return.
    calls: Vec<usize>,
    returns: Vec<usize>,
    first: usize,
}

impl Timeline {
    fn new<O>(history: &[Interval<O>]) -> Self {
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (index, interval) in history.iter().enumerate() {
            // At the same moment a call goes before a return: the two overlap.
            order.push((interval.called, false, index));
            order.extend(interval.returned.map(|moment| (moment, true, index)));
        }
        order.sort_unstable();
        let count = order.len();
        let mut line = Self {
            entries: order.iter().map(|(_, is_return, index)| (*index, !is_return)).collect(),
            next: (1..=count).map(|next| if next == count { END } else { next }).collect(),
            previous: (0..count).map(|entry| entry.checked_sub(1).unwrap_or(END)).collect(),
            calls: vec![END; history.len()],
            returns: vec![END; history.len()],
            first: if count == 0 { END } else { 0 },
        };
        for (entry, (operation, is_call)) in line.entries.iter().enumerate() {
            let side = if *is_call { &mut line.calls } else { &mut line.returns };
            side[*operation] = entry;
        }
        line
    }

    fn take_out(&mut self, operation: usize) {
        self.unlink(self.calls[operation]);
        self.unlink(self.returns[operation]);
    }

    /// Undoes the latest [`Timeline::take_out`].
    fn put_back(&mut self, operation: usize) {
        self.relink(self.returns[operation]);
        self.relink(self.calls[operation]);
    }

    fn unlink(&mut self, entry: usize) {
        if entry == END {
            return;
        }
        let (before, after) = (self.previous[entry], self.next[entry]);
        self.join(before, after);
    }

    fn relink(&mut self, entry: usize) {
        if entry == END {
            return;
        }
        let (before, after) = (self.previous[entry], self.next[entry]);
        match before {
            END => self.first = entry,
            before => self.next[before] = entry,
        }
        if after != END {
            self.previous[after] = entry;
        }
    }

    fn join(&mut self, before: usize, after: usize) {
        match before {
            END => self.first = after,
            before => self.next[before] = after,
        }
        if after != END {
            self.previous[after] = before;
        }
    }
}

/// The operations taken so far, as bits. Those that come early are soon all taken and those
/// that come late are not: only the words in between tell two sets apart.
struct Taken {
    bits: Vec<u64>,
    /// Words before this one are full.
    full: usize,
    /// Words from this one on are empty.
    empty: usize,
}

impl Taken {
    fn none(count: usize) -> Self {
        Self { bits: vec![0; count.div_ceil(64)], full: 0, empty: 0 }
    }

    fn flip(&mut self, operation: usize) {
        let word = operation / 64;
        self.bits[word] ^= 1 << (operation % 64);
        self.full = self.full.min(word);
        self.empty = self.empty.max(word + 1);
        while self.bits.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
        while self.empty > self.full && self.bits[self.empty - 1] == 0 {
            self.empty -= 1;
        }
    }

    /// What tells this set from all others.
    fn key(&self) -> TakenKey {
        (self.full, self.bits[self.full..self.empty.max(self.full)].into())
    }
}

/// A set of operations: the number of full words, and the words behind them that are in use.
type TakenKey = (usize, Box<[u64]>);

/// Looks for a linearization, in at most `steps_max` steps of the model. Memory stays small
/// where the history is about in the order of calls.
pub(super) fn search<M: Model>(
    model: &M,
    history: &[Interval<M::Operation>],
    steps_max: usize,
) -> Verdict {
    Search {
        model,
        history,
        line: Timeline::new(history),
        state: model.initial(),
        taken: Taken::none(history.len()),
        tried: HashSet::new(),
        stack: Vec::new(),
        longest: (Vec::new(), END),
        shared: 0,
        steps_left: steps_max,
    }
    .run()
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Interval<M::Operation>],
    line: Timeline,
    state: M::State,
    taken: Taken,
    /// Lowe's memory: sets of operations and the states they led to.
    tried: HashSet<(TakenKey, M::State)>,
    /// The operations taken, each with the state before it.
    stack: Vec<(usize, M::State)>,
    /// The longest beginning explained, and the operation that got no further.
    longest: (Vec<usize>, usize),
    /// So many operations of it are still those of the stack.
    shared: usize,
    steps_left: usize,
}

impl<M: Model> Search<'_, M> {
    fn run(mut self) -> Verdict {
        let mut entry = self.line.first;
        // With no return left before the end, everything that must be explained is.
        while entry != END {
            let (operation, is_call) = self.line.entries[entry];
            if is_call {
                if self.steps_left == 0 {
                    return Verdict::Undecided;
                }
                self.steps_left -= 1;
                entry = if self.take(operation) { self.line.first } else { self.line.next[entry] };
                continue;
            }
            self.note_stuck(operation);
            match self.back() {
                Some(call) => entry = self.line.next[call],
                None => {
                    let (explained, stuck) = self.longest;
                    return Verdict::Violation { explained, stuck };
                }
            }
        }
        Verdict::Linearizable
    }

    /// Takes the operation next, if its result allows and this was not tried before.
    fn take(&mut self, operation: usize) -> bool {
        let step = self.model.step(&self.state, &self.history[operation].operation);
        let Some(state) = step else { return false };
        self.taken.flip(operation);
        if !self.tried.insert((self.taken.key(), state.clone())) {
            self.taken.flip(operation);
            return false;
        }
        self.stack.push((operation, std::mem::replace(&mut self.state, state)));
        self.line.take_out(operation);
        true
    }

    /// Undoes the last operation taken; answers its call's entry.
    fn back(&mut self) -> Option<usize> {
        let (operation, state) = self.stack.pop()?;
        self.shared = self.shared.min(self.stack.len());
        self.state = state;
        self.taken.flip(operation);
        self.line.put_back(operation);
        Some(self.line.calls[operation])
    }

    fn note_stuck(&mut self, operation: usize) {
        if self.longest.1 == END || self.stack.len() > self.longest.0.len() {
            let further = self.stack[self.shared..].iter().map(|(index, _)| *index);
            self.longest.0.truncate(self.shared);
            self.longest.0.extend(further);
            self.longest.1 = operation;
            self.shared = self.stack.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain register: `Ok(v)` writes v, `Err(v)` reads v.
    struct Register;

    impl Model for Register {
        type State = u32;
        type Operation = Result<u32, u32>;

        fn initial(&self) -> u32 {
            0
        }

        fn step(&self, state: &u32, operation: &Result<u32, u32>) -> Option<u32> {
            match operation {
                Ok(written) => Some(*written),
                Err(read) => (read == state).then_some(*state),
            }
        }
    }

    fn at(called: u64, returned: u64, operation: Result<u32, u32>) -> Interval<Result<u32, u32>> {
        Interval { called, returned: Some(returned), operation }
    }

    fn lost(called: u64, operation: Result<u32, u32>) -> Interval<Result<u32, u32>> {
        Interval { called, returned: None, operation }
    }

    fn verdict(history: &[Interval<Result<u32, u32>>]) -> Verdict {
        search(&Register, history, 100_000)
    }

    #[test]
    fn nothing_is_linearizable() {
        assert_eq!(verdict(&[]), Verdict::Linearizable);
    }

    #[test]
    fn reads_may_see_either_side_of_a_write_under_way() {
        let history = [at(0, 10, Ok(1)), at(1, 3, Err(0)), at(4, 6, Err(1))];
        assert_eq!(verdict(&history), Verdict::Linearizable);
        let backwards = [at(0, 10, Ok(1)), at(1, 3, Err(1)), at(4, 6, Err(0))];
        assert_eq!(verdict(&backwards), Verdict::Violation { explained: vec![0, 1], stuck: 2 });
    }

    #[test]
    fn a_stale_read_after_the_write_is_a_violation() {
        let history = [at(0, 1, Ok(1)), at(2, 3, Err(0))];
        assert_eq!(verdict(&history), Verdict::Violation { explained: vec![0], stuck: 1 });
    }

    #[test]
    fn a_lost_call_takes_effect_late_or_never() {
        assert_eq!(verdict(&[lost(0, Ok(1)), at(5, 6, Err(0))]), Verdict::Linearizable);
        assert_eq!(
            verdict(&[lost(0, Ok(1)), at(5, 6, Err(0)), at(7, 8, Err(1))]),
            Verdict::Linearizable
        );
        assert!(matches!(
            verdict(&[lost(4, Ok(1)), at(0, 3, Err(1))]),
            Verdict::Violation { stuck: 1, .. }
        ));
    }

    #[test]
    fn a_wrong_turn_is_taken_back() {
        // Taking the writes in the order of their calls leads nowhere.
        let history = [
            at(0, 9, Ok(1)),
            at(1, 9, Ok(2)),
            at(2, 9, Ok(3)),
            at(10, 11, Err(1)),
            at(3, 8, Err(2)),
        ];
        assert_eq!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn a_search_without_end_is_given_up() {
        let mut history: Vec<_> = (0..40).map(|value| at(0, 100, Ok(value))).collect();
        history.push(at(101, 102, Err(77)));
        assert_eq!(search(&Register, &history, 10_000), Verdict::Undecided);
    }

    #[test]
    fn sets_of_operations_are_told_apart() {
        let mut taken = Taken::none(200);
        let none = taken.key();
        assert_eq!(none, (0, [].into()));
        (0..64).for_each(|operation| taken.flip(operation));
        taken.flip(130);
        assert_eq!(taken.key(), (1, [0, 4].into()));
        (64..192).filter(|operation| *operation != 130).for_each(|operation| taken.flip(operation));
        assert_eq!(taken.key(), (3, [].into()));
        taken.flip(3);
        assert_eq!(taken.key(), (0, [u64::MAX ^ 8, u64::MAX, u64::MAX].into()));
        (0..192).filter(|operation| *operation != 3).for_each(|operation| taken.flip(operation));
        assert_eq!(taken.key(), none);
    }

    #[test]
    fn sequences_of_many_operations_cost_one_step_each() {
        let history: Vec<_> =
            (0..5000).map(|n| at(u64::from(n) * 2, u64::from(n) * 2 + 1, Ok(n))).collect();
        assert_eq!(search(&Register, &history, 5000), Verdict::Linearizable);
    }
}
