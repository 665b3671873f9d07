//! Writing large files at a measured pace.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes written between two pushes to the disk.
const WINDOW_BYTES: u64 = 1 << 20;

/// Writes a file from its start in pieces, and keeps little of it waiting in the page
/// cache: one great fsync at the end would hold up the log's fsyncs behind it.
pub(super) struct PacedWriter {
    file: File,
    written: u64,
    /// Up to here the disk has it (asked of the device, though not flushed from its cache).
    pushed: u64,
    crc: u32,
    bytes_per_second_max: u64,
    started: Instant,
}

impl PacedWriter {
    pub(super) fn create(path: &Path, bytes_per_second_max: u64) -> io::Result<Self> {
        let file = File::create_new(path)?;
        let started = Instant::now();
        Ok(Self { file, written: 0, pushed: 0, crc: 0, bytes_per_second_max, started })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.written += bytes.len() as u64;
        if self.written - self.pushed >= WINDOW_BYTES {
            start_write_out(&self.file, self.pushed, self.written - self.pushed)?;
            self.pushed = self.written;
            self.wait_for_its_turn();
        }
        Ok(())
    }

    /// Sleeps for as long as the file is ahead of its allowed rate.
    fn wait_for_its_turn(&self) {
        let due = self.written as f64 / self.bytes_per_second_max.max(1) as f64;
        let ahead = Duration::from_secs_f64(due).saturating_sub(self.started.elapsed());
        if !ahead.is_zero() {
            std::thread::sleep(ahead);
        }
    }

    /// Makes the file durable; gives its length and its CRC32C. The page cache lets go of
    /// it, so that whoever reads it next reads the disk.
    pub(super) fn finish(self) -> io::Result<(u64, u32)> {
        self.file.sync_all()?;
        forget_cached(&self.file);
        Ok((self.written, self.crc))
    }
}

/// Starts the write-out of a range and waits for it. This is pacing, not durability.
#[cfg(target_os = "linux")]
fn start_write_out(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (offset, length) = (offset.cast_signed(), length.cast_signed());
    // SAFETY: a plain system call on a descriptor that `file` keeps open; no memory passes.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Some file systems do not know the call; then only the rate paces.
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn start_write_out(file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    file.sync_data()
}

/// Lets the page cache drop what it holds of a file that is not needed soon. A hint: its
/// failure has no consequence.
#[cfg(target_os = "linux")]
pub(super) fn forget_cached(file: &File) {
    let _hint = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn forget_cached(_file: &File) {}
