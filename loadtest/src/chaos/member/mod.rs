//! One member: the thread that keeps its process, in namespaces of its own.
//!
//! Owns: the process, the disk it writes to, the namespaces both are in.
//! Receives: jobs, one after the other.
//! Never does: decide anything. What is done to a member comes from outside.
//!
//! The kernel kills the process when its thread ends, and drops the namespaces with what is
//! mounted in them: whatever becomes of this program, nothing of a member stays behind.

mod disk;
mod room;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::network;
use crate::error::LoadError;
pub(crate) use room::Room;

/// Jobs that may wait for one member. Its master waits for every answer, so one would do.
const JOBS: usize = 4;

type Job = Box<dyn FnOnce(&mut Room) + Send>;

/// Where a member is to live.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Its name.
    pub(crate) name: String,
    /// The directory of the whole run; the member's own is in it.
    pub(crate) dir: PathBuf,
    /// Its address in a network of namespaces; without one it stays on this machine's.
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether it gets a file system of its own, that can be filled and stalled.
    pub(crate) own_disk: bool,
}

/// The handle of a member's thread. Dropping it kills the member.
#[derive(Debug)]
pub(crate) struct Keeper {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread and makes the member's place. Answers the TUN device of its network
    /// namespace, when it has one.
    ///
    /// # Errors
    /// [`LoadError::Rights`] when namespaces or mounts are not allowed here.
    pub(crate) fn new(home: Home) -> Result<(Self, Option<File>), LoadError> {
        let (jobs, inbox) = sync_channel::<Job>(JOBS);
        let (ready, made) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(home.name.clone())
            .spawn(move || keep(home, &ready, &inbox))
            .map_err(LoadError::Runtime)?;
        let keeper = Self { jobs: Some(jobs), thread: Some(thread) };
        let device = made.recv().map_err(|_| LoadError::Thread)??;
        Ok((keeper, device))
    }

    /// Has the member's thread do something, and waits for the result.
    ///
    /// # Errors
    /// When the thread has failed.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Room) -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |room| {
            // Nobody waits any more when the run is being broken off.
            let _ = reply.send(job(room));
        });
        let jobs = self.jobs.as_ref().ok_or(LoadError::Thread)?;
        jobs.try_send(job).map_err(|_| LoadError::Thread)?;
        answer.await.map_err(|_| LoadError::Thread)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

type Made = Result<Option<File>, LoadError>;

fn keep(home: Home, ready: &SyncSender<Made>, inbox: &Receiver<Job>) {
    let device = match home.address.map(network::enter_namespace).transpose() {
        Ok(device) => device,
        Err(error) => return tell(ready, Err(rights("a network namespace", error))),
    };
    let mut room = match Room::make(home) {
        Ok(room) => room,
        Err(error) => return tell(ready, Err(error)),
    };
    tell(ready, Ok(device));
    while let Ok(job) = inbox.recv() {
        job(&mut room);
    }
}

fn tell(ready: &SyncSender<Made>, made: Made) {
    // Whoever asked for the member may have given up; then the thread ends anyway.
    let _ = ready.send(made);
}

/// The error for something only a privileged program may make.
pub(crate) fn rights(what: &'static str, source: std::io::Error) -> LoadError {
    LoadError::Rights { what, source }
}
