//! A disk whose power can be cut: an ext4 file system on a loop device, shut down without
//! flushing its log, as if the machine had stopped at that moment.
//!
//! What was fsynced before the cut is there afterwards; what was only written may be lost,
//! whole or in part. (The loop device itself keeps what reached it: a disk that loses its
//! own write cache in spite of a flush is not simulated.)
//!
//! Needs root, loop devices and `mkfs.ext4`. Included with `#[path]` by the tests that
//! want it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// `EXT4_IOC_SHUTDOWN`, which is `_IOR('X', 125, u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// Nothing is flushed: neither data nor the journal.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// Set to 1 where the tests must not be skipped.
pub(crate) const REQUIRED: &str = "CASTD_REQUIRE_POWERCUT";

/// A mounted file system of its own, unmounted and removed when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: TempDir,
    mounted: bool,
}

impl Disk {
    /// Makes a disk of so many bytes, or says loudly why the test is skipped.
    ///
    /// # Panics
    /// When there is no disk to be had and `CASTD_REQUIRE_POWERCUT` is 1.
    #[must_use]
    pub(crate) fn or_skip(bytes: u64) -> Option<Self> {
        let reason = match Self::make(bytes) {
            Ok(disk) => return Some(disk),
            Err(reason) => reason,
        };
        let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
        assert!(!required, "{REQUIRED}=1, and no power cut is possible here: {reason}");
        eprintln!("\n*** SKIPPED: no power cut is possible here: {reason} ***\n");
        None
    }

    /// Makes the image (sparse), the file system on it, and mounts it.
    ///
    /// # Errors
    /// When a tool is missing or refuses, as it does without root.
    pub(crate) fn make(bytes: u64) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        File::create(dir.path().join("image"))?.set_len(bytes)?;
        std::fs::create_dir(dir.path().join("mount"))?;
        let mut disk = Self { dir, mounted: false };
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", lazy]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where the file system is mounted.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&mut self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        Ok(())
    }

    /// Cuts the power now. Whoever still uses the file system gets errors.
    ///
    /// # Errors
    /// When the kernel does not know the call or refuses it.
    pub(crate) fn cut_power(&self) -> io::Result<()> {
        let root = File::open(self.path())?;
        let flags = WITHOUT_LOG_FLUSH;
        // SAFETY: the call reads one u32 through the pointer, which lives until it returns.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN as _, &raw const flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Brings the file system back as a machine that starts again would find it. Whoever
    /// used it must be gone.
    ///
    /// # Errors
    /// When it is still in use or cannot be mounted.
    pub(crate) fn power_on(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Still in use, as when a test fails with a child alive: it goes with the last user.
            let _detached = run(Command::new("umount").arg("-l").arg(self.path()));
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let told = |text: String| io::Error::other(format!("{name}: {text}"));
    let output = command.output().map_err(|e| told(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(told(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
