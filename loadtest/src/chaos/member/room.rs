//! What a member's thread holds, and what can be done to it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::disk::Disk;
use super::{Home, rights};
use crate::error::LoadError;
use crate::process;

/// The longest a member may take to end after SIGTERM; then it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether it has ended.
const STOP_POLL: Duration = Duration::from_millis(5);

/// A member's place: its directories, its disk, its process.
#[derive(Debug)]
pub(crate) struct Room {
    home: Home,
    /// Dropped before the disk: a process holds the mount.
    process: Process,
    disk: Option<Disk>,
}

/// The member's process, if it runs. Dropping it kills it.
#[derive(Debug, Default)]
struct Process(Option<Child>);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.0.as_mut() {
            // It may have ended already; there is nobody left to tell either way.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Room {
    /// Makes the directories and, if asked for, the disk.
    pub(super) fn make(home: Home) -> Result<Self, LoadError> {
        let mount = home.dir.join(&home.name);
        std::fs::create_dir_all(&mount).map_err(|source| LoadError::File {
            what: "cannot make",
            path: mount.clone(),
            source,
        })?;
        let image = home.dir.join(format!("{}.ext4", home.name));
        let disk = home.own_disk.then(|| Disk::make(&image, &mount)).transpose();
        let disk = disk.map_err(|error| rights("a file system for a member", error))?;
        Ok(Self { home, process: Process::default(), disk })
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.dir.join(&self.home.name).join("data")
    }

    /// Starts the process, in this thread's namespaces. Its log is appended to
    /// `<name>.log` in the directory of the run.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(crate) fn start(&mut self, binary: &Path, args: &[String]) -> io::Result<()> {
        let path = self.home.dir.join(format!("{}.log", self.home.name));
        let log = File::options().create(true).append(true).open(path)?;
        let mut command = Command::new(binary);
        command.arg("--name").arg(&self.home.name).arg("--data-dir").arg(self.data_dir());
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for variable in foreign_variables() {
            command.env_remove(variable);
        }
        // A process group of its own: ctrl-c is for this program, which then ends the others.
        command.process_group(0);
        // SAFETY: between fork and exec only one system call is made.
        unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
        self.process.0 = Some(command.spawn()?);
        Ok(())
    }

    /// Sends a signal. SIGKILL also waits for the end.
    ///
    /// # Errors
    /// When there is no process.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let child = self.process.0.as_mut().ok_or_else(not_running)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(not_running)?, signal)?;
        if signal == Signal::KILL {
            child.wait()?;
            self.process.0 = None;
        }
        Ok(())
    }

    /// Asks the process to end, and waits until it has. Answers how long that took; `None` if
    /// it had to be killed.
    ///
    /// # Errors
    /// When there is no process.
    pub(crate) fn terminate(&mut self) -> io::Result<Option<Duration>> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < STOP_TIME_MAX {
            if self.exited()?.is_some() {
                return Ok(Some(start.elapsed()));
            }
            std::thread::sleep(STOP_POLL);
        }
        self.signal(Signal::KILL)?;
        Ok(None)
    }

    /// Whether the process has ended since the last look, and how.
    ///
    /// # Errors
    /// When it cannot be observed.
    pub(crate) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = self.process.0.as_mut() else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.process.0 = None;
        }
        Ok(status)
    }

    /// Whether there is a process, as far as is known.
    pub(crate) fn runs(&self) -> bool {
        self.process.0.is_some()
    }

    /// CPU time and resident memory of the process that runs now.
    pub(crate) fn usage(&self) -> Option<(Duration, u64)> {
        let pid = self.process.0.as_ref()?.id();
        let cpu = process::cpu_time(pid).ok()?;
        Some((cpu, process::memory(pid).ok()?.rss_peak_bytes))
    }

    /// Removes all data.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        std::fs::remove_dir_all(self.data_dir())
    }

    /// Keeps a copy of all data.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(crate) fn save_data(&self) -> io::Result<()> {
        let status = Command::new("cp").arg("-a").args([self.data_dir(), self.copy_dir()]).status();
        if status?.success() { Ok(()) } else { Err(io::Error::other("cannot copy the data")) }
    }

    /// Puts the copy in the place of the data.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn set_back_data(&self) -> io::Result<()> {
        self.wipe()?;
        std::fs::rename(self.copy_dir(), self.data_dir())
    }

    fn copy_dir(&self) -> PathBuf {
        self.home.dir.join(&self.home.name).join("copy")
    }

    /// Fills the disk.
    ///
    /// # Errors
    /// When the member has none of its own, or it fails.
    pub(crate) fn fill_disk(&self) -> io::Result<()> {
        self.disk.as_ref().ok_or_else(no_disk)?.fill()
    }

    /// Makes room on a filled disk.
    ///
    /// # Errors
    /// When the member has none of its own, or it fails.
    pub(crate) fn free_disk(&self) -> io::Result<()> {
        self.disk.as_ref().ok_or_else(no_disk)?.free()
    }

    /// Stalls the disk for so long.
    ///
    /// # Errors
    /// When the member has none of its own, or it fails.
    pub(crate) fn stall_disk(&mut self, how_long: Duration) -> io::Result<()> {
        self.disk.as_mut().ok_or_else(no_disk)?.stall(how_long)
    }

    /// Waits for the end of a stall.
    ///
    /// # Errors
    /// When the member has no disk of its own, or it could not be stalled.
    pub(crate) fn await_disk(&mut self) -> io::Result<()> {
        self.disk.as_mut().ok_or_else(no_disk)?.await_flow()
    }
}

fn not_running() -> io::Error {
    io::Error::other("the member does not run")
}

fn no_disk() -> io::Error {
    io::Error::other("the member has no disk of its own")
}

/// Settings of this shell that would change a member.
fn foreign_variables() -> Vec<OsString> {
    let is_foreign = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("ETCD_") || name.starts_with("CASTD_")
    };
    std::env::vars_os().map(|(name, _)| name).filter(is_foreign).collect()
}
