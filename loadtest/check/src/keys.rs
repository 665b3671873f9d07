//! Linearizability, key by key, and the part of a history that shows why there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Problems;
use super::ledger::Ledger;
use super::linear::{Interval, Model, Verdict, search};
use super::register::KeyModel;
use crate::history::{Input, Key, NEVER, Operation, Output};

/// Steps of a search before it is given up, for each key.
const STEPS_MAX: usize = 2_000_000;
/// Explained operations shown before the one that cannot be.
const SHOWN_BEFORE: usize = 12;
/// Operations under way shown beside it.
const SHOWN_BESIDE: usize = 12;

/// What was searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Searched {
    /// Keys.
    pub(super) keys: u64,
    /// Operations on them.
    pub(super) operations: u64,
    /// Keys given up.
    pub(super) undecided: u64,
}

/// Looks for a linearization of each key's operations. With what is stored, lost answers are to
/// be settled before, and the order of the writes is known: little is left to be searched.
pub(super) fn check(
    operations: &[Operation],
    ledger: Option<&Ledger<'_>>,
    problems: &mut Problems,
) -> Searched {
    let mut keys: BTreeMap<Key, Vec<Interval<Operation>>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.input != Input::GetStale) {
        let returned = (operation.returned != NEVER).then_some(operation.returned);
        let interval = Interval { called: operation.called, returned, operation: *operation };
        keys.entry(operation.key).or_default().push(interval);
    }
    let mut searched = Searched::default();
    for (key, history) in &mut keys {
        history.sort_by_key(|interval| interval.called);
        searched.keys += 1;
        searched.operations += history.len() as u64;
        let model = KeyModel { stored: ledger.map(|ledger| ledger.of_key(*key)) };
        if is_explained_by_store(&model, history) {
            continue;
        }
        match search(&model, history, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Undecided => searched.undecided += 1,
            Verdict::Violation { explained, stuck } => {
                problems.add("linearizable", tell(*key, history, &explained, stuck));
            }
        }
    }
    searched
}

/// Whether the order that is stored explains everything: each write at its place, each read
/// behind the last write up to its revision. That is the linearization of a store that keeps
/// its promises, so in most cases there is nothing to search. The history is in the order of
/// the calls.
fn is_explained_by_store(model: &KeyModel<'_>, history: &[Interval<Operation>]) -> bool {
    let Some(stored) = model.stored else { return false };
    let mut order = Vec::with_capacity(history.len());
    for (index, interval) in history.iter().enumerate() {
        let Output::Done { revision, effect, .. } = interval.operation.output else {
            return false;
        };
        let writes = stored.partition_point(|event| event.revision <= revision);
        order.push((writes, !effect, index));
    }
    order.sort_unstable();
    let mut state = model.initial();
    let mut latest_call = 0;
    for (.., index) in order {
        let interval = &history[index];
        latest_call = latest_call.max(interval.called);
        if interval.returned.is_some_and(|returned| returned < latest_call) {
            return false;
        }
        match model.step(&state, &interval.operation) {
            Some(next) => state = next,
            None => return false,
        }
    }
    true
}

fn tell(key: Key, history: &[Interval<Operation>], explained: &[usize], stuck: usize) -> String {
    let mut text = format!("key {key}: no order explains these answers\n");
    let skipped = explained.len().saturating_sub(SHOWN_BEFORE);
    let _ = writeln!(text, "  {skipped} operations explained, then:");
    for index in &explained[skipped..] {
        let _ = writeln!(text, "    {}", history[*index].operation);
    }
    let _ = writeln!(text, "  not explained:\n  > {}", history[stuck].operation);
    let returned = history[stuck].operation.returned;
    let known: BTreeSet<usize> = explained.iter().copied().collect();
    let beside = (0..history.len())
        .filter(|index| *index != stuck && !known.contains(index))
        .filter(|index| history[*index].called < returned);
    let beside: Vec<usize> = beside.collect();
    if !beside.is_empty() {
        let _ = writeln!(text, "  under way at the same time, or of unknown outcome:");
    }
    for index in beside.iter().rev().take(SHOWN_BESIDE) {
        let _ = writeln!(text, "    {}", history[*index].operation);
    }
    text
}
