//! The checkpoint store on a disk that fails it. The power is cut while it seals, again and
//! again: what it reported as sealed must be there, whole. And the disk gets full.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use castd_actors::checkpointer::{
    BlockSource, BlockVisitor, CheckpointStore, Reclaim, RevisionKey, SealJob, SledStore,
    SledStoreOptions, StoreError,
};
use rand::Rng;

#[path = "support/powercut.rs"]
mod powercut;

use powercut::Disk;

const DIR_FOR_CHILD: &str = "CASTD_POWERCUT_CHILD_DIR";
const ROUNDS: &str = "CASTD_POWERCUT_ROUNDS";
const ROUNDS_DEFAULT: u32 = 3;

/// The state at an index is a function of the index alone, so that parent and child agree
/// on it without a word: each index adds revisions, what is older than 10 indexes is compacted
/// to a third, and what is older than 30 is gone.
#[derive(Copy, Clone)]
struct State {
    index: u64,
}

const REVISIONS_PER_INDEX: i64 = 300;
const REVISIONS_PER_BLOCK: i64 = 20;
const VALUE_BYTES: usize = 700;

impl State {
    fn last(self) -> i64 {
        self.index.cast_signed() * REVISIONS_PER_INDEX
    }

    fn lives(self, main: i64) -> bool {
        let age = (self.last() - main) / REVISIONS_PER_INDEX;
        (1..=self.last()).contains(&main) && (age < 10 || age < 30 && main % 3 == 0)
    }
}

fn key(main: i64) -> RevisionKey {
    RevisionKey { main, sub: 0 }
}

fn value(main: i64) -> Vec<u8> {
    let mut state = main.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..VALUE_BYTES / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// A block is the revision and the value of each record, one after the other.
const RECORD_BYTES: usize = 8 + VALUE_BYTES / 8 * 8;

impl BlockSource for State {
    fn visit(
        &self,
        from: RevisionKey,
        to: RevisionKey,
        f: BlockVisitor<'_>,
    ) -> Result<(), StoreError> {
        let (mut next, end) = (from.main.max(1) + i64::from(from.sub > 0), to.main);
        while next <= end {
            let block_end = end.min(next + REVISIONS_PER_BLOCK - 1);
            let live: Vec<i64> = (next..=block_end).filter(|&main| self.lives(main)).collect();
            next = block_end + 1;
            let (Some(first), Some(last)) = (live.first(), live.last()) else { continue };
            let record = |main: &i64| [&main.to_be_bytes()[..], &value(*main)].concat();
            let bytes: Vec<u8> = live.iter().flat_map(record).collect();
            f(key(*first), key(*last), &bytes)?;
        }
        Ok(())
    }

    fn live_bytes(&self, from: RevisionKey, to: RevisionKey) -> u64 {
        let range = from.main.max(1)..=to.main.min(self.last());
        (range.filter(|&main| self.lives(main)).count() * RECORD_BYTES) as u64
    }
}

fn open(dir: &Path) -> SledStore {
    let options = SledStoreOptions {
        volume_bytes: 1 << 20,
        rewrite_bytes: 2 << 20,
        bytes_per_second_max: u64::MAX,
    };
    SledStore::open(dir, options).expect("the store opens after every cut")
}

fn job(index: u64, reclaim: Reclaim) -> SealJob {
    let state = State { index };
    SealJob {
        applied_index: index,
        applied_term: 1,
        last: key(state.last()),
        meta: Bytes::from(index.to_string()),
        compact_revision: 0,
        reclaim,
        source: Arc::new(state),
    }
}

/// Loads and compares with what the state was; gives the index.
fn check(dir: &Path) -> u64 {
    let mut revisions = Vec::new();
    let mut store = open(dir);
    let meta = store.load(&mut |_, _, bytes| {
        for record in bytes.chunks(RECORD_BYTES) {
            let (main, content) = record.split_first_chunk::<8>().expect("a record has a revision");
            let main = i64::from_be_bytes(*main);
            assert_eq!(content, value(main), "revision {main}");
            revisions.push(main);
        }
        Ok(())
    });
    let Some(meta) = meta.expect("what was sealed can be read") else { return 0 };
    let state = State { index: meta.applied_index };
    assert_eq!(meta.last, key(state.last()));
    assert_eq!(meta.meta, meta.applied_index.to_string());
    assert!(revisions.is_sorted_by(|a, b| a < b), "in order, each once");
    assert!(revisions.last().is_none_or(|&last| last <= state.last()));
    for main in (1..=state.last()).filter(|&main| state.lives(main)) {
        assert!(revisions.binary_search(&main).is_ok(), "revision {main} is lost");
    }
    meta.applied_index
}

/// Not a test of its own: the program that is running when the power goes.
#[test]
#[ignore = "started by power_cuts_lose_no_seal"]
fn seal_until_the_power_goes() {
    let Ok(dir) = std::env::var(DIR_FOR_CHILD) else { return };
    let dir = Path::new(&dir);
    let mut store = open(dir);
    let sealed = store.load(&mut |_, _, _| Ok(())).expect("what was sealed can be read");
    let mut index = sealed.map_or(0, |meta| meta.applied_index);
    println!("\nstarted");
    loop {
        index += rand::rng().random_range(1..4);
        let reclaim = match index {
            _ if index.is_multiple_of(16) => Reclaim::All,
            _ if index.is_multiple_of(5) => Reclaim::Replace,
            _ => Reclaim::Paced,
        };
        match store.seal(&job(index, reclaim)) {
            Ok(sealed) => println!("\nsealed {}", sealed.applied_index),
            Err(error) => {
                println!("\nfailed: {error}");
                return;
            }
        }
    }
}

fn start_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--ignored", "--exact", "--nocapture", "seal_until_the_power_goes"])
        .env(DIR_FOR_CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts itself")
}

/// One cut, `patience` after so many seals; gives the highest index that was reported
/// before it.
fn cut_while_sealing(disk: &Disk, dir: &Path, seals: usize, patience: Duration) -> u64 {
    let mut child = start_child(dir);
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut lines = output.lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "started"), "the child could not start");
    let mut reports = lines.filter_map(|line| line.strip_prefix("sealed ")?.parse::<u64>().ok());
    let before: Vec<u64> = reports.by_ref().take(seals).collect();
    assert_eq!(before.len(), seals, "the child stopped sealing");
    let reader = std::thread::spawn(move || reports.max());
    // Not a wait for a condition: the moment of the cut is what is random here.
    std::thread::sleep(patience);
    disk.cut_power().expect("the kernel cuts the power");
    child.kill().expect("the child is ours");
    child.wait().expect("the child ends");
    let after = reader.join().expect("the reader ends with its pipe");
    after.or(before.last().copied()).unwrap_or(0)
}

#[test]
fn power_cuts_lose_no_seal() {
    let Some(mut disk) = Disk::or_skip(1 << 30) else { return };
    let rounds = std::env::var(ROUNDS).ok().and_then(|v| v.parse().ok()).unwrap_or(ROUNDS_DEFAULT);
    let dir = disk.path().join("member/snap");
    let mut indexes = Vec::new();
    for round in 1..=rounds {
        let seals = if round == 1 { 1 } else { rand::rng().random_range(0..5) };
        let patience = Duration::from_micros(rand::rng().random_range(0..300_000));
        let reported = cut_while_sealing(&disk, &dir, seals, patience);
        disk.power_on().expect("the file system comes back");
        let found = check(&dir);
        assert!(
            found >= reported,
            "round {round}, cut {patience:?} after {seals} seals: index {reported} was \
             reported as sealed, and index {found} is there"
        );
        indexes.push(found);
    }
    println!("{rounds} power cuts; sealed index after each: {indexes:?}");
}

/// Fills the disk but for so many bytes.
fn leave_room(disk: &Disk, bytes: u64) {
    let mut filler = File::create(disk.path().join("filler")).expect("an empty disk");
    let chunk = vec![1u8; 64 * 1024];
    while filler.write_all(&chunk).and_then(|()| filler.sync_data()).is_ok() {}
    let length = filler.metadata().expect("it is open").len();
    filler.set_len(length - bytes).expect("a file can be made shorter");
    filler.sync_all().expect("no more room is needed");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_sealed_copy() {
    let Some(disk) = Disk::or_skip(16 << 20) else { return };
    leave_room(&disk, 2 << 20);
    let dir = disk.path().join("member/snap");
    let mut store = open(&dir);
    let mut index = 0;
    let (sealed, error) = loop {
        index += 2;
        assert!(index < 1000, "the disk never gets full");
        match store.seal(&job(index, Reclaim::Paced)) {
            Ok(sealed) => assert_eq!(sealed.applied_index, index),
            Err(error) => break (index - 2, error),
        }
    };
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    drop(store);
    assert_eq!(check(&dir), sealed);
}
