//! What the room promises, step by step and in a small world of three members.

mod queue;
mod table;
mod world;

use super::*;
use crate::mvcc::LeaseChange;

fn granted(id: i64, ttl_s: i64) -> LeaseChange {
    LeaseChange::Granted { id, ttl_s }
}

fn revoked(id: i64) -> LeaseChange {
    LeaseChange::Revoked { id }
}

/// A leader of term 1.
fn leader() -> LeaseCore {
    let mut core = LeaseCore::new(patient(), [], 0);
    core.lead(Some(1), 0);
    core
}

/// Settings under which tests may jump in time.
fn patient() -> LeaseSettings {
    LeaseSettings { stall_ms: u64::MAX, ..LeaseSettings::default() }
}
