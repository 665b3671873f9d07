//! A small file system of a member's own, in an image file: it can be filled, and stalled.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// Size of the file system. The image is sparse, and a ballast takes no blocks of the disk
/// below: it is reserved, never written.
const DISK_BYTES: u64 = 1 << 30;
/// The file that fills the disk.
const BALLAST: &str = "ballast";
/// Ballast is taken in pieces down to this size, in bytes.
const BALLAST_PIECE_MIN: u64 = 4096;

/// A mounted file system. The mount is seen by the thread that made it and by the processes
/// that thread starts, and goes with the last of them.
#[derive(Debug)]
pub(super) struct Disk {
    mount: PathBuf,
    freezer: Option<Child>,
}

impl Disk {
    /// Makes the file system in `image` and mounts it at `mount` in a mount namespace of the
    /// calling thread's own.
    ///
    /// # Errors
    /// When the rights or the tools (`mkfs.ext4`, `mount`) are missing.
    pub(super) fn make(image: &Path, mount: &Path) -> io::Result<Self> {
        // SAFETY: file descriptors stay shared; the thread gets its own view of mounts, and
        // with it its own working directory, which nothing here relies on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        File::create(image)?.set_len(DISK_BYTES)?;
        // Without a journal: no power is cut here, and the machine's disk has enough to do.
        let flags = ["-q", "-F", "-m", "0", "-O", "^has_journal"];
        run(Command::new("mkfs.ext4").args(flags).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(mount))?;
        Ok(Self { mount: mount.to_owned(), freezer: None })
    }

    /// Uses up what is left.
    ///
    /// # Errors
    /// When the file system fails otherwise than by being full.
    pub(super) fn fill(&self) -> io::Result<()> {
        let ballast = File::options().create(true).append(true).open(self.mount.join(BALLAST))?;
        let mut size = ballast.metadata()?.len();
        let mut piece = DISK_BYTES / 4;
        while piece >= BALLAST_PIECE_MIN {
            match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), size, piece) {
                Ok(()) => size += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(super) fn free(&self) -> io::Result<()> {
        std::fs::remove_file(self.mount.join(BALLAST))
    }

    /// Lets every write and fsync hang for so long. A process of its own does it, which ends
    /// the stall even if this program is killed meanwhile.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn stall(&mut self, how_long: Duration) -> io::Result<()> {
        let script = "fsfreeze -f \"$0\" && sleep \"$1\"; fsfreeze -u \"$0\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.mount).arg(how_long.as_secs_f64().to_string());
        self.freezer = Some(quiet(&mut command).spawn()?);
        Ok(())
    }

    /// Waits for the end of a stall.
    ///
    /// # Errors
    /// When the stall could not be made in the first place.
    pub(super) fn await_flow(&mut self) -> io::Result<()> {
        match self.freezer.take().map(|mut freezer| freezer.wait()).transpose()? {
            Some(status) if !status.success() => Err(io::Error::other("fsfreeze failed")),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The stall ends by itself; a process in it could not be killed before that.
        let _ = self.await_flow();
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}", text.trim())))
}
