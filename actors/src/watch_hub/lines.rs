//! The two lines in which streams wait for their turns.
//!
//! Who is up to date reads from its group's log, which takes microseconds; who is
//! not reads from the store, which takes a hundred times as long. In one line, a
//! thousand clients that come back together would make everybody else wait for
//! all their history. So those who are up to date go first, and the others have a
//! share of the time, or all of it while nobody else wants it.

use std::collections::VecDeque;

use super::StreamId;

/// What a turn of history costs, where a usual turn costs one: it takes about as
/// long as so many of them.
pub(super) const HISTORY_COST: usize = 16;

/// What turns of the present may cost for each unit that history costs, while
/// streams wait for both: history has one part in eight.
const PRESENT_COST: usize = 7;

/// The present has taken enough turns for one of history.
const CREDIT_MAX: usize = HISTORY_COST * PRESENT_COST;

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Answers, and what happened of late.
    Present,
    /// What must be read from the store.
    History,
}

impl Line {
    pub(super) const BOTH: [Self; 2] = [Self::Present, Self::History];
}

/// A stream in a line: its slot, and who it was, because slots are used again.
pub(super) type Waiting = (u32, StreamId);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: [VecDeque<Waiting>; 2],
    /// What the present's turns have cost while history waited, as far as history
    /// has not had its share for it.
    credit: usize,
}

impl Lines {
    /// Lets a stream wait for its turn, behind all others of the line.
    pub(super) fn push(&mut self, line: Line, waiting: Waiting) {
        self.lines[line as usize].push_back(waiting);
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(Line, Waiting)> {
        let [present, history] = &self.lines;
        let line = match (present.is_empty(), history.is_empty()) {
            (_, true) => Line::Present,
            (true, false) => {
                // Nobody is kept waiting, so nothing is owed.
                self.credit = 0;
                Line::History
            }
            (false, false) if self.credit >= CREDIT_MAX => Line::History,
            (false, false) => Line::Present,
        };
        self.lines[line as usize].pop_front().map(|waiting| (line, waiting))
    }

    /// Takes note of what the turn of a stream of `line` has cost.
    pub(super) fn charge(&mut self, line: Line, cost: usize) {
        self.credit = match line {
            Line::Present => (self.credit + cost).min(CREDIT_MAX),
            Line::History => self.credit.saturating_sub(cost * PRESENT_COST),
        };
        if self.lines[Line::History as usize].is_empty() {
            self.credit = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self, line: Line) -> impl Iterator<Item = &Waiting> {
        self.lines[line as usize].iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each line's turns cost in the next `turns`, of streams that want more
    /// after each turn.
    fn costs(lines: &mut Lines, turns: usize, history_cost: usize) -> [usize; 2] {
        let mut costs = [0; 2];
        for _ in 0..turns {
            let Some((line, waiting)) = lines.pop() else { break };
            let cost = if line == Line::Present { 1 } else { history_cost };
            costs[line as usize] += cost;
            lines.push(line, waiting);
            lines.charge(line, cost);
        }
        costs
    }

    #[test]
    fn history_has_an_eighth_while_others_wait_and_all_when_nobody_does() {
        for history_cost in [1, HISTORY_COST] {
            let mut lines = Lines::default();
            (0..3).for_each(|n| lines.push(Line::History, (n, n.into())));
            assert_eq!(costs(&mut lines, 100, history_cost), [0, 100 * history_cost]);
            (3..5).for_each(|n| lines.push(Line::Present, (n, n.into())));
            assert_eq!(costs(&mut lines, 100, history_cost), [100, 0], "the present goes first");
            let [present, history] = costs(&mut lines, 10_000, history_cost);
            let share = history as f64 / (present + history) as f64;
            assert!((0.12..0.13).contains(&share), "{share}");
        }
    }

    #[test]
    fn those_of_one_line_take_turns() {
        let mut lines = Lines::default();
        (0..3).for_each(|n| lines.push(Line::History, (n, n.into())));
        lines.push(Line::Present, (9, 9));
        let mut turns = [0; 3];
        for _ in 0..3000 {
            let Some((line, waiting)) = lines.pop() else { break };
            if line == Line::History {
                turns[waiting.0 as usize] += 1;
            }
            lines.push(line, waiting);
            lines.charge(line, if line == Line::Present { 1 } else { HISTORY_COST });
        }
        assert!(turns[2] > 5 && turns[0] - turns[2] <= 1, "{turns:?}");
    }
}
