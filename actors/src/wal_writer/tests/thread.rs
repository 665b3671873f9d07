//! The thread, on a real disk.

use std::path::Path;

use crossbeam_channel::{Receiver, Sender, bounded};
use prometheus::Registry;

use super::*;
use crate::wal_writer::{self, WalEvents, WalHandle, WalMessage, WalMetrics};

/// Passes what the log says on to the test.
struct Report {
    persisted: Sender<u64>,
    failed: Sender<WalError>,
}

impl WalEvents for Report {
    fn persisted(&mut self, ready_number: u64) {
        self.persisted.send(ready_number).unwrap();
    }
    fn failed(&mut self, error: WalError) {
        self.failed.send(error).unwrap();
    }
}

struct Running {
    handle: WalHandle,
    thread: std::thread::JoinHandle<()>,
    persisted: Receiver<u64>,
    failed: Receiver<WalError>,
    registry: Registry,
}

fn start(wal: Wal) -> Running {
    let (persisted, persisted_inbox) = bounded(1000);
    let (failed, failed_inbox) = bounded(1);
    let registry = Registry::new();
    let metrics = WalMetrics::new(&registry).unwrap();
    let (handle, thread) =
        wal_writer::spawn(wal, 64, Report { persisted, failed }, metrics).unwrap();
    Running { handle, thread, persisted: persisted_inbox, failed: failed_inbox, registry }
}

fn on(dir: &Path) -> WalOptions {
    WalOptions { segment_bytes: 1 << 16, ..WalOptions::new(dir.join("wal")) }
}

fn request(index: u64) -> WalMessage {
    WalMessage::Append(Append {
        ready_number: index,
        entries: vec![entry(index, 1, 2000)],
        hard_state: Some(hard_state(1, 1, index)),
        must_sync: true,
    })
}

#[test]
fn requests_are_answered_in_order_and_survive() {
    let temp = tempfile::tempdir().unwrap();
    let wal = wal_writer::create(on(temp.path()), IDENTITY).unwrap();
    assert!(wal_writer::exists(&on(temp.path()).dir).unwrap());
    let running = start(wal);
    for index in 1..=300 {
        running.handle.send(request(index)).unwrap();
        if index % 100 == 0 {
            running.handle.send(WalMessage::Release { index: index - 50 }).unwrap();
        }
    }
    running.handle.send(WalMessage::Stop).unwrap();
    running.thread.join().unwrap();
    let answers: Vec<u64> = running.persisted.try_iter().collect();
    assert!(answers.is_sorted());
    assert_eq!(answers.last(), Some(&300));
    assert!(running.failed.is_empty());

    let families = running.registry.gather();
    let fsyncs = families.iter().find(|f| f.name() == "etcd_disk_wal_fsync_duration_seconds");
    let count = fsyncs.unwrap().get_metric()[0].get_histogram().get_sample_count();
    assert_eq!(count, answers.len() as u64, "one fsync for each group");

    let (wal, recovered) = wal_writer::open(on(temp.path()), 250).unwrap();
    assert_eq!(indexes(&recovered), (251..=300).collect::<Vec<_>>());
    assert_eq!(recovered.segments, wal.segments());
    assert!(wal.segments() <= 3, "{} segments", wal.segments());
}

#[test]
fn without_a_thread_a_turn_serves_one_group() {
    let (persisted, answers) = bounded(10);
    let (failed, failures) = bounded(1);
    let disk = SimDisk::new();
    let metrics = WalMetrics::new(&Registry::new()).unwrap();
    let report = Report { persisted, failed };
    let (handle, mut writer) = wal_writer::writer(create(&disk, 1 << 16), 64, report, metrics);
    assert!(!writer.turn().unwrap(), "nothing waits");
    for index in 1..=3 {
        handle.send(request(index)).unwrap();
    }
    assert_eq!(writer.waiting(), 3);
    let (syncs, _) = disk.syncs_and_writes();
    assert!(writer.turn().unwrap());
    assert_eq!((writer.waiting(), disk.syncs_and_writes().0), (0, syncs + 1));
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [3]);
    handle.send(WalMessage::Stop).unwrap();
    handle.send(request(4)).unwrap();
    assert!(writer.turn().unwrap());
    assert!(!writer.turn().unwrap(), "it was stopped");
    drop(writer);
    disk.crash(1);
    let (wal, recovered) = open(&disk, 0);
    assert_eq!(indexes(&recovered), [1, 2, 3]);
    let report = Report { persisted: bounded(1).0, failed: bounded(1).0 };
    let metrics = WalMetrics::new(&Registry::new()).unwrap();
    let (handle, mut writer) = wal_writer::writer(wal, 64, report, metrics);
    disk.fail_after(0);
    handle.send(request(4)).unwrap();
    assert!(matches!(writer.turn(), Err(WalError::Io { .. })));
    assert!(failures.is_empty(), "who takes the turn has the error");
}

#[test]
fn the_first_failure_is_reported_and_ends_the_thread() {
    let disk = SimDisk::default();
    let running = start(create(&disk, 1 << 16));
    disk.fail_after(0);
    running.handle.send(request(1)).unwrap();
    running.thread.join().unwrap();
    assert!(matches!(running.failed.recv().unwrap(), WalError::Io { .. }));
    assert!(running.persisted.is_empty(), "nothing may be acknowledged");
    assert!(running.handle.send(request(2)).is_err());
}

#[test]
fn a_panic_is_reported_like_a_failure() {
    struct Panics(Sender<WalError>);
    impl WalEvents for Panics {
        fn persisted(&mut self, ready_number: u64) {
            panic!("{ready_number}, on purpose");
        }
        fn failed(&mut self, error: WalError) {
            self.0.send(error).unwrap();
        }
    }
    let (failed, inbox) = bounded(1);
    let wal = create(&SimDisk::default(), 1 << 16);
    let metrics = WalMetrics::new(&Registry::new()).unwrap();
    let (handle, thread) = wal_writer::spawn(wal, 4, Panics(failed), metrics).unwrap();
    handle.send(request(1)).unwrap();
    thread.join().unwrap();
    assert!(matches!(inbox.recv().unwrap(), WalError::Panicked));
}

#[test]
fn a_full_channel_hands_the_message_back() {
    let (sender, _inbox) = bounded(1);
    let handle = WalHandle::over(sender);
    assert_eq!((handle.depth(), handle.capacity()), (0, 1));
    handle.try_send(request(1)).unwrap();
    assert!(handle.try_send(request(2)).unwrap_err().is_full());
    assert_eq!(handle.depth(), 1);
}

#[test]
fn an_unwritable_directory_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = wal_writer::create(on(&file), IDENTITY).err().unwrap();
    assert!(error.to_string().contains("file/wal"), "{error}");
}
