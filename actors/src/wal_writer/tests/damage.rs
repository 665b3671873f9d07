//! Damage: flipped bits, cut files, missing files, a newer format. Either a clear error or a
//! correct prefix that has everything but, at most, the last group.

use super::*;
use crate::wal_writer::record::{self, Kind, Place};

/// Three groups in one segment, with where each ends: entries 1-2, 3-4, 5-6; commit 2 in the
/// second.
fn three_groups() -> (SimDisk, PathBuf, [u64; 3]) {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    let mut end = |entries, state| {
        put(&mut wal, entries, state);
        open(&disk.fork(), 0).1.bytes
    };
    let ends = [
        end(entries(1..=2, 1, 30), Some(hard_state(1, 7, 0))),
        end(entries(3..=4, 1, 30), Some(hard_state(1, 7, 2))),
        end(entries(5..=6, 1, 30), None),
    ];
    let path = only_segment(&disk);
    (disk, path, ends)
}

/// What is promised after one spot of damage at `offset` of the segment that was written last.
fn check_promise(disk: &SimDisk, offset: u64, last_group: u64, what: &str) {
    let fork = disk.fork();
    match try_open(&fork, 0) {
        Ok((_, recovered)) => {
            let kept = indexes(&recovered);
            let whole: Vec<u64> = (1..=6).collect();
            assert!(whole.starts_with(&kept), "{what}: {kept:?}");
            assert!(kept.len() >= 4, "{what}: an earlier group is gone: {kept:?}");
            for entry in &recovered.entries {
                assert_eq!(*entry, super::entry(entry.index, 1, 30), "{what}");
            }
            assert!(kept == whole || offset >= last_group, "{what}");
            assert_eq!(recovered.hard_state, hard_state(1, 7, 2), "{what}");
            let (_, again) = open(&fork, 0);
            assert_eq!((indexes(&again), again.cut), (kept, None), "{what}: the cut is final");
        }
        Err(WalError::Damaged { path, offset: told, .. }) => {
            assert_eq!(path, only_segment(disk), "{what}");
            assert!(told <= offset, "{what}: told {told}");
            assert!(offset < last_group, "{what}: a torn tail must not stop the member");
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_costs_the_last_group_at_most() {
    let (disk, path, [_, second, third]) = three_groups();
    let good = disk.content(&path).unwrap();
    for offset in 0..third + 64 {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[offset as usize] ^= 1 << bit;
            disk.set_content(&path, bytes).unwrap();
            check_promise(&disk, offset, second, &format!("bit {bit} of byte {offset}"));
        }
    }
}

#[test]
fn a_file_that_was_truncated_anywhere_is_refused() {
    let (disk, path, _) = three_groups();
    let good = disk.content(&path).unwrap();
    for length in 0..good.len() {
        disk.set_content(&path, good[..length].to_vec()).unwrap();
        match try_open(&disk, 0).err().unwrap() {
            WalError::Damaged { path: told, offset, .. } => {
                assert_eq!(told, path);
                assert!(offset <= length as u64);
            }
            other => panic!("length {length}: {other}"),
        }
    }
}

#[test]
fn zeros_over_the_end_cost_the_last_group_at_most() {
    let (disk, path, [_, second, third]) = three_groups();
    let good = disk.content(&path).unwrap();
    for from in 0..third {
        let mut bytes = good.clone();
        bytes[from as usize..].fill(0);
        disk.set_content(&path, bytes).unwrap();
        // What is whole up to the end of a record cannot be told from a log that ended there,
        // unless something else counts on it: here, that the state is sealed up to 4.
        match try_open(&disk.fork(), 4) {
            Ok((wal, recovered)) => {
                assert_eq!(recovered.after_term, Some(1), "zeros from {from}");
                assert!(wal.last_index() >= 4);
            }
            Err(WalError::Damaged { .. }) => assert!(from < second),
            Err(WalError::EndsTooEarly { last, needed: 4, .. }) => {
                assert!(from < second && last < 4, "{from}: {last}");
            }
            Err(other) => panic!("zeros from {from}: {other}"),
        }
    }
}

#[test]
fn the_commit_index_turns_a_cut_into_a_refusal() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    put(&mut wal, entries(1..=3, 1, 30), Some(hard_state(1, 1, 3)));
    assert!(try_open(&disk, 3).is_ok());
    let error = try_open(&disk, 4).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, WalError::EndsTooEarly { last: 3, needed: 4, .. }), "{text}");
    assert!(text.contains("0000000000000001-0000000000000001.wal"), "{text}");
}

/// A log of several segments, 10 entries.
fn segments() -> (SimDisk, Vec<PathBuf>) {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    for index in 1..=10 {
        put(&mut wal, vec![entry(index, 1, 1500)], None);
    }
    let files = disk.files(".wal");
    assert!(files.len() >= 4);
    (disk, files)
}

#[test]
fn damage_in_a_segment_that_others_follow_is_refused_even_in_its_last_group() {
    let (disk, files) = segments();
    let good = disk.content(&files[1]).unwrap();
    let end = good.iter().rposition(|&b| b != 0).unwrap();
    for offset in (0..=end).rev().step_by(13) {
        let mut bytes = good.clone();
        bytes[offset] ^= 0x10;
        disk.set_content(&files[1], bytes.clone()).unwrap();
        let flipped = match try_open(&disk, 0) {
            Err(error) => Some(error),
            Ok((_, recovered)) => {
                assert_eq!(recovered.entries.len(), 10, "only padding may change unseen");
                None
            }
        };
        bytes[offset & !7..].fill(0);
        let changed = std::iter::zip(&bytes, &good).position(|(a, b)| a != b).unwrap() as u64;
        disk.set_content(&files[1], bytes).unwrap();
        let zeroed = try_open(&disk, 0).err();
        assert!(zeroed.is_some());
        for error in flipped.into_iter().chain(zeroed) {
            match error {
                WalError::Damaged { path, offset: told, .. } => {
                    assert_eq!(path, files[1]);
                    assert!(told <= changed.max(offset as u64), "offset {offset}: told {told}");
                }
                other => panic!("offset {offset}: {other}"),
            }
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let (disk, files) = segments();
    let gone = disk.fork();
    crate::shared::disk::Disk::remove(&gone, &files[1]).unwrap();
    let error = try_open(&gone, 0).err().unwrap();
    assert!(matches!(error, WalError::MissingSegment { sequence: 2, .. }), "{error}");

    let gone = disk.fork();
    crate::shared::disk::Disk::remove(&gone, &files[0]).unwrap();
    let error = try_open(&gone, 0).err().unwrap();
    assert!(matches!(error, WalError::StartsTooLate { after: 0, .. }), "{error}");
}

#[test]
fn a_segment_of_another_member_is_refused() {
    let (disk, files) = segments();
    let other = SimDisk::default();
    let identity = Identity { member_id: 0x22, ..IDENTITY };
    let mut wal = create_on(Arc::new(other.clone()), options(4096), identity, at_once).unwrap();
    for index in 1..=10 {
        put(&mut wal, vec![entry(index, 1, 1500)], None);
    }
    disk.set_content(&files[2], other.content(&files[2]).unwrap()).unwrap();
    let text = try_open(&disk, 0).err().unwrap().to_string();
    assert!(text.contains("belongs to member 22 of cluster c1"), "{text}");
}

#[test]
fn a_copy_of_another_segment_is_refused() {
    let (disk, files) = segments();
    disk.set_content(&files[2], disk.content(&files[1]).unwrap()).unwrap();
    let error = try_open(&disk, 0).err().unwrap();
    assert!(matches!(&error, WalError::Damaged { offset: 0, path, .. } if *path == files[2]));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, path, _) = three_groups();
    let mut bytes = disk.content(&path).unwrap();
    // A future metadata record: its version, then fields that this program cannot know.
    let mut metadata = vec![0u8; record::HEADER_BYTES];
    metadata.extend([250, 1, 2, 3, 4, 5, 6, 7]);
    let place = Place { sequence: 1, epoch: 0, offset: 0, group_start: 0 };
    record::seal(&mut metadata, Kind::Metadata, place).unwrap();
    bytes[..metadata.len()].copy_from_slice(&metadata);
    disk.set_content(&path, bytes).unwrap();
    let text = try_open(&disk, 0).err().unwrap().to_string();
    assert!(text.contains("format version 250") && text.contains("up to version 1"), "{text}");
}

/// Puts a record of our own making behind the records of a log.
fn append_raw(kind: Kind, payload: &[u8]) -> WalError {
    let (disk, path, [_, _, end]) = three_groups();
    let mut bytes = disk.content(&path).unwrap();
    let mut raw = vec![0u8; record::HEADER_BYTES];
    raw.extend(payload);
    let place = Place { sequence: 1, epoch: 0, offset: end, group_start: end };
    record::seal(&mut raw, kind, place).unwrap();
    bytes[end as usize..end as usize + raw.len()].copy_from_slice(&raw);
    disk.set_content(&path, bytes).unwrap();
    try_open(&disk, 0).err().unwrap()
}

#[test]
fn records_that_hold_but_make_no_sense_are_refused_and_not_cut() {
    let batch = |first: u64, count: u64| {
        let mut payload = Vec::new();
        record::encode_batch_start(first, &mut payload).unwrap();
        for index in first..first + count {
            record::encode_entry(&entry(index, 1, 3), &mut payload).unwrap();
        }
        payload
    };
    let mut state = Vec::new();
    record::encode_hard_state(&hard_state(1, 7, 99), &mut state).unwrap();
    let cut_short = batch(7, 1)[..4].to_vec();
    let cases = [
        ("a gap", Kind::Entries, batch(8, 1)),
        ("a committed entry", Kind::Entries, batch(2, 1)),
        ("an empty batch", Kind::Entries, batch(7, 0)),
        ("index 0", Kind::Entries, batch(0, 1)),
        ("a cut batch", Kind::Entries, cut_short),
        ("a commit index beyond the log", Kind::HardState, state.clone()),
        ("trailing bytes", Kind::HardState, [&state[..], &[0]].concat()),
        ("metadata", Kind::Metadata, vec![1]),
        ("an empty snapshot", Kind::Snapshot, vec![]),
    ];
    for (what, kind, payload) in cases {
        let error = append_raw(kind, &payload);
        assert!(matches!(error, WalError::Damaged { .. }), "{what}: {error}");
    }
}

#[test]
fn a_refused_log_is_left_as_it_was() {
    let (disk, path, _) = three_groups();
    let mut bytes = disk.content(&path).unwrap();
    bytes[200] ^= 1;
    disk.set_content(&path, bytes.clone()).unwrap();
    assert!(try_open(&disk, 0).is_err());
    assert!(try_open(&disk, 50).is_err());
    assert!(disk.content(&path).unwrap() == bytes);
}

#[test]
fn any_bytes_at_all_are_read_without_a_panic() {
    use proptest::prelude::*;
    let (disk, path, _) = three_groups();
    let good = disk.content(&path).unwrap();
    proptest!(ProptestConfig::with_cases(300), |(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        at in 0usize..700,
    )| {
        crate::wal_writer::fuzz_segment(&noise);
        let mut bytes = good.clone();
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        crate::wal_writer::fuzz_segment(&bytes);
        disk.set_content(&path, bytes).unwrap();
        let _ = try_open(&disk, 0);
    });
}
