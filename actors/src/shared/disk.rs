//! The few file operations that the log and the checkpoints need, as a trait: the real disk
//! here, and a simulated one that loses power.
//!
//! The ordering rules that both rely on, and that the twin enforces: what was written is
//! durable after `sync_data` of that file; a name that was made, changed or removed is so for
//! good after `sync_dir`. Before that, a power cut may keep or lose any part of it, sector by
//! sector.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Names of files.
pub(crate) trait Disk: Send + Sync {
    /// Makes the directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes an empty file. It must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory; names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes all changes of names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// One open file.
pub(crate) trait DiskFile: Send {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves room for `bytes` bytes, so that a full disk shows now. May do nothing.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Hints that what is in the page cache is not needed. A hint: it cannot fail, and what is
    /// not synced stays.
    fn forget_cache(&self);
    /// Makes all that was written durable.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// The operating system's files.
pub(crate) struct RealDisk {
    /// Syncs do nothing. For throw-away data only.
    pub(crate) unsafe_no_fsync: bool,
}

struct RealFile {
    file: File,
    unsafe_no_fsync: bool,
}

impl RealDisk {
    fn wrap(&self, file: File) -> Box<dyn DiskFile> {
        Box::new(RealFile { file, unsafe_no_fsync: self.unsafe_no_fsync })
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        OpenOptions::new().read(true).write(true).open(path).map(|file| self.wrap(file))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        File::open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.unsafe_no_fsync { Ok(()) } else { File::open(dir)?.sync_all() }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&mut self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn forget_cache(&self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Advice, fadvise};
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.unsafe_no_fsync { Ok(()) } else { self.file.sync_data() }
    }
}
