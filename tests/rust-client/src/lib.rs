//! Starts the server under test and gives tests a client of the `etcd-client` crate.
//!
//! Owns: the server process and its temporary directory.
//! Never: knows what server it is; `CASTD_BIN` names any etcd-compatible binary.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, Error};
use tempfile::TempDir;

/// How long a server may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// One running member; it is killed and its directory removed when dropped.
pub struct Server {
    /// `host:port` of the client listener.
    pub address: String,
    peer: String,
    directory: TempDir,
    process: Child,
}

impl Server {
    /// Starts the server on a fresh directory and waits until it answers.
    pub async fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let address = free_address();
        let peer = free_address();
        let process = launch(&directory, &address, &peer);
        let server = Self { address, peer, directory, process };
        server.wait_until_ready().await;
        server
    }

    /// Ends the process with SIGKILL and starts it again on the same directory.
    pub async fn kill_and_restart(&mut self) {
        self.process.kill().expect("the process was running");
        self.process.wait().expect("the process can be waited for");
        self.process = launch(&self.directory, &self.address, &self.peer);
        self.wait_until_ready().await;
    }

    /// A new connection.
    pub async fn client(&self) -> Client {
        Client::connect([&self.address], None).await.expect("a connection")
    }

    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match self.ask().await {
                Ok(()) => return,
                Err(error) if Instant::now() > deadline => {
                    let log = fs::read_to_string(log_path(&self.directory)).unwrap_or_default();
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
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(directory: &TempDir, address: &str, peer: &str) -> Child {
    let binary = env::var_os("CASTD_BIN").expect("CASTD_BIN must name the server binary to test");
    let log =
        File::options().create(true).append(true).open(log_path(directory)).expect("a log file");
    Command::new(binary)
        .arg("--name=m1")
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .arg(format!("--listen-client-urls=http://{address}"))
        .arg(format!("--advertise-client-urls=http://{address}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
        .arg(format!("--initial-cluster=m1=http://{peer}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

fn log_path(directory: &TempDir) -> PathBuf {
    directory.path().join("server.log")
}

/// An address that nobody listens on at the moment.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}
