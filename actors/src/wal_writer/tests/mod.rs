//! The log over a simulated disk, and a few times over a real one.

mod damage;
mod history;
mod rules;
mod thread;

use std::path::PathBuf;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::keeper::{Keeper, Pool};
use super::recovery::{create_on, open_behind_on, open_on};
use super::{Append, Identity, Recovered, SnapshotMarker, Wal, WalError, WalOptions};
use crate::sim::SimDisk;

const IDENTITY: Identity = Identity { cluster_id: 0xc1, member_id: 0x11 };

fn options(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, spare_segments: 2, ..WalOptions::new("/member/wal") }
}

fn at_once(pool: Pool) -> Result<Box<dyn Keeper>, WalError> {
    Ok(Box::new(pool))
}

fn create(disk: &SimDisk, segment_bytes: u64) -> Wal {
    create_on(Arc::new(disk.clone()), options(segment_bytes), IDENTITY, at_once).unwrap()
}

fn try_open(disk: &SimDisk, after_index: u64) -> Result<(Wal, Recovered), WalError> {
    open_on(Arc::new(disk.clone()), options(4096), after_index, at_once)
}

fn open(disk: &SimDisk, after_index: u64) -> (Wal, Recovered) {
    try_open(disk, after_index).unwrap()
}

fn open_behind(disk: &SimDisk, index: u64, term: u64) -> Result<(Wal, Recovered), WalError> {
    let marker = SnapshotMarker { index, term, ..SnapshotMarker::default() };
    open_behind_on(Arc::new(disk.clone()), options(4096), &marker, at_once)
}

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let data = vec![(index % 251) as u8; bytes];
    Entry { index, term, data: data.into(), ..Entry::default() }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64, bytes: usize) -> Vec<Entry> {
    indexes.map(|index| entry(index, term, bytes)).collect()
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

/// One group: written and synced.
fn put(wal: &mut Wal, entries: Vec<Entry>, state: Option<HardState>) {
    stage(wal, entries, state);
    wal.write().unwrap();
    wal.sync().unwrap();
}

fn stage(wal: &mut Wal, entries: Vec<Entry>, hard_state: Option<HardState>) {
    let request = Append { ready_number: 1, entries, hard_state, must_sync: true };
    wal.append(&request).unwrap();
}

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

/// The only segment's file.
fn only_segment(disk: &SimDisk) -> PathBuf {
    let mut files = disk.files(".wal");
    assert_eq!(files.len(), 1);
    files.remove(0)
}
