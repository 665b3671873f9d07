//! A server under comparison: its process, from exec to exit.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use super::ask::{self, block_on};
use super::contender::Contender;
use super::summary::EMPTY_CALL;
use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint};

/// Where members listen.
const PORTS: Range<u16> = 12_000..32_000;
/// How many of them are tried.
const PORT_ATTEMPTS_MAX: usize = 1000;
/// The longest a start may take: a million keys may have to be replayed.
const READY_TIME_MAX: Duration = Duration::from_secs(300);
/// Between two attempts to connect to a server that is not listening yet.
const READY_POLL: Duration = Duration::from_millis(2);
/// The longest a server may take to end after SIGTERM; then it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether it has ended.
const STOP_POLL: Duration = Duration::from_millis(5);
/// Of a failed server's log, this much is shown.
const LOG_TAIL_BYTES: usize = 2000;

/// How a server shows that it is ready.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// Its health service says SERVING, and a linearizable read is answered.
    Service,
    /// It accepts a connection: there is nothing behind it that could take longer.
    Connection,
}

/// A member's place: it is the same before and after a restart.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// The member's name.
    pub(super) name: String,
    /// Where clients find it.
    pub(super) client: String,
    /// Where other members find it.
    pub(super) peer: String,
    /// Holds its data directory and its log.
    pub(super) dir: PathBuf,
}

/// A running server, one member of it. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    child: Child,
    endpoint: Endpoint,
    log: PathBuf,
    probe: Probe,
    launched: Instant,
    /// From exec to the first answers.
    pub(super) ready: Duration,
}

impl Server {
    /// Starts a contender's member on the data directory of its seat. It is not ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn launch(
        contender: &Contender,
        seat: &Seat,
        initial_cluster: &str,
    ) -> Result<Self, LoadError> {
        let mut command = Command::new(&contender.path);
        command.arg("--data-dir").arg(seat.dir.join("data"));
        for (flag, value) in [
            ("--name", seat.name.as_str()),
            ("--listen-client-urls", &seat.client),
            ("--advertise-client-urls", &seat.client),
            ("--listen-peer-urls", &seat.peer),
            ("--initial-advertise-peer-urls", &seat.peer),
            ("--initial-cluster", initial_cluster),
        ] {
            command.arg(flag).arg(value);
        }
        command.args(&contender.args);
        Self::spawn(&contender.name, command, &seat.client, &seat.dir.join("log"), Probe::Service)
    }

    /// Starts the server of empty calls: this program, in a process of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_empty(dir: &Path) -> Result<Self, LoadError> {
        let name = EMPTY_CALL;
        let url = free_urls(name, 1)?.remove(0);
        let own = std::env::current_exe().map_err(|error| problem(name, &error))?;
        let mut command = Command::new(own);
        command.args(["empty-server", "--listen", url.trim_start_matches("http://")]);
        let mut server = Self::spawn(name, command, &url, &dir.join("log"), Probe::Connection)?;
        server.await_ready()?;
        Ok(server)
    }

    fn spawn(
        name: &str,
        mut command: Command,
        url: &str,
        log: &Path,
        probe: Probe,
    ) -> Result<Self, LoadError> {
        let failed = |error: &dyn std::fmt::Display| problem(name, error);
        let endpoint = url.parse().map_err(|error: String| failed(&error))?;
        let out = File::options().create(true).append(true).open(log);
        let out = out.map_err(|error| failed(&error))?;
        let err = out.try_clone().map_err(|error| failed(&error))?;
        for variable in foreign_variables() {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let launched = Instant::now();
        let child = command.spawn().map_err(|error| failed(&error))?;
        let (name, log, ready) = (name.to_owned(), log.to_owned(), Duration::ZERO);
        Ok(Self { name, child, endpoint, log, probe, launched, ready })
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not become ready; with the end of its log.
    pub(super) fn await_ready(&mut self) -> Result<(), LoadError> {
        block_on(async {
            let deadline = Instant::now() + READY_TIME_MAX;
            loop {
                let attempt = tokio::time::timeout_at(deadline.into(), self.answers());
                match attempt.await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(_)) if self.has_exited()? => return Err(self.problem("ended at start")),
                    Ok(Err(_)) => tokio::time::sleep(READY_POLL).await,
                    Err(_) => return Err(self.problem("is not ready in time")),
                }
            }
        })?;
        self.ready = self.launched.elapsed();
        Ok(())
    }

    async fn answers(&self) -> Result<(), CallError> {
        match self.probe {
            Probe::Connection => ask::connection(&self.endpoint).await,
            Probe::Service => ask::service(&self.endpoint).await,
        }
    }

    /// Where it answers.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, and does not wait for what comes of it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), LoadError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| self.problem("no process id"))?;
        kill_process(pid, signal).map_err(|error| problem(&self.name, &error))
    }

    /// Waits until it has ended, after a signal.
    ///
    /// # Errors
    /// When it has to be killed for not ending in time.
    pub(super) fn await_end(mut self) -> Result<(), LoadError> {
        let start = Instant::now();
        while start.elapsed() < STOP_TIME_MAX {
            if self.has_exited()? {
                return Ok(());
            }
            std::thread::sleep(STOP_POLL);
        }
        Err(self.problem("does not end after the signal"))
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it has to be killed for not ending in time.
    pub(super) fn terminate(self) -> Result<(), LoadError> {
        self.signal(Signal::TERM)?;
        self.await_end()
    }

    fn has_exited(&mut self) -> Result<bool, LoadError> {
        let status = self.child.try_wait().map_err(|error| problem(&self.name, &error))?;
        Ok(status.is_some())
    }

    fn problem(&self, what: &str) -> LoadError {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]);
        problem(&self.name, &format!("{what}; the end of its log:\n{tail}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something about a server that ends the comparison.
pub(super) fn problem(server: &str, problem: &dyn std::fmt::Display) -> LoadError {
    LoadError::Server { server: server.to_owned(), problem: problem.to_string() }
}

/// Settings of this shell that would change a server.
fn foreign_variables() -> Vec<OsString> {
    let is_foreign = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("ETCD_") || name.starts_with("CASTD_")
    };
    std::env::vars_os().map(|(name, _)| name).filter(is_foreign).collect()
}

/// URLs on loopback ports that are free now. They lie below the ports that the kernel gives to
/// outgoing connections, or one of those could take the port of a member that is down.
///
/// # Errors
/// When no such ports are found.
pub(super) fn free_urls(name: &str, count: usize) -> Result<Vec<String>, LoadError> {
    let mut random = SmallRng::from_os_rng();
    // Held until all are found, so that no port is found twice.
    let mut listeners = Vec::new();
    for _ in 0..PORT_ATTEMPTS_MAX {
        if listeners.len() == count {
            break;
        }
        let port = random.random_range(PORTS);
        listeners.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    if listeners.len() < count {
        return Err(problem(name, &"no free ports on the loopback interface"));
    }
    let url = |listener: &TcpListener| {
        let address = listener.local_addr().map_err(|error| problem(name, &error))?;
        Ok(format!("http://{address}"))
    };
    listeners.iter().map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_at_once_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag; exit 1"]);
        let url = free_urls("test", 1).unwrap().remove(0);
        let log = dir.path().join("log");
        let mut server = Server::spawn("test", command, &url, &log, Probe::Connection).unwrap();
        let error = server.await_ready().unwrap_err();
        assert!(error.to_string().contains("no such flag"), "{error}");
    }

    #[test]
    fn a_server_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // The process only has to be there: the test's own socket answers the probe.
        let answering = std::thread::spawn(move || listener.accept().map(|(socket, _)| socket));
        let mut command = Command::new("sleep");
        command.arg("600");
        let log = dir.path().join("log");
        let mut server = Server::spawn("test", command, &url, &log, Probe::Connection).unwrap();
        server.await_ready().unwrap();
        assert!(server.pid() > 0);
        server.terminate().unwrap();
        assert!(answering.join().unwrap().is_ok());
    }
}
