//! A disk in memory that loses power: what was not synced survives sector by sector, by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::inode::Inode;
use crate::shared::disk::{Disk, DiskFile};

/// Files of a directory, and the numbers of their inodes.
type Names = BTreeMap<String, u64>;

/// The names in one directory. The directory itself is durable as soon as it is made.
#[derive(Clone, Default)]
struct Directory {
    now: Names,
    durable: Names,
    /// The names after each change since the last sync.
    since: Vec<Names>,
}

impl Directory {
    fn changed(&mut self) {
        self.since.push(self.now.clone());
    }

    fn sync(&mut self) {
        if let Some(last) = self.since.pop() {
            self.durable = last;
            self.since.clear();
        }
    }

    /// The changes up to one of them survive, in their order.
    fn crash(&mut self, chance: &mut StdRng) {
        let kept = chance.random_range(0..=self.since.len());
        self.since.truncate(kept);
        self.sync();
        self.now = self.durable.clone();
    }

    /// All inodes that have a name here, or may have one after a power cut.
    fn inodes(&self) -> impl Iterator<Item = u64> {
        let all = self.since.iter().chain([&self.now, &self.durable]);
        all.flat_map(|names| names.values().copied())
    }
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    directories: BTreeMap<PathBuf, Directory>,
    /// Operations that may still succeed; then each one fails.
    operations_left: Option<u64>,
    /// Bytes of all files.
    used: u64,
    /// What `used` may not exceed.
    capacity: Option<u64>,
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

    fn directory(&mut self, path: &Path) -> io::Result<(&mut Directory, String)> {
        let (parent, name) = split(path)?;
        let directory = self.directories.get_mut(parent).ok_or(ErrorKind::NotFound)?;
        Ok((directory, name))
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let (parent, name) = split(path)?;
        let found = self.directories.get(parent).and_then(|directory| directory.now.get(&name));
        found.copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// An inode that has a name or is open: such are never freed.
    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an inode in use is kept")
    }

    fn write(&mut self, number: u64, bytes: &[u8], offset: usize) {
        self.used += self.inode(number).write(bytes, offset);
    }

    /// Fails when `bytes` more do not fit.
    fn check_room(&self, bytes: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used.saturating_add(bytes) > capacity => {
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// Frees what nobody has open and no name leads to, nor will after a power cut.
    fn free_unreachable(&mut self) {
        let named: BTreeSet<u64> = self.directories.values().flat_map(Directory::inodes).collect();
        self.inodes.retain(|number, inode| inode.is_open() || named.contains(number));
        self.used = self.inodes.values().map(|inode| inode.len() as u64).sum();
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        self.directories.iter().flat_map(|(dir, directory)| {
            directory.now.iter().map(|(name, number)| (dir.join(name), *number))
        })
    }
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let (parent, name) = path.parent().zip(name).ok_or(ErrorKind::InvalidInput)?;
    Ok((parent, name.to_owned()))
}

/// The simulated disk; clones are the same disk.
///
/// What was written to a file is durable after a sync of that file, and a changed name after a
/// sync of its directory. Until then a power cut keeps of a file any of the contents that each
/// of its sectors has had, and of a directory the changes up to one of them.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk that never fails nor gets full.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power, and brings up what is left by `seed`. Operations succeed again; a limit
    /// of bytes stays.
    pub fn crash(&self, seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut state = self.0.lock();
        for inode in state.inodes.values_mut() {
            inode.crash(&mut chance);
        }
        for directory in state.directories.values_mut() {
            directory.crash(&mut chance);
        }
        state.operations_left = None;
        state.free_unreachable();
    }

    /// Ends the process without a power cut: all that was written stays, synced or not.
    /// Operations succeed again; a limit of bytes stays.
    pub fn kill(&self) {
        self.0.lock().operations_left = None;
    }

    /// Every operation after the next `operations` fails, until [`crash`](Self::crash) or
    /// [`kill`](Self::kill). A write that fails may still have left a part of it.
    pub fn fail_after(&self, operations: u64) {
        self.0.lock().operations_left = Some(operations);
    }

    /// Whether operations fail by now, or will soon.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.lock().operations_left.is_some()
    }

    /// Only this many bytes fit beside those that are there now; removed files make room when
    /// their directory is synced.
    pub fn limit_bytes(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.capacity = Some(state.used.saturating_add(bytes));
    }

    /// As many bytes fit as come.
    pub fn lift_limit(&self) {
        self.0.lock().capacity = None;
    }

    /// Bytes of all files, with those that were removed but are open or may come back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.lock().used
    }

    /// Flips one bit of one file, in what is read and in what is durable. Three in four times
    /// it is one of a byte that is not zero, where the file has any. Says where; `None` when
    /// all files are empty.
    pub fn flip_bit(&self, seed: u64) -> Option<String> {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut state = self.0.lock();
        let full =
            |(_, number): &(PathBuf, u64)| state.inodes.get(number).is_some_and(|i| i.len() > 0);
        let mut files: Vec<_> = state.files().filter(full).collect();
        if files.is_empty() {
            return None;
        }
        let (path, number) = files.swap_remove(chance.random_range(0..files.len()));
        let (offset, bit) = state.inode(number).flip_bit(&mut chance);
        Some(format!("{}: bit {bit} of byte {offset}", path.display()))
    }

    /// Syncs and writes of files so far.
    #[must_use]
    pub fn syncs_and_writes(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.syncs, state.writes)
    }

    /// The content of a file as it is read now; `None` where there is no such file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.0.lock();
        let number = state.find(path).ok()?;
        Some(state.inode(number).content().to_vec())
    }

    /// Replaces the content of a file that is there, durably.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn set_content(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut state = self.0.lock();
        let number = state.find(path)?;
        state.inode(number).replace(bytes);
        state.free_unreachable();
        Ok(())
    }

    /// A deep copy: another disk with the same content, that never fails nor gets full.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.0.lock();
        let mut copy = State {
            inodes: state.inodes.iter().map(|(number, inode)| (*number, inode.copy())).collect(),
            next_inode: state.next_inode,
            directories: state.directories.clone(),
            ..State::default()
        };
        copy.free_unreachable();
        Self(Arc::new(Mutex::new(copy)))
    }

    /// The files whose name ends so, in order.
    #[must_use]
    pub fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let state = self.0.lock();
        let paths = state.files().map(|(path, _)| path);
        paths.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
    }

    fn open_inode(&self, state: &mut State, number: u64) -> Box<dyn DiskFile> {
        state.inode(number).open();
        Box::new(SimFile { disk: self.clone(), number })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        for dir in dir.ancestors() {
            state.directories.entry(dir.to_path_buf()).or_default();
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let number = state.next_inode;
        let (directory, name) = state.directory(path)?;
        if directory.now.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        directory.now.insert(name, number);
        directory.changed();
        state.next_inode += 1;
        state.inodes.insert(number, Inode::default());
        Ok(self.open_inode(&mut state, number))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let number = state.find(path)?;
        Ok(self.open_inode(&mut state, number))
    }

    /// Within one directory only: a power cut would have to keep or lose both ends of the
    /// change together.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if from.parent() != to.parent() {
            return Err(ErrorKind::CrossesDevices.into());
        }
        let (_, new) = split(to)?;
        let (directory, old) = state.directory(from)?;
        let number = directory.now.remove(&old).ok_or(ErrorKind::NotFound)?;
        directory.now.insert(new, number);
        directory.changed();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let (directory, name) = state.directory(path)?;
        directory.now.remove(&name).ok_or(ErrorKind::NotFound)?;
        directory.changed();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.step()?;
        let directory = state.directories.get(dir).ok_or(ErrorKind::NotFound)?;
        Ok(directory.now.keys().cloned().collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.directories.get_mut(dir).ok_or(ErrorKind::NotFound)?.sync();
        state.free_unreachable();
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.0.lock().inode(self.number).close();
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inode(self.number).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let start = offset as usize;
        let content = state.inode(self.number).content();
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
            state.write(number, &bytes[..half], start);
            return Err(error);
        }
        let length = state.inode(number).len();
        let grows = (start + bytes.len()).saturating_sub(length);
        state.check_room(grows as u64)?;
        state.write(number, bytes, start);
        Ok(())
    }

    /// Sees that there is room, but holds none.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let length = state.inode(self.number).len() as u64;
        state.check_room(bytes.saturating_sub(length))
    }

    fn forget_cache(&self) {}

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.syncs += 1;
        state.step()?;
        state.inode(self.number).sync();
        Ok(())
    }
}
