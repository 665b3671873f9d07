//! The members of one server, all on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use castd_proto::etcdserverpb::StatusResponse;
use rustix::process::Signal;

use super::ask::{self, block_on};
use super::contender::Contender;
use super::server::{Seat, Server, free_urls, problem};
use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint};
use crate::process::{Memory, memory};

/// Name of a member that is alone: what a server calls itself by default.
const LONE_NAME: &str = "default";
/// The longest that an election may take, or a member to have what was written.
const AGREEMENT_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at the members.
const POLL: Duration = Duration::from_millis(10);

/// A contender's members; some may be down.
#[derive(Debug)]
pub(super) struct Cluster {
    contender: Contender,
    initial_cluster: String,
    seats: Vec<Seat>,
    members: Vec<Option<Server>>,
}

impl Cluster {
    /// Starts so many members on fresh directories under `dir` and waits until all answer.
    ///
    /// # Errors
    /// When one cannot be started, ends, or does not become ready; with the end of its log.
    pub(super) fn start(contender: &Contender, size: usize, dir: &Path) -> Result<Self, LoadError> {
        let seats = seats(&contender.name, size, dir)?;
        let initial_cluster =
            seats.iter().map(|seat| format!("{}={}", seat.name, seat.peer)).collect::<Vec<_>>();
        let mut cluster = Self {
            contender: contender.clone(),
            initial_cluster: initial_cluster.join(","),
            members: seats.iter().map(|_| None).collect(),
            seats,
        };
        cluster.start_all()?;
        Ok(cluster)
    }

    /// Starts all members, which must be down, and waits until they answer.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub(super) fn start_all(&mut self) -> Result<(), LoadError> {
        for index in 0..self.seats.len() {
            self.launch(index)?;
        }
        (0..self.seats.len()).try_for_each(|index| self.await_ready(index))
    }

    /// Starts one member that is down, and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn launch(&mut self, index: usize) -> Result<(), LoadError> {
        let server = Server::launch(&self.contender, &self.seats[index], &self.initial_cluster)?;
        self.members[index] = Some(server);
        Ok(())
    }

    /// Waits until a member answers.
    ///
    /// # Errors
    /// When it is down, ends, or does not become ready.
    pub(super) fn await_ready(&mut self, index: usize) -> Result<(), LoadError> {
        self.member_mut(index)?.await_ready()
    }

    /// Where the members answer that are up.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.up().map(|member| member.endpoint().clone()).collect()
    }

    /// Process ids of the members that are up.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.up().map(Server::pid).collect()
    }

    /// Number of members, those that are down included.
    pub(super) fn size(&self) -> usize {
        self.seats.len()
    }

    /// One member.
    ///
    /// # Errors
    /// When it is down.
    pub(super) fn member(&self, index: usize) -> Result<&Server, LoadError> {
        self.members[index].as_ref().ok_or_else(|| self.is_down(index))
    }

    fn member_mut(&mut self, index: usize) -> Result<&mut Server, LoadError> {
        let error = self.is_down(index);
        self.members[index].as_mut().ok_or(error)
    }

    fn is_down(&self, index: usize) -> LoadError {
        problem(&self.contender.name, &format!("member {} is down", self.seats[index].name))
    }

    fn up(&self) -> impl Iterator<Item = &Server> {
        self.members.iter().flatten()
    }

    /// The longest that a member took from exec to its first answers.
    pub(super) fn ready(&self) -> Duration {
        self.up().map(|member| member.ready).max().unwrap_or_default()
    }

    /// Memory of all members.
    ///
    /// # Errors
    /// When one has gone.
    pub(super) fn memory(&self) -> Result<Memory, LoadError> {
        self.up().map(|member| memory(member.pid())).sum()
    }

    /// Index of the leader; waits for one.
    ///
    /// # Errors
    /// When there is none in time.
    pub(super) fn leader(&self) -> Result<usize, LoadError> {
        let deadline = Instant::now() + AGREEMENT_TIME_MAX;
        while Instant::now() < deadline {
            for (index, member) in self.members.iter().enumerate() {
                let Some(member) = member else { continue };
                if self.status(member).is_ok_and(|status| ask::leads(&status)) {
                    return Ok(index);
                }
            }
            std::thread::sleep(POLL);
        }
        Err(problem(&self.contender.name, &"no member says that it leads"))
    }

    fn status(&self, member: &Server) -> Result<StatusResponse, LoadError> {
        block_on(async {
            ask::status(member.endpoint()).await.map_err(|error| self.failed(&error))
        })
    }

    /// Waits until every member that is up has what was written before.
    ///
    /// # Errors
    /// When one does not answer a linearizable read.
    pub(super) fn settle(&self) -> Result<(), LoadError> {
        block_on(async {
            for member in self.up() {
                let read = ask::service(member.endpoint());
                let answer = tokio::time::timeout(AGREEMENT_TIME_MAX, read).await;
                let late = |_| problem(&self.contender.name, &"a member does not catch up");
                answer.map_err(late)?.map_err(|error| self.failed(&error))?;
            }
            Ok(())
        })
    }

    fn failed(&self, error: &CallError) -> LoadError {
        problem(&self.contender.name, error)
    }

    /// Waits until a member that was sent a signal has ended.
    ///
    /// # Errors
    /// When it is down already, or has to be killed.
    pub(super) fn await_end(&mut self, index: usize) -> Result<(), LoadError> {
        let error = self.is_down(index);
        self.members[index].take().ok_or(error)?.await_end()
    }

    /// Asks all members to end, at the same time, and waits until they have.
    ///
    /// # Errors
    /// When one has to be killed for not ending in time.
    pub(super) fn terminate(&mut self) -> Result<(), LoadError> {
        self.end_all(Signal::TERM)
    }

    /// Ends all members with no chance to finish anything.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub(super) fn kill(&mut self) -> Result<(), LoadError> {
        self.end_all(Signal::KILL)
    }

    fn end_all(&mut self, signal: Signal) -> Result<(), LoadError> {
        self.up().try_for_each(|member| member.signal(signal))?;
        self.members.iter_mut().filter_map(Option::take).try_for_each(Server::await_end)
    }
}

/// Names, ports and directories for so many members.
fn seats(contender: &str, size: usize, dir: &Path) -> Result<Vec<Seat>, LoadError> {
    let urls = free_urls(contender, 2 * size)?;
    let mut seats = Vec::with_capacity(size);
    for (index, pair) in urls.chunks_exact(2).enumerate() {
        let name = if size == 1 { LONE_NAME.to_owned() } else { format!("m{}", index + 1) };
        let dir = dir.join(&name);
        let what = "cannot make the directory";
        std::fs::create_dir_all(&dir).map_err(|source| LoadError::File {
            what,
            path: dir.clone(),
            source,
        })?;
        seats.push(Seat { name, client: pair[0].clone(), peer: pair[1].clone(), dir });
    }
    Ok(seats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_member_has_a_place_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let seats = seats("test", 3, dir.path()).unwrap();
        let mut urls = BTreeSet::new();
        for seat in &seats {
            assert!(seat.dir.is_dir());
            urls.insert(seat.client.clone());
            urls.insert(seat.peer.clone());
        }
        assert_eq!(urls.len(), 6);
        let names: Vec<&str> = seats.iter().map(|seat| seat.name.as_str()).collect();
        assert_eq!(names, ["m1", "m2", "m3"]);
    }
}
