//! Each rule of the log, on its own.

use super::*;

#[test]
fn what_was_put_is_there_after_opening() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    let mut special = entry(3, 2, 10);
    special.entry_type = 2;
    special.context = vec![7; 5].into();
    let written = [entries(1..=2, 1, 100), vec![special], vec![entry(4, 2, 0)]].concat();
    put(&mut wal, written[..2].to_vec(), Some(hard_state(1, 9, 0)));
    put(&mut wal, written[2..].to_vec(), Some(hard_state(2, 5, 3)));

    let (wal, recovered) = open(&disk, 0);
    assert_eq!(recovered.entries, written);
    assert_eq!(recovered.hard_state, hard_state(2, 5, 3));
    assert_eq!(recovered.identity, IDENTITY);
    assert_eq!((recovered.cut, recovered.segments), (None, 1));
    assert_eq!(wal.last_index(), 4);
}

#[test]
fn entries_up_to_the_sealed_index_are_left_out_but_its_term_is_told() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    put(&mut wal, entries(1..=5, 3, 8), Some(hard_state(3, 1, 2)));
    let (_, recovered) = open(&disk, 4);
    assert_eq!(indexes(&recovered), [5]);
    assert_eq!(recovered.after_term, Some(3));
    assert_eq!(recovered.hard_state.commit, 4, "what is sealed was committed");
}

#[test]
fn an_entry_at_or_below_the_last_index_truncates_what_follows() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    put(&mut wal, entries(1..=40, 1, 200), Some(hard_state(1, 1, 10)));
    put(&mut wal, entries(20..=22, 2, 50), Some(hard_state(2, 1, 10)));
    assert!(wal.segments() > 2);
    let (_, recovered) = open(&disk, 0);
    assert_eq!(indexes(&recovered), (1..=22).collect::<Vec<_>>());
    assert_eq!((recovered.entries[18].term, recovered.entries[19].term), (1, 2));
}

#[test]
fn a_group_that_replaces_its_own_entries_keeps_the_last_ones() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    stage(&mut wal, entries(1..=5, 1, 10), Some(hard_state(1, 1, 0)));
    stage(&mut wal, entries(3..=3, 2, 10), Some(hard_state(2, 1, 0)));
    put(&mut wal, vec![], None);
    let (_, recovered) = open(&disk, 0);
    assert_eq!(recovered.entries, [entries(1..=2, 1, 10), entries(3..=3, 2, 10)].concat());
}

#[test]
fn what_breaks_rafts_rules_is_refused() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    put(&mut wal, entries(1..=5, 1, 10), Some(hard_state(1, 1, 3)));
    let mut refused = |entries, hard_state| {
        let request = Append { entries, hard_state, ..Append::default() };
        matches!(wal.append(&request), Err(WalError::OutOfOrder(_)))
    };
    assert!(refused(entries(7..=7, 1, 1), None), "a gap");
    assert!(refused(entries(3..=3, 2, 1), None), "a committed entry replaced");
    assert!(refused(vec![], Some(hard_state(1, 1, 6))), "a commit index beyond the log");
    assert!(refused(vec![], Some(hard_state(1, 1, 2))), "a commit index that goes back");
    assert!(refused(vec![], Some(hard_state(0, 1, 3))), "a term that goes back");
    let old = SnapshotMarker { index: 2, ..SnapshotMarker::default() };
    assert!(matches!(wal.restart_behind(&old), Err(WalError::OutOfOrder(_))));
}

#[test]
fn a_log_that_a_snapshot_left_behind_is_restarted_once() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    put(&mut wal, entries(1..=30, 2, 200), Some(hard_state(3, 9, 20)));
    drop(wal);
    let refused = try_open(&disk, 50).err().expect("the log does not reach the sealed state");
    assert!(matches!(refused, WalError::EndsTooEarly { .. }), "{refused}");
    let (mut wal, recovered) = open_behind(&disk, 50, 3).unwrap();
    assert_eq!(recovered.hard_state, hard_state(3, 9, 50), "the vote of this term is kept");
    assert_eq!((indexes(&recovered), recovered.after_term), (vec![], Some(3)));
    put(&mut wal, entries(51..=53, 3, 10), Some(hard_state(3, 9, 52)));
    drop(wal);
    for (_, recovered) in [open_behind(&disk, 50, 3).unwrap(), open(&disk, 50)] {
        assert_eq!(indexes(&recovered), [51, 52, 53], "it is not restarted again");
        assert_eq!(recovered.hard_state, hard_state(3, 9, 52));
    }
    assert!(try_open(&disk, 30).is_err(), "an older state does not fit any more");
}

#[test]
fn a_snapshots_term_is_not_gone_back_behind_and_entries_it_replaced_are_gone() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    // Entries of a leader that lost, further than the snapshot.
    put(&mut wal, entries(1..=40, 2, 100), Some(hard_state(2, 9, 10)));
    drop(wal);
    let (wal, recovered) = open_behind(&disk, 30, 5).unwrap();
    assert_eq!(recovered.hard_state, hard_state(5, 0, 30), "nobody has this vote yet");
    assert_eq!((recovered.entries.len(), wal.last_index()), (0, 30));
    drop(wal);
    let (_, recovered) = open(&disk, 30);
    assert_eq!((recovered.after_term, recovered.entries.len()), (Some(5), 0));
}

#[test]
fn a_log_that_holds_the_snapshots_entry_stays_and_one_that_went_beyond_is_refused() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    put(&mut wal, entries(1..=40, 2, 100), Some(hard_state(2, 9, 35)));
    drop(wal);
    let (wal, recovered) = open_behind(&disk, 30, 2).unwrap();
    assert_eq!(indexes(&recovered), (31..=40).collect::<Vec<_>>());
    drop(wal);
    assert!(open_behind(&disk, 30, 3).is_err(), "what was committed is not thrown away");
}

#[test]
fn a_snapshot_marker_restarts_the_log() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    put(&mut wal, entries(1..=5, 1, 10), Some(hard_state(1, 1, 3)));
    let marker = SnapshotMarker { index: 90, term: 4, conf_state: vec![1, 2, 3].into() };
    wal.restart_behind(&marker).unwrap();
    put(&mut wal, entries(91..=92, 4, 10), Some(hard_state(4, 0, 90)));

    let (_, recovered) = open(&disk, 90);
    assert_eq!(indexes(&recovered), [91, 92]);
    assert_eq!(recovered.snapshot, Some(marker));
    assert_eq!(recovered.after_term, Some(4));
    let error = try_open(&disk, 5).err().unwrap();
    assert!(matches!(error, WalError::StartsTooLate { first: 91, after: 5, .. }), "{error}");
}

#[test]
fn a_configuration_that_could_not_be_read_back_is_refused() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    let marker = |bytes| SnapshotMarker { index: 9, term: 1, conf_state: vec![3; bytes].into() };
    assert!(matches!(wal.restart_behind(&marker((512 << 10) + 1)), Err(WalError::Encode(_))));
    let mut wal = open(&disk, 0).0;
    wal.restart_behind(&marker(512 << 10)).unwrap();
    put(&mut wal, vec![], None);
    assert_eq!(open(&disk, 9).1.snapshot, Some(marker(512 << 10)));
}

#[test]
fn a_marker_without_its_hard_state_raises_the_commit_index() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    wal.restart_behind(&SnapshotMarker { index: 9, term: 1, ..SnapshotMarker::default() }).unwrap();
    put(&mut wal, vec![], None);
    assert_eq!(open(&disk, 9).1.hard_state.commit, 9);
}

#[test]
fn entries_larger_than_a_segment_get_one_of_their_own() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    let written = vec![entry(1, 1, 10), entry(2, 1, 100_000), entry(3, 1, 10), entry(4, 1, 5_000)];
    put(&mut wal, written.clone(), None);
    put(&mut wal, entries(5..=6, 1, 10), None);
    let (mut wal, recovered) = open(&disk, 0);
    assert_eq!(recovered.entries[..4], written);
    assert_eq!(indexes(&recovered), [1, 2, 3, 4, 5, 6]);
    wal.release(6).unwrap();
    assert!(disk.files(".spare").iter().all(|path| disk.content(path).unwrap().len() == 4096));
}

#[test]
fn release_gives_up_what_is_not_needed_and_only_that() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    for index in 1..=40 {
        put(&mut wal, vec![entry(index, 1, 500)], Some(hard_state(1, 1, index)));
    }
    let all = wal.segments();
    assert!(all >= 6);
    wal.release(0).unwrap();
    assert_eq!(wal.segments(), all);
    wal.release(20).unwrap();
    let some = wal.segments();
    assert!(some < all && some > 1);
    let (mut wal, recovered) = open(&disk, 20);
    assert_eq!(indexes(&recovered), (21..=40).collect::<Vec<_>>());
    assert_eq!(recovered.segments, some);
    assert!(matches!(try_open(&disk, 0), Err(WalError::StartsTooLate { .. })));

    wal.release(40).unwrap();
    assert_eq!(wal.segments(), 1);
    assert_eq!(disk.files(".spare").len(), 2, "as many spares as the options say");
    let (_, recovered) = open(&disk, 40);
    assert_eq!(recovered.entries, []);
    assert_eq!(recovered.hard_state, hard_state(1, 1, 40));
}

#[test]
fn replaced_entries_do_not_hold_back_a_release() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    put(&mut wal, entries(1..=40, 1, 500), Some(hard_state(1, 1, 5)));
    put(&mut wal, entries(6..=6, 2, 3000), Some(hard_state(2, 1, 6)));
    put(&mut wal, entries(7..=7, 2, 3000), Some(hard_state(2, 1, 7)));
    wal.release(6).unwrap();
    assert!(wal.segments() <= 2);
    assert_eq!(indexes(&open(&disk, 6).1), [7]);
}

#[test]
fn an_entry_is_not_given_up_before_the_one_that_replaced_it_is_durable() {
    for seed in 0..20 {
        let disk = SimDisk::default();
        let mut wal = create(&disk, 4096);
        put(&mut wal, entries(1..=2, 1, 1500), Some(hard_state(1, 1, 1)));
        stage(&mut wal, entries(2..=2, 2, 1500), Some(hard_state(2, 1, 1)));
        assert_eq!(wal.segments(), 2);
        wal.release(1).unwrap();
        disk.crash(seed);
        assert_eq!(open(&disk, 1).1.entries, entries(2..=2, 2, 1500));
    }
}

#[test]
fn a_torn_tail_is_cut_overwritten_and_reported() {
    let (mut cuts, seeds) = (0, 64);
    for seed in 0..seeds {
        let disk = SimDisk::default();
        let mut wal = create(&disk, 1 << 16);
        put(&mut wal, entries(1..=2, 1, 700), None);
        let end = open(&disk.fork(), 0).1.bytes as usize;
        for index in 3..=8 {
            stage(&mut wal, vec![entry(index, 1, 1300)], None);
            wal.write().unwrap();
        }
        disk.crash(seed);
        let (_, recovered) = open(&disk, 0);
        assert!(recovered.entries.len() >= 2);
        let Some(cut) = recovered.cut else { continue };
        cuts += 1;
        assert!(cut.offset as usize >= end && cut.bytes > 0);
        let content = disk.content(&cut.path).unwrap();
        // The hard state that begins the next epoch is 32 bytes long.
        let end = (cut.offset + cut.bytes).max(cut.offset + 32) as usize;
        let zeroed = cut.offset as usize + 32..end;
        assert!(content[zeroed].iter().all(|&byte| byte == 0), "seed {seed}");
    }
    assert!(cuts > seeds / 4, "{cuts} cuts");
}

/// A torn group leaves the second half of a record; the log is opened; another torn group
/// writes the first half of a record in the same place. The two halves must not make one. The
/// place is the end of a page: the rest of the page is overwritten when the log is opened.
#[test]
fn what_two_torn_groups_left_never_adds_up_to_a_record() {
    for (padding, seed) in (0..40).flat_map(|p| (0..64).map(move |s| (p, s))) {
        let disk = SimDisk::default();
        let mut wal = create(&disk, 1 << 14);
        put(&mut wal, vec![entry(1, 1, 3800 + 8 * padding)], Some(hard_state(1, 7, 0)));
        let old = Entry { data: vec![b'a'; 9].into(), ..entry(2, 1, 0) };
        stage(&mut wal, vec![old.clone()], Some(hard_state(1, 8, 0)));
        wal.write().unwrap();
        disk.crash(seed);

        let (mut wal, recovered) = open(&disk, 0);
        if recovered.entries.contains(&old) {
            continue;
        }
        let new = Entry { data: vec![b'b'; 9].into(), ..entry(2, 1, 0) };
        stage(&mut wal, vec![new], None);
        wal.write().unwrap();
        disk.crash(seed + 1000);
        let (_, recovered) = open(&disk, 0);
        assert!(!recovered.entries.contains(&old), "padding {padding}, seed {seed}");
    }
}

#[test]
fn a_log_goes_on_where_it_was_closed() {
    let disk = SimDisk::default();
    drop(create(&disk, 4096));
    for index in 1..=60 {
        let (mut wal, recovered) = open(&disk, 0);
        assert_eq!(recovered.entries.len() as u64, index - 1);
        assert_eq!(recovered.cut, None);
        put(&mut wal, vec![entry(index, 1, (index * 37 % 900) as usize)], None);
    }
}

#[test]
fn recycled_segments_never_show_their_old_content() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    for index in 1..=200 {
        put(&mut wal, vec![entry(index, 1, 500)], Some(hard_state(1, 1, index)));
        wal.release(index).unwrap();
        let (_, recovered) = open(&disk, index);
        assert_eq!((recovered.entries.len(), recovered.cut), (0, None), "after {index}");
        assert_eq!(wal.last_index(), index);
    }
    let files = disk.files("");
    assert!(files.len() <= 4, "segments are recycled: {files:?}");
}

#[test]
fn a_commit_index_alone_is_written_without_a_sync() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 16);
    put(&mut wal, entries(1..=3, 1, 10), Some(hard_state(1, 1, 0)));
    let (syncs, writes) = disk.syncs_and_writes();
    stage(&mut wal, vec![], Some(hard_state(1, 1, 3)));
    wal.write().unwrap();
    assert!(wal.is_dirty());
    assert_eq!(disk.syncs_and_writes(), (syncs, writes + 1));
    assert_eq!(open(&disk, 0).1.hard_state, hard_state(1, 1, 3));
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 1 << 20);
    let (syncs, writes) = disk.syncs_and_writes();
    for index in 1..=256 {
        stage(&mut wal, vec![entry(index, 1, 300)], Some(hard_state(1, 1, index)));
    }
    put(&mut wal, vec![], None);
    assert_eq!(disk.syncs_and_writes(), (syncs + 1, writes + 1));
    let (_, recovered) = open(&disk, 0);
    assert_eq!(recovered.entries.len(), 256);
    assert!(recovered.bytes < 256 * 312 + 400, "{} bytes", recovered.bytes);
}

#[test]
fn an_existing_log_is_not_created_again_and_a_missing_one_not_opened() {
    let disk = SimDisk::default();
    assert!(matches!(try_open(&disk, 0), Err(WalError::NotFound(_))));
    drop(create(&disk, 4096));
    let again = create_on(Arc::new(disk), options(4096), IDENTITY, at_once);
    assert!(matches!(again, Err(WalError::Exists(_))));
}

#[test]
fn creation_is_whole_or_nothing_wherever_it_is_cut() {
    for operations in 0..40 {
        for seed in 0..8 {
            let disk = SimDisk::default();
            disk.fail_after(operations);
            let created =
                create_on(Arc::new(disk.clone()), options(8192), IDENTITY, at_once).is_ok();
            disk.crash(seed);
            match try_open(&disk, 0) {
                Ok((_, recovered)) => assert_eq!(recovered.identity, IDENTITY),
                Err(WalError::NotFound(_)) => {
                    assert!(!created, "operations {operations}, seed {seed}");
                    drop(create(&disk, 8192));
                }
                Err(other) => panic!("operations {operations}, seed {seed}: {other}"),
            }
        }
    }
}

#[test]
fn a_full_disk_is_named() {
    let disk = SimDisk::default();
    let mut wal = create(&disk, 4096);
    disk.limit_bytes(4096);
    let request = Append { entries: entries(1..=40, 1, 500), ..Append::default() };
    let error = wal.append(&request).unwrap_err();
    assert!(error.to_string().starts_with("no space left on device"), "{error}");
}
