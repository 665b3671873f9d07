//! A server under comparison: its process, from exec to exit.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::{Builder, LocalOptions};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::summary::EMPTY_CALL;
use crate::cli::CompareArgs;
use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint, Link, Rpc};
use crate::work::range::RANGE;

/// The health service's method.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
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

/// A binary that takes part.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    /// Its name in tables.
    pub(super) name: String,
    /// What it says about its version, in one line.
    pub(super) version: String,
    path: PathBuf,
    args: Vec<String>,
}

impl Contender {
    /// All binaries of a comparison; castd is the first, when it takes part.
    ///
    /// # Errors
    /// When a binary cannot be run.
    pub(super) fn all(args: &CompareArgs) -> Result<Vec<Self>, LoadError> {
        let mut all = Vec::new();
        if let Some(path) = &args.castd {
            all.push(Self::new("castd", path, &args.castd_arg)?);
        }
        for path in &args.etcd {
            let mut contender = Self::new("etcd", path, &args.etcd_arg)?;
            let number = contender.version.split_whitespace().last().unwrap_or_default();
            contender.name = unused_name(&format!("etcd {number}"), &all);
            all.push(contender);
        }
        Ok(all)
    }

    fn new(name: &str, path: &Path, args: &[String]) -> Result<Self, LoadError> {
        let problem = |problem: String| LoadError::Server { server: name.to_owned(), problem };
        let output = Command::new(path).arg("--version").output();
        let output = output.map_err(|error| problem(format!("{}: {error}", path.display())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // castd names the etcd version it is compatible with first, and then its own.
        let own = text.lines().find(|line| line.starts_with("castd Version:"));
        let version = own.or_else(|| text.lines().next()).unwrap_or_default().to_owned();
        Ok(Self { name: name.to_owned(), version, path: path.to_owned(), args: args.to_vec() })
    }
}

/// The same name again, for two builds of one version, gets a number.
fn unused_name(name: &str, taken: &[Contender]) -> String {
    let is_free = |name: &String| taken.iter().all(|other| other.name != *name);
    let numbered = (2..).map(|number| format!("{name} ({number})"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).expect("there is no last number")
}

/// How a server shows that it is ready.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// Its health service says SERVING, and a linearizable read is answered.
    Etcd,
    /// It accepts a connection: there is nothing behind it that could take longer.
    Connection,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    child: Child,
    endpoint: Endpoint,
    log: PathBuf,
    /// From exec to the first answers.
    pub(super) ready: Duration,
}

impl Server {
    /// Starts a contender on the data directory `dir/data`, and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not become ready; with the end of its log.
    pub(super) fn start(contender: &Contender, dir: &Path) -> Result<Self, LoadError> {
        let [client, peer] = free_urls(&contender.name)?;
        let mut command = Command::new(&contender.path);
        command.arg("--data-dir").arg(dir.join("data"));
        for (flag, url) in [
            ("--listen-client-urls", client.as_str()),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("default={peer}")),
        ] {
            command.arg(flag).arg(url);
        }
        command.args(&contender.args);
        Self::spawn(&contender.name, command, &client, &dir.join("log"), Probe::Etcd)
    }

    /// Starts the server of empty calls: this program, in a process of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_empty(dir: &Path) -> Result<Self, LoadError> {
        let name = EMPTY_CALL;
        let [url, _] = free_urls(name)?;
        let own = std::env::current_exe().map_err(|error| problem(name, &error))?;
        let mut command = Command::new(own);
        command.args(["empty-server", "--listen", url.trim_start_matches("http://")]);
        Self::spawn(name, command, &url, &dir.join("log"), Probe::Connection)
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
        let start = Instant::now();
        let child = command.spawn().map_err(|error| failed(&error))?;
        let mut server = Self {
            name: name.to_owned(),
            child,
            endpoint,
            log: log.to_owned(),
            ready: Duration::ZERO,
        };
        server.await_ready(probe)?;
        server.ready = start.elapsed();
        Ok(server)
    }

    /// Where it answers.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it has to be killed for not ending in time.
    pub(super) fn terminate(mut self) -> Result<(), LoadError> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < STOP_TIME_MAX {
            if self.has_exited()? {
                return Ok(());
            }
            std::thread::sleep(STOP_POLL);
        }
        Err(self.problem("does not end after SIGTERM"))
    }

    /// Ends it with no chance to finish anything.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub(super) fn kill(mut self) -> Result<(), LoadError> {
        self.signal(Signal::KILL)?;
        self.child.wait().map_err(|error| problem(&self.name, &error))?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), LoadError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| self.problem("no process id"))?;
        kill_process(pid, signal).map_err(|error| problem(&self.name, &error))
    }

    fn has_exited(&mut self) -> Result<bool, LoadError> {
        let status = self.child.try_wait().map_err(|error| problem(&self.name, &error))?;
        Ok(status.is_some())
    }

    fn await_ready(&mut self, probe: Probe) -> Result<(), LoadError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(LoadError::Runtime)?;
        runtime.block_on(async {
            let deadline = Instant::now() + READY_TIME_MAX;
            loop {
                let attempt =
                    tokio::time::timeout_at(deadline.into(), answers(&self.endpoint, probe));
                match attempt.await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(_)) if self.has_exited()? => return Err(self.problem("ended at start")),
                    Ok(Err(_)) => tokio::time::sleep(READY_POLL).await,
                    Err(_) => return Err(self.problem("is not ready in time")),
                }
            }
        })
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

fn problem(server: &str, problem: &dyn std::fmt::Display) -> LoadError {
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

/// Two URLs on loopback ports that are free now.
fn free_urls(name: &str) -> Result<[String; 2], LoadError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [
        bind().map_err(|error| problem(name, &error))?,
        bind().map_err(|error| problem(name, &error))?,
    ];
    let mut urls = [String::new(), String::new()];
    for (url, listener) in urls.iter_mut().zip(&listeners) {
        let address = listener.local_addr().map_err(|error| problem(name, &error))?;
        *url = format!("http://{address}");
    }
    Ok(urls)
}

async fn answers(endpoint: &Endpoint, probe: Probe) -> Result<(), CallError> {
    let mut rpc = Rpc::new(&Link::connect(endpoint.clone()).await?);
    if let Probe::Connection = probe {
        return Ok(());
    }
    let health: HealthCheckResponse =
        rpc.unary(&rpc.route(HEALTH), &HealthCheckRequest::default()).await?;
    if health.status() != ServingStatus::Serving {
        return Err(CallError::WrongAnswer(format!("health: {:?}", health.status())));
    }
    let key = bytes::Bytes::from_static(b"ready?");
    let read = RangeRequest { key, ..RangeRequest::default() };
    let _: RangeResponse = rpc.unary(&rpc.route(RANGE), &read).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_of_one_version_are_told_apart() {
        let contender = |name: &str| Contender {
            name: name.into(),
            version: String::new(),
            path: PathBuf::new(),
            args: Vec::new(),
        };
        let taken = [contender("castd"), contender("etcd 3.5.1"), contender("etcd 3.5.1 (2)")];
        assert_eq!(unused_name("etcd 3.4.23", &taken), "etcd 3.4.23");
        assert_eq!(unused_name("etcd 3.5.1", &taken), "etcd 3.5.1 (3)");
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag; exit 1"]);
        let [url, _] = free_urls("test").unwrap();
        let log = dir.path().join("log");
        let error = Server::spawn("test", command, &url, &log, Probe::Connection).unwrap_err();
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
        let server = Server::spawn("test", command, &url, &log, Probe::Connection).unwrap();
        assert!(server.pid() > 0);
        server.terminate().unwrap();
        assert!(answering.join().unwrap().is_ok());
    }
}
