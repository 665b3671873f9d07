//! Revisions against time, over all keys: an answer that came before a call was made tells no
//! higher a revision than that call's answer, and no two calls make the same one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::Problems;
use crate::history::{Input, Moment, Operation, Output, RangeRead, Records};

/// A call's revision and when it was under way.
#[derive(Clone, Copy)]
struct Answer<'a> {
    called: Moment,
    returned: Moment,
    revision: i64,
    /// It made the revision, so nobody else can have told it before.
    made: bool,
    call: &'a dyn fmt::Display,
}

impl<'a> Answer<'a> {
    fn of_operation(operation: &'a Operation) -> Option<Self> {
        let Output::Done { revision, .. } = operation.output else { return None };
        let Operation { called, returned, .. } = *operation;
        let made = operation.made().is_some();
        Some(Self { called, returned, revision, made, call: operation })
    }

    fn of_read(read: &'a RangeRead) -> Self {
        let RangeRead { called, returned, revision, .. } = *read;
        Self { called, returned, revision, made: false, call: read }
    }
}

/// Checks all operations but stale reads together, and everything a process of a member
/// answered, stale reads too, by itself. `known` are the operations with what is known of lost
/// answers filled in.
pub(super) fn check(records: &Records, known: &[Operation], problems: &mut Problems) {
    check_unique(known, problems);
    let operations = known.iter().filter(|operation| operation.input != Input::GetStale);
    let reads = records.range_reads.iter();
    let fresh = operations.filter_map(Answer::of_operation);
    let fresh = fresh.chain(reads.clone().filter(|read| !read.serializable).map(Answer::of_read));
    check_order(fresh.collect(), "revisions grow with time", problems);

    let mut processes: BTreeMap<(u8, u16), Vec<Answer<'_>>> = BTreeMap::new();
    for operation in &records.operations {
        let process = processes.entry((operation.member, operation.life)).or_default();
        process.extend(Answer::of_operation(operation));
    }
    for read in reads {
        processes.entry((read.member, read.life)).or_default().push(Answer::of_read(read));
    }
    for ((_, life), answered) in processes {
        if life != 0 {
            check_order(answered, "a member's state never goes back", problems);
        }
    }
}

fn check_order(answers: Vec<Answer<'_>>, promise: &'static str, problems: &mut Problems) {
    let mut calls = answers.clone();
    let mut returns = answers;
    returns.sort_by_key(|answer| answer.returned);
    calls.sort_by_key(|answer| answer.called);
    let mut returns = returns.into_iter().peekable();
    let mut highest: Option<Answer<'_>> = None;
    for later in calls {
        while let Some(earlier) = returns.next_if(|next| next.returned < later.called) {
            if highest.is_none_or(|most| earlier.revision > most.revision) {
                highest = Some(earlier);
            }
        }
        let Some(most) = highest else { continue };
        if later.revision < most.revision || (later.made && later.revision == most.revision) {
            problems.add(promise, format!("\n    {}\n    {}", most.call, later.call));
        }
    }
}

fn check_unique(operations: &[Operation], problems: &mut Problems) {
    let mut makers: HashMap<i64, &Operation> = HashMap::new();
    for operation in operations {
        let Some(revision) = operation.made() else { continue };
        let maker = makers.entry(revision).or_insert(operation);
        if maker.call_number != operation.call_number {
            problems.add("a revision has one maker", format!("\n    {maker}\n    {operation}"));
        }
    }
}
