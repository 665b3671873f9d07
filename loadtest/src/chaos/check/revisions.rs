//! Revisions against time, over all keys: an answer that came before a call was made tells no
//! higher a revision than that call's answer, and no two writes make the same one.

use std::collections::{BTreeMap, HashMap};

use super::Problems;
use crate::chaos::history::{Input, Moment, Operation, Output};

/// Checks all operations but stale reads together, and everything a process of a member
/// answered, stale reads too, by itself.
pub(super) fn check(operations: &[Operation], problems: &mut Problems) {
    let fresh = || operations.iter().filter(|operation| operation.input != Input::GetStale);
    check_unique(fresh(), problems);
    check_order(fresh(), "revisions grow with time", problems);
    let mut processes: BTreeMap<(u8, u16), Vec<&Operation>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.life != 0) {
        processes.entry((operation.member, operation.life)).or_default().push(operation);
    }
    for answered in processes.into_values() {
        check_order(answered.into_iter(), "a member's state never goes back", problems);
    }
}

fn check_order<'a>(
    operations: impl Iterator<Item = &'a Operation>,
    promise: &'static str,
    problems: &mut Problems,
) {
    let mut returns: Vec<(Moment, i64, &Operation)> = operations
        .filter_map(|operation| Some((operation.returned, revision(operation)?, operation)))
        .collect();
    let mut calls = returns.clone();
    returns.sort_unstable_by_key(|(returned, ..)| *returned);
    calls.sort_unstable_by_key(|(_, _, operation)| operation.called);
    let mut returns = returns.into_iter().peekable();
    let mut highest: Option<(i64, &Operation)> = None;
    for (_, revision, operation) in calls {
        while let Some((_, told, earlier)) = returns.next_if(|next| next.0 < operation.called) {
            if highest.is_none_or(|(most, _)| told > most) {
                highest = Some((told, earlier));
            }
        }
        let Some((most, earlier)) = highest else { continue };
        let made = operation.made().is_some();
        if revision < most || (made && revision == most) {
            problems.add(promise, format!("\n    {earlier}\n    {operation}"));
        }
    }
}

fn check_unique<'a>(operations: impl Iterator<Item = &'a Operation>, problems: &mut Problems) {
    let mut makers: HashMap<i64, &Operation> = HashMap::new();
    for operation in operations {
        let Some(revision) = operation.made() else { continue };
        let maker = makers.entry(revision).or_insert(operation);
        if maker.call_number != operation.call_number {
            problems.add("a revision has one maker", format!("\n    {maker}\n    {operation}"));
        }
    }
}

fn revision(operation: &Operation) -> Option<i64> {
    match operation.output {
        Output::Done { revision, .. } => Some(revision),
        Output::Unknown => None,
    }
}
