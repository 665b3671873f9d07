//! Reads of ranges: each told the state of its revision, all of it and nothing else.

use super::Problems;
use super::ledger::Ledger;
use crate::history::{Key, Kv, RangeRead};

/// Holds every answer against the stored state.
pub(super) fn check(reads: &[RangeRead], ledger: &Ledger<'_>, problems: &mut Problems) {
    for read in reads {
        if let Err(text) = check_one(read, ledger) {
            let text = format!("\n    {read}\n    {text}");
            problems.add("a read tells the state of its revision", text);
        }
    }
}

fn check_one(read: &RangeRead, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut stored = ledger.state(read.keys.clone(), read.of());
    let mut told = read.pairs.iter().copied();
    let mut places = 0;
    let mut wanted = || {
        places += 1;
        if read.limit > 0 && places > read.limit { None } else { stored.next() }
    };
    loop {
        match (wanted(), told.next()) {
            (None, None) => break,
            (stored, told) if stored == told => {}
            (stored, told) => return Err(describe(stored, told)),
        }
    }
    let count = ledger.state(read.keys.clone(), read.of()).count() as u64;
    if count != read.count {
        return Err(format!("stored there: {count} keys"));
    }
    Ok(())
}

fn describe(stored: Option<(Key, Kv)>, told: Option<(Key, Kv)>) -> String {
    let text = |pair: Option<(Key, Kv)>| {
        pair.map_or("no further key".into(), |(key, kv)| format!("key {key}, {kv}"))
    };
    let what = match (stored, told) {
        (Some((stored, _)), Some((told, _))) if stored == told => "a key differs",
        (Some((stored, _)), Some((told, _))) if stored > told => "a key too many",
        (Some(_), _) => "a key is missing",
        (None, _) => "a key too many",
    };
    format!("{what}: stored there {}, told {}", text(stored), text(told))
}
