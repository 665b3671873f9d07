//! The store against a model, against damage and against its own promises of cost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::place::Place;
use super::store::Step;
use super::*;
use crate::shared::disk::RealDisk;

/// Cuts a seal short after so many steps, as a crash would.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) steps_left: Option<u32>,
}

impl Cut {
    pub(super) fn reach(&mut self, _step: Step) -> Result<(), StoreError> {
        match &mut self.steps_left {
            None => Ok(()),
            Some(0) => Err(StoreError::Cut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

pub(super) fn real_place(dir: &Path) -> Place {
    Place::new(Arc::new(RealDisk { unsafe_no_fsync: false }), dir)
}

type Records = BTreeMap<RevisionKey, Vec<u8>>;

/// A state that packs its records into blocks of about `block_bytes` as it is visited.
#[derive(Clone, Debug)]
struct View {
    records: Arc<Records>,
    block_bytes: usize,
}

fn pack(records: &[(&RevisionKey, &Vec<u8>)]) -> Vec<u8> {
    let owned: Vec<(RevisionKey, Vec<u8>)> =
        records.iter().map(|(k, v)| (**k, (*v).clone())).collect();
    bincode::encode_to_vec(owned, bincode::config::standard()).unwrap()
}

fn unpack(bytes: &[u8]) -> Vec<(RevisionKey, Vec<u8>)> {
    bincode::decode_from_slice(bytes, bincode::config::standard()).unwrap().0
}

impl BlockSource for View {
    fn visit(
        &self,
        from: RevisionKey,
        to: RevisionKey,
        f: BlockVisitor<'_>,
    ) -> Result<(), StoreError> {
        let mut open: Vec<(&RevisionKey, &Vec<u8>)> = Vec::new();
        let mut emit = |open: &mut Vec<(&RevisionKey, &Vec<u8>)>| {
            let (Some(first), Some(last)) = (open.first(), open.last()) else { return Ok(()) };
            f(*first.0, *last.0, &pack(open))?;
            open.clear();
            Ok(())
        };
        for record in self.records.range(from..=to) {
            open.push(record);
            if open.iter().map(|(_, v)| v.len()).sum::<usize>() >= self.block_bytes {
                emit(&mut open)?;
            }
        }
        emit(&mut open)
    }

    fn live_bytes(&self, from: RevisionKey, to: RevisionKey) -> u64 {
        self.records.range(from..=to).map(|(_, v)| v.len() as u64 + 4).sum()
    }
}

fn key(main: i64) -> RevisionKey {
    RevisionKey { main, sub: 0 }
}

/// Bytes that look random and tell the records apart.
fn value(seed: i64, length: usize) -> Vec<u8> {
    let mut state = seed.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn records(revisions: std::ops::Range<i64>, length: usize) -> Records {
    revisions.map(|main| (key(main), value(main, length))).collect()
}

fn job(applied_index: u64, last: i64, records: &Records) -> SealJob {
    SealJob {
        applied_index,
        applied_term: 3,
        last: key(last),
        meta: Bytes::from(format!("meta at {applied_index}")),
        compact_revision: 0,
        reclaim: Reclaim::Paced,
        source: Arc::new(View { records: Arc::new(records.clone()), block_bytes: 700 }),
    }
}

fn small_options() -> SledStoreOptions {
    SledStoreOptions { volume_bytes: 4000, rewrite_bytes: 8000, ..SledStoreOptions::default() }
}

fn open(dir: &Path) -> SledStore {
    SledStore::open(dir, small_options()).unwrap()
}

fn load(store: &mut SledStore) -> Result<Option<(LoadedMeta, Records)>, StoreError> {
    let mut records = Records::new();
    let meta = store.load(&mut |first, last, bytes| {
        let block = unpack(&bytes);
        assert_eq!((block[0].0, block[block.len() - 1].0), (first, last));
        records.extend(block);
        Ok(())
    })?;
    Ok(meta.map(|meta| (meta, records)))
}

#[test]
fn nothing_sealed_is_nothing_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir.path().join("member/snap"));
    assert!(load(&mut store).unwrap().is_none());
    assert_eq!(store.disk_bytes(), 0);
}

#[test]
fn what_was_sealed_is_loaded_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let all = records(1..200, 100);
    let sealed = open(dir.path()).seal(&job(50, 199, &all)).unwrap();
    assert!(sealed.volumes >= 4, "{sealed:?}");
    let mut store = open(dir.path());
    let (meta, loaded) = load(&mut store).unwrap().unwrap();
    assert_eq!(loaded, all);
    assert_eq!((meta.applied_index, meta.applied_term, meta.last), (50, 3, key(199)));
    assert_eq!(meta.meta, "meta at 50");
    assert_eq!(store.disk_bytes(), sealed.disk_bytes);
}

#[test]
fn a_seal_writes_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.seal(&job(50, 199, &records(1..200, 100))).unwrap();
    let named: Vec<_> = volumes_in(dir.path());
    let second = store.seal(&job(60, 219, &records(1..220, 100))).unwrap();
    assert_eq!((second.volumes_written, second.volumes_retired), (1, 0));
    let unchanged = store.seal(&job(70, 219, &records(1..220, 100))).unwrap();
    assert_eq!(unchanged.volumes_written, 0);
    assert!(unchanged.bytes_written < 2000, "the manifest alone");
    assert!(named.iter().all(|volume| volumes_in(dir.path()).contains(volume)));
}

#[test]
fn compacted_volumes_give_their_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut all = records(1..400, 100);
    let full = store.seal(&job(10, 399, &all)).unwrap();
    all.retain(|k, _| k.main > 200 && k.main % 3 == 0);
    let mut after = store.seal(&job(11, 399, &all)).unwrap();
    for applied_index in 12..20 {
        after = store.seal(&job(applied_index, 399, &all)).unwrap();
    }
    assert_eq!(after.volumes_written, 0, "it comes to rest");
    assert!(after.disk_bytes * 3 < full.disk_bytes, "{full:?} {after:?}");
    let (_, loaded) = load(&mut open(dir.path())).unwrap().unwrap();
    assert!(all.iter().all(|(k, v)| loaded.get(k) == Some(v)));
}

#[test]
fn the_clean_floor_is_that_of_the_oldest_volume() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let compacted = |index, last, compact_revision, reclaim| {
        let plain = job(index, last, &records(1..last + 1, 100));
        SealJob { compact_revision, reclaim, ..plain }
    };
    store.seal(&compacted(1, 99, 5, Reclaim::Paced)).unwrap();
    let mixed = store.seal(&compacted(2, 199, 60, Reclaim::Paced)).unwrap();
    assert_eq!(mixed.clean_floor, 5);
    let clean = store.seal(&compacted(3, 199, 60, Reclaim::All)).unwrap();
    assert_eq!(clean.clean_floor, 60);
    assert!(clean.volumes_retired > 0 && clean.volumes_retired < mixed.volumes);
    let (meta, _) = load(&mut open(dir.path())).unwrap().unwrap();
    assert_eq!(meta.clean_floor, 60);
}

/// Whenever a crash comes, there is the one state or the other, and nothing of both.
#[test]
fn a_state_is_replaced_as_a_whole() {
    let grown = records(1..200, 100);
    // Larger, so that no old volume looks as if it held anything dead.
    let mut received = records(1..150, 140);
    received.extend(records(260..300, 140));
    let mut cuts = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.seal(&job(4, 199, &grown)).unwrap();
        let whole = job(9, 299, &received);
        let whole = SealJob { reclaim: Reclaim::Replace, ..whole };
        store.0.cut.steps_left = Some(cuts);
        let sealed = store.seal(&whole);
        let (meta, loaded) = load(&mut open(dir.path())).unwrap().unwrap();
        let expected = if meta.applied_index == 9 { &received } else { &grown };
        assert_eq!(&loaded, expected, "after {cuts} steps");
        let Ok(sealed) = sealed else {
            cuts += 1;
            continue;
        };
        assert_eq!((meta.applied_index, sealed.clean_floor), (9, 0));
        assert_eq!(sealed.volumes, sealed.volumes_written);
        assert_eq!(volumes_in(dir.path()).len(), sealed.volumes);
        assert!(cuts > 5, "{cuts} steps");
        return;
    }
}

#[test]
fn blocks_longer_than_a_piece_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = records(1..4, 900_000);
    all.extend(records(4..9, 10));
    let options = SledStoreOptions::default();
    let mut store = SledStore::open(dir.path(), options.clone()).unwrap();
    store.seal(&job(1, 8, &all)).unwrap();
    let mut store = SledStore::open(dir.path(), options).unwrap();
    assert_eq!(load(&mut store).unwrap().unwrap().1, all);
}

#[test]
fn going_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.seal(&job(50, 20, &records(1..21, 10))).unwrap();
    for (index, last) in [(49, 20), (50, 19)] {
        let error = store.seal(&job(index, last, &records(1..20, 10))).unwrap_err();
        assert!(matches!(error, StoreError::Caller(_)), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snap");
    std::fs::write(&file, b"not a directory").unwrap();
    let error = SledStore::open(&file, small_options()).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn a_source_that_breaks_its_contract_is_refused() {
    struct Overlapping;
    impl BlockSource for Overlapping {
        fn visit(
            &self,
            _: RevisionKey,
            _: RevisionKey,
            f: BlockVisitor<'_>,
        ) -> Result<(), StoreError> {
            f(key(1), key(5), b"a")?;
            f(key(5), key(6), b"b")
        }
        fn live_bytes(&self, _: RevisionKey, _: RevisionKey) -> u64 {
            2
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = SealJob { source: Arc::new(Overlapping), ..job(1, 9, &Records::new()) };
    let error = open(dir.path()).seal(&bad).unwrap_err();
    assert!(matches!(error, StoreError::Caller(_)), "{error}");
}

#[test]
fn sealed_files_are_not_touched_by_loading() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).seal(&job(5, 99, &records(1..100, 100))).unwrap();
    let before = files_in(dir.path());
    for _ in 0..3 {
        load(&mut open(dir.path())).unwrap();
    }
    assert_eq!(files_in(dir.path()), before);
}

#[test]
fn without_a_manifest_volumes_stay_until_the_first_seal() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).seal(&job(5, 99, &records(1..100, 100))).unwrap();
    std::fs::remove_file(dir.path().join("manifest")).unwrap();
    let orphans = volumes_in(dir.path());
    let mut store = open(dir.path());
    assert!(load(&mut store).unwrap().is_none());
    assert_eq!(volumes_in(dir.path()), orphans);
    store.seal(&job(6, 9, &records(1..10, 100))).unwrap();
    assert!(orphans.iter().all(|orphan| !orphan.exists()));
    assert_eq!(load(&mut open(dir.path())).unwrap().unwrap().1, records(1..10, 100));
}

/// The cost that the layout of a volume is made for: sled must write each value once.
#[test]
fn a_volume_takes_little_more_than_its_blocks() {
    for (block_bytes, percent_max) in [(16 << 10, 108), (64 << 10, 106), (100 << 10, 108)] {
        let dir = tempfile::tempdir().unwrap();
        let all = records(1..8000, 1000);
        let source = View { records: Arc::new(all), block_bytes };
        let mut store = SledStore::open(dir.path(), SledStoreOptions::default()).unwrap();
        let content = source.live_bytes(RevisionKey::MIN, RevisionKey::MAX);
        let whole = SealJob { source: Arc::new(source), ..job(1, 8000, &Records::new()) };
        let sealed = store.seal(&whole).unwrap();
        let percent = sealed.disk_bytes * 100 / content;
        assert!(percent <= percent_max, "blocks of {block_bytes}: {percent} %");
    }
}

fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            files.insert(path, content);
        }
    }
    files
}

fn volumes_in(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut volumes: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    volumes.sort();
    volumes
}

/// Opens and loads; the content must be `all`, or there must be an error that names a
/// path below `dir`.
fn right_or_refused(dir: &Path, all: &Records) -> Result<(), StoreError> {
    let loaded = SledStore::open(dir, small_options()).and_then(|mut store| load(&mut store));
    match loaded {
        Ok(Some((_, loaded))) => assert_eq!(&loaded, all),
        Ok(None) => panic!("the sealed copy was taken for none"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(dir.to_str().unwrap()), "{text}");
            assert!(text.contains("restore a snapshot"), "{text}");
            return Err(error);
        }
    }
    Ok(())
}

#[test]
fn damage_to_any_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let all = records(1..100, 100);
    open(dir.path()).seal(&job(5, 99, &all)).unwrap();
    for (path, content) in files_in(dir.path()) {
        for at in (0..content.len()).step_by(content.len().div_ceil(40)) {
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, flipped).unwrap();
            right_or_refused(dir.path(), &all).expect_err("a flipped bit");
            std::fs::write(&path, &content[..at]).unwrap();
            right_or_refused(dir.path(), &all).expect_err("a cut");
        }
        std::fs::write(&path, [&content[..], b"more"].concat()).unwrap();
        right_or_refused(dir.path(), &all).expect_err("an appendage");
        if !path.ends_with("manifest") {
            std::fs::remove_file(&path).unwrap();
            right_or_refused(dir.path(), &all).expect_err("a missing file");
        }
        std::fs::write(&path, &content).unwrap();
        right_or_refused(dir.path(), &all).unwrap();
    }
    let volume = &volumes_in(dir.path())[1];
    std::fs::remove_dir_all(volume).unwrap();
    right_or_refused(dir.path(), &all).expect_err("a missing volume");
}

/// Behind the CRCs of the files: what sled makes of damage, panics included, is an error
/// or the right content.
#[test]
fn damage_that_the_file_crc_does_not_see_is_found_in_the_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let all = records(1..60, 100);
    open(dir.path()).seal(&job(5, 59, &all)).unwrap();
    let volume = volumes_in(dir.path()).remove(0);
    let content = std::fs::read(volume.join("db")).unwrap();
    let mut refused = 0;
    let step = content.len().div_ceil(150);
    for at in (0..content.len()).step_by(step) {
        let mut flipped = content.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(volume.join("db"), &flipped).unwrap();
        repair_file_crc(dir.path(), 0, &flipped);
        refused += u32::from(right_or_refused(dir.path(), &all).is_err());
    }
    assert!(refused > 50, "{refused}");
}

fn repair_file_crc(dir: &Path, place: usize, db: &[u8]) {
    let mut manifest = manifest::read(&real_place(dir)).unwrap().unwrap();
    manifest.volumes[place].db.crc = crc32c::crc32c(db);
    manifest::prepare(&real_place(dir), &manifest).unwrap();
    manifest::put_in_force(&real_place(dir)).unwrap();
}

#[derive(Clone, Debug)]
enum Event {
    Put {
        count: i64,
        length: usize,
    },
    /// Forgets the records whose revision leaves this remainder or less.
    Compact {
        modulus: i64,
        remainder: i64,
    },
    Seal {
        reclaim: Reclaim,
        cut: Option<u32>,
        lose: bool,
    },
    Reopen,
}

fn any_event() -> impl Strategy<Value = Event> {
    let reclaim = prop_oneof![
        4 => Just(Reclaim::Paced), 1 => Just(Reclaim::All), 1 => Just(Reclaim::Replace)
    ];
    let cut = proptest::option::weighted(0.4, 0u32..9);
    prop_oneof![
        3 => (1i64..30, 1usize..400).prop_map(|(count, length)| Event::Put { count, length }),
        1 => (2i64..6, 0i64..6).prop_map(|(modulus, r)| {
            Event::Compact { modulus, remainder: r % modulus }
        }),
        3 => (reclaim, cut, any::<bool>())
            .prop_map(|(reclaim, cut, lose)| Event::Seal { reclaim, cut, lose }),
        1 => Just(Event::Reopen),
    ]
}

/// A state beside the store, and what the store has promised.
struct Model {
    dir: tempfile::TempDir,
    store: SledStore,
    live: Records,
    ever: Records,
    last: i64,
    index: u64,
    /// The copies that a load may give now: one, or two after a cut.
    possible: Vec<Option<(u64, Records)>>,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (live, ever) = (Records::new(), Records::new());
        Self { dir, store, live, ever, last: 0, index: 0, possible: vec![None] }
    }

    fn run(&mut self, event: &Event) {
        match *event {
            Event::Put { count, length } => {
                let new = records(self.last + 1..self.last + 1 + count, length);
                self.last += count;
                self.live.extend(new.clone());
                self.ever.extend(new);
            }
            Event::Compact { modulus, remainder } => {
                self.live.retain(|k, _| k.main % modulus > remainder);
            }
            Event::Seal { reclaim, cut, lose } => self.seal(reclaim, cut, lose),
            Event::Reopen => {
                self.store = open(self.dir.path());
                self.check();
            }
        }
    }

    fn seal(&mut self, reclaim: Reclaim, cut: Option<u32>, lose: bool) {
        self.index += 1;
        let job = SealJob { reclaim, ..job(self.index, self.last, &self.live) };
        let attempted = Some((self.index, self.live.clone()));
        self.store.0.cut.steps_left = cut;
        match self.store.seal(&job) {
            Ok(sealed) => {
                self.store.0.cut.steps_left = None;
                assert_eq!(sealed.applied_index, self.index);
                self.possible = vec![attempted];
            }
            Err(StoreError::Cut) => {
                self.possible.push(attempted);
                if lose {
                    lose_what_was_not_sealed(self.dir.path());
                }
                self.store = open(self.dir.path());
                self.check();
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What is loaded is one of the possible copies: all that lived then, and beyond it
    /// nothing that was never written.
    fn check(&mut self) {
        let loaded = load(&mut self.store).unwrap();
        let index = loaded.as_ref().map(|(meta, _)| meta.applied_index);
        self.possible.retain(|copy| copy.as_ref().map(|(index, _)| *index) == index);
        assert_eq!(self.possible.len(), 1, "index {index:?} was never sealed");
        let (Some((_, loaded)), Some((_, live))) = (loaded, &self.possible[0]) else { return };
        for (k, v) in live {
            assert_eq!(loaded.get(k), Some(v), "{k}");
        }
        for (k, v) in &loaded {
            assert_eq!(self.ever.get(k), Some(v), "{k}");
        }
    }
}

/// A power cut may leave anything of what no manifest names.
fn lose_what_was_not_sealed(dir: &Path) {
    let named: Vec<PathBuf> = match manifest::read(&real_place(dir)).unwrap() {
        Some(manifest) => {
            manifest.volumes.iter().map(|v| dir.join(volume::name_of(v.number))).collect()
        }
        None => Vec::new(),
    };
    for volume in volumes_in(dir).into_iter().filter(|volume| !named.contains(volume)) {
        for (path, content) in files_in(&volume) {
            std::fs::write(&path, &content[..content.len() / 2]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn every_history_leaves_a_whole_copy(
        events in proptest::collection::vec(any_event(), 1..25),
    ) {
        let mut model = Model::new();
        for event in &events {
            model.run(event);
        }
        model.run(&Event::Reopen);
    }

    #[test]
    fn any_bytes_are_refused_as_blocks(data: Vec<u8>) {
        fuzz_block(&data);
    }
}
