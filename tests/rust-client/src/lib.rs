//! Starts the server under test and gives tests a client of the `etcd-client` crate.
//!
//! Owns: the processes of the server's members and their temporary directories.
//! Never: knows what server it is; `CASTD_BIN` names any etcd-compatible binary.
//!
//! With `CASTD_MEMBERS=3` a server is three members, and clients know all of them.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, Error};
use tempfile::TempDir;

/// How long a server may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server of one member or several; its processes are killed and
/// their directories removed when it is dropped.
pub struct Server {
    members: Vec<Member>,
}

impl Server {
    /// Starts the server on fresh directories and waits until every member answers.
    pub async fn start() -> Self {
        let mut members: Vec<Member> = (1..=member_count()).map(Member::new).collect();
        let pairs: Vec<String> =
            members.iter().map(|m| format!("{}=http://{}", m.name, m.peer)).collect();
        let initial_cluster = pairs.join(",");
        for member in &mut members {
            member.initial_cluster.clone_from(&initial_cluster);
            member.launch();
        }
        for member in &members {
            member.wait_until_ready().await;
        }
        Self { members }
    }

    /// How many members it has.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Ends a member with SIGKILL and starts it again on the same directory.
    pub async fn kill_and_restart(&mut self) {
        let member = &mut self.members[0];
        member.kill();
        member.launch();
        member.wait_until_ready().await;
    }

    /// A new client of all members.
    pub async fn client(&self) -> Client {
        let addresses: Vec<&str> = self.members.iter().map(|m| m.address.as_str()).collect();
        Client::connect(addresses, None).await.expect("a connection")
    }
}

/// One member and its directory.
struct Member {
    name: String,
    address: String,
    peer: String,
    initial_cluster: String,
    directory: TempDir,
    process: Option<Child>,
}

impl Member {
    /// Reserves what a member needs; nothing runs yet.
    fn new(number: usize) -> Self {
        Self {
            name: format!("m{number}"),
            address: free_address(),
            peer: free_address(),
            initial_cluster: String::new(),
            directory: TempDir::new().expect("a temporary directory"),
            process: None,
        }
    }

    fn launch(&mut self) {
        let binary =
            env::var_os("CASTD_BIN").expect("CASTD_BIN must name the server binary to test");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file can be written");
        let Self { name, address, peer, initial_cluster, .. } = self;
        let process = Command::new(binary)
            .arg(format!("--name={name}"))
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .arg(format!("--listen-client-urls=http://{address}"))
            .arg(format!("--advertise-client-urls=http://{address}"))
            .arg(format!("--listen-peer-urls=http://{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
            .arg(format!("--initial-cluster={initial_cluster}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.process = Some(process);
    }

    /// Ends the process, if it runs.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only when the process is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match self.ask().await {
                Ok(()) => return,
                Err(error) if Instant::now() > deadline => {
                    let log = fs::read_to_string(self.log_path()).unwrap_or_default();
                    panic!("not ready within {READY_TIMEOUT:?}: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn ask(&self) -> Result<(), Error> {
        let mut client = Client::connect([&self.address], None).await?;
        client.get("ready", None).await.map(drop)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How many members a server has: `CASTD_MEMBERS`, or one.
fn member_count() -> usize {
    env::var("CASTD_MEMBERS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(1)
}

/// An address that nobody listens on at the moment.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}
