//! The disk against a naive one, which copies everything at every step.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use crate::shared::disk::{Disk, DiskFile};
use crate::sim::SimDisk;

const SECTOR: usize = 512;
const FILES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, offset: usize, length: usize, byte: u8 },
    Sync { file: usize },
    Kill,
    Crash { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..FILES, 0usize..4000, 0usize..1500, 1u8..)
            .prop_map(|(file, offset, length, byte)| Step::Write { file, offset, length, byte }),
        2 => (0..FILES).prop_map(|file| Step::Sync { file }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

/// A whole copy of the content after each write since the last sync, that of the sync first.
struct Naive(Vec<Vec<u8>>);

impl Naive {
    fn now(&self) -> &Vec<u8> {
        &self.0[self.0.len() - 1]
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let mut next = self.now().clone();
        let end = offset + bytes.len();
        next.resize(next.len().max(end), 0);
        next[offset..end].copy_from_slice(bytes);
        self.0.push(next);
    }

    fn sync(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    /// Whether each sector of `left` is as it was at some time since the sync, with zeros where
    /// the file did not reach that far.
    fn allows(&self, left: &[u8]) -> bool {
        let padded = |content: &[u8], start: usize| {
            let end = (start + SECTOR).min(content.len()).max(start);
            let mut sector = content.get(start..end).unwrap_or_default().to_vec();
            sector.resize(SECTOR, 0);
            sector
        };
        let lengths = self.0[0].len()..=self.now().len();
        lengths.contains(&left.len())
            && (0..left.len()).step_by(SECTOR).all(|start| {
                let found = padded(left, start);
                self.0.iter().any(|content| padded(content, start) == found)
            })
    }
}

fn name(file: usize) -> String {
    format!("/disk/{file}")
}

/// Makes the files, durably named.
fn files_on(disk: &SimDisk) -> Vec<Box<dyn DiskFile>> {
    let dir = Path::new("/disk");
    disk.create_dir(dir).unwrap();
    let files = (0..FILES).map(|file| disk.create(name(file).as_ref()).unwrap()).collect();
    disk.sync_dir(dir).unwrap();
    files
}

fn content(disk: &SimDisk, file: usize) -> Vec<u8> {
    disk.content(name(file).as_ref()).unwrap()
}

fn run(disk: &SimDisk, steps: &[Step]) {
    let mut files = files_on(disk);
    let mut naive: Vec<Naive> = (0..FILES).map(|_| Naive(vec![Vec::new()])).collect();
    for step in steps {
        match *step {
            Step::Write { file, offset, length, byte } => {
                let bytes: Vec<u8> = (0..length).map(|i| byte.wrapping_add(i as u8)).collect();
                files[file].write_at(&bytes, offset as u64).unwrap();
                naive[file].write(&bytes, offset);
            }
            Step::Sync { file } => {
                files[file].sync_data().unwrap();
                naive[file].sync();
            }
            Step::Kill => disk.kill(),
            Step::Crash { seed } => {
                let twin = disk.fork();
                disk.crash(seed);
                twin.crash(seed);
                for (file, naive) in naive.iter_mut().enumerate() {
                    let left = content(disk, file);
                    assert!(naive.allows(&left), "{file}");
                    assert!(content(&twin, file) == left, "the same seed leaves the same");
                    *naive = Naive(vec![left]);
                }
            }
        }
        let mut bytes = 0;
        for (file, naive) in naive.iter().enumerate() {
            assert!(content(disk, file) == *naive.now(), "{file} after {step:?}");
            bytes += naive.now().len() as u64;
        }
        assert_eq!(disk.bytes(), bytes);
    }
    // What was synced is there whatever the seed.
    for file in &mut files {
        file.sync_data().unwrap();
    }
    for seed in 0..3 {
        disk.crash(seed);
        assert!(naive.iter().enumerate().all(|(file, naive)| content(disk, file) == *naive.now()));
    }
}

proptest! {
    #[test]
    fn a_power_cut_leaves_what_it_may(steps in proptest::collection::vec(step(), 1..60)) {
        run(&SimDisk::new(), &steps);
    }
}

#[test]
fn names_survive_up_to_a_change_and_each_directory_for_itself() {
    let mut seen = BTreeMap::<usize, u32>::new();
    for seed in 0..200 {
        let disk = SimDisk::new();
        for dir in ["/a", "/b"] {
            disk.create_dir(dir.as_ref()).unwrap();
            for file in ["x", "y", "z"] {
                drop(disk.create(&Path::new(dir).join(file)).unwrap());
            }
        }
        disk.rename("/b/x".as_ref(), "/b/w".as_ref()).unwrap();
        disk.sync_dir("/b".as_ref()).unwrap();
        disk.crash(seed);
        assert_eq!(disk.list("/b".as_ref()).unwrap(), ["w", "y", "z"]);
        let left = disk.list("/a".as_ref()).unwrap();
        assert_eq!(left, ["x", "y", "z"][..left.len()]);
        *seen.entry(left.len()).or_default() += 1;
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn removed_files_are_freed_when_nothing_leads_to_them() {
    let disk = SimDisk::new();
    let mut files = files_on(&disk);
    files[0].write_at(&[1; 5000], 0).unwrap();
    disk.remove(name(0).as_ref()).unwrap();
    assert_eq!(disk.bytes(), 5000, "a power cut may bring it back");
    disk.sync_dir("/disk".as_ref()).unwrap();
    assert_eq!(disk.bytes(), 5000, "it is open");
    files.clear();
    disk.sync_dir("/disk".as_ref()).unwrap();
    assert_eq!(disk.bytes(), 0);
}

#[test]
fn a_full_disk_takes_no_more_until_there_is_room() {
    let disk = SimDisk::new();
    let mut files = files_on(&disk);
    files[0].write_at(&[1; 1000], 0).unwrap();
    disk.limit_bytes(600);
    files[1].write_at(&[1; 600], 0).unwrap();
    files[0].write_at(&[2; 1000], 0).unwrap();
    let full = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    };
    full(files[1].write_at(&[1; 1], 600));
    full(files[2].reserve(1));
    disk.kill();
    full(files[2].write_at(&[1; 1], 0));
    files.remove(0);
    disk.remove(name(0).as_ref()).unwrap();
    disk.sync_dir("/disk".as_ref()).unwrap();
    files[1].write_at(&[1; 1000], 0).unwrap();
    disk.lift_limit();
    files[1].write_at(&[1; 9000], 0).unwrap();
}

#[test]
fn one_bit_is_flipped_for_good_where_the_disk_says() {
    let disk = SimDisk::new();
    let mut files = files_on(&disk);
    assert_eq!(disk.flip_bit(1), None, "there is nothing to flip");
    files[1].write_at(&[0; 4000], 0).unwrap();
    files[1].write_at(&[7; 10], 2000).unwrap();
    files[1].sync_data().unwrap();
    let good = content(&disk, 1);
    let mut in_data = 0;
    for seed in 0..100 {
        let fork = disk.fork();
        let place = fork.flip_bit(seed).unwrap();
        assert_eq!(disk.fork().flip_bit(seed).as_ref(), Some(&place));
        fork.crash(seed);
        let flipped = content(&fork, 1);
        let differs: Vec<usize> = (0..good.len()).filter(|&i| flipped[i] != good[i]).collect();
        assert_eq!(differs.len(), 1);
        assert_eq!((flipped[differs[0]] ^ good[differs[0]]).count_ones(), 1);
        assert!(place.starts_with("/disk/1: bit "), "{place}");
        assert!(place.ends_with(&format!(" byte {}", differs[0])), "{place}");
        in_data += u32::from((2000..2010).contains(&differs[0]));
    }
    assert!(in_data > 50, "{in_data}");
}
