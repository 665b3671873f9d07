//! A disk in memory that loses power: what was not synced survives sector by sector, by chance.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// One file: what a reader sees, what is durable, and for each changed sector every content
/// that it has had since the last sync.
#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Inode {
    fn sector(bytes: &[u8], number: usize) -> Vec<u8> {
        let start = (number * SECTOR).min(bytes.len());
        bytes[start..(start + SECTOR).min(bytes.len())].to_vec()
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let now = Self::sector(&self.seen, number);
            self.dirty.entry(number).or_default().push(now);
        }
    }

    fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.dirty.clear();
    }

    /// Each dirty sector ends as it was, or as any of the writes since left it.
    fn crash(&mut self, chance: &mut StdRng) {
        for (number, versions) in std::mem::take(&mut self.dirty) {
            let pick = chance.random_range(0..=versions.len());
            let Some(content) = pick.checked_sub(1).map(|i| &versions[i]) else { continue };
            let start = number * SECTOR;
            let end = start + content.len();
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(content);
        }
        self.seen = self.durable.clone();
    }
}

type Names = BTreeMap<PathBuf, usize>;

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    /// The names after each change since the last sync of the directory; the first is durable.
    name_history: Vec<Names>,
    /// Operations that may still succeed; then each one fails.
    operations_left: Option<u64>,
    /// Bytes that may still be written to new places.
    bytes_left: Option<u64>,
    syncs: u64,
    writes: u64,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("simulated failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn names_changed(&mut self) {
        if self.name_history.is_empty() {
            self.name_history.push(Names::new());
        }
        self.name_history.push(self.names.clone());
    }
}

/// The simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// Cuts the power, and brings up what is left by `seed`.
    pub(super) fn crash(&self, seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut state = self.0.lock();
        for inode in &mut state.inodes {
            inode.crash(&mut chance);
        }
        if !state.name_history.is_empty() {
            let pick = chance.random_range(0..state.name_history.len());
            state.names = state.name_history[pick].clone();
            state.name_history = vec![state.names.clone()];
        }
        (state.operations_left, state.bytes_left) = (None, None);
    }

    /// Ends the process without a power cut: all that was written stays, synced or not.
    pub(super) fn kill(&self) {
        let mut state = self.0.lock();
        (state.operations_left, state.bytes_left) = (None, None);
    }

    /// Every operation after the next `count` fails.
    pub(super) fn fail_after(&self, count: u64) {
        self.0.lock().operations_left = Some(count);
    }

    /// Whether operations fail by now, or will soon.
    pub(super) fn is_failing(&self) -> bool {
        self.0.lock().operations_left.is_some()
    }

    /// Only this many bytes fit any more.
    pub(super) fn limit_bytes(&self, bytes: u64) {
        self.0.lock().bytes_left = Some(bytes);
    }

    /// Syncs and writes of files so far.
    pub(super) fn syncs_and_writes(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.syncs, state.writes)
    }

    /// The content of a file, for the tests to look at.
    pub(super) fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[state.names[path]].seen.clone()
    }

    /// Replaces the content of a file, durably.
    pub(super) fn set_content(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let number = state.names[path];
        let inode = &mut state.inodes[number];
        inode.seen = bytes;
        inode.sync();
    }

    /// A deep copy: another disk with the same content.
    pub(super) fn fork(&self) -> Self {
        let state = self.0.lock();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            name_history: state.name_history.clone(),
            ..State::default()
        })))
    }

    /// The files whose name ends so, in order.
    pub(super) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let state = self.0.lock();
        state.names.keys().filter(|p| p.to_string_lossy().ends_with(suffix)).cloned().collect()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.0.lock().step()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        if state.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let number = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_path_buf(), number);
        state.names_changed();
        Ok(Box::new(SimFile { disk: self.clone(), number }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let number = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let number = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), number);
        state.names_changed();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.names.remove(path).ok_or(ErrorKind::NotFound)?;
        state.names_changed();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.step()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.name_history = vec![state.names.clone()];
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    number: usize,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.0.lock();
        Ok(state.inodes[self.number].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        let start = offset as usize;
        let content = &state.inodes[self.number].seen;
        let bytes = content.get(start..start + buffer.len()).ok_or(ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.writes += 1;
        let (start, number) = (offset as usize, self.number);
        // A failing write is torn: a part of it reaches the file.
        if let Err(error) = state.step() {
            let half = bytes.len() / 2;
            state.inodes[number].write(&bytes[..half], start);
            return Err(error);
        }
        let grows = (start + bytes.len()).saturating_sub(state.inodes[number].seen.len()) as u64;
        if let Some(left) = &mut state.bytes_left {
            *left = left.checked_sub(grows).ok_or(ErrorKind::StorageFull)?;
        }
        state.inodes[number].write(bytes, start);
        Ok(())
    }

    fn reserve(&mut self, _bytes: u64) -> io::Result<()> {
        self.disk.0.lock().step()
    }

    fn forget_cache(&self) {}

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.syncs += 1;
        state.step()?;
        state.inodes[self.number].sync();
        Ok(())
    }
}
