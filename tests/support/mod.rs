//! The real program from outside: started, watched, written to, killed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use castd_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};

const READY: &str = "ready to serve client requests";
/// Far longer than any start takes: a member that says nothing is broken.
const READY_WAIT: Duration = Duration::from_secs(120);

/// A running member, killed when dropped.
pub struct Member {
    child: Child,
    pub url: String,
}

impl Member {
    /// Starts a member over `data_dir` and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends instead, with what it said.
    pub fn start(data_dir: &Path) -> Self {
        match Self::try_start(data_dir, &[]) {
            Ok(member) => member,
            Err(said) => panic!("the member did not start:\n{said}"),
        }
    }

    /// As [`Member::start`], with more flags.
    ///
    /// # Errors
    /// What the member said before it ended.
    pub fn try_start(data_dir: &Path, flags: &[&str]) -> Result<Self, String> {
        Self::try_start_telling(data_dir, flags, |_| {})
    }

    /// As [`Self::try_start`], and `tell` hears every line of its log until it is ready.
    ///
    /// # Errors
    /// What the member said before it ended.
    pub fn try_start_telling(
        data_dir: &Path,
        flags: &[&str],
        mut tell: impl FnMut(&str),
    ) -> Result<Self, String> {
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_castd"))
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            // Read to the end, so that the member never waits for us.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        let mut said = String::new();
        loop {
            match lines.recv_timeout(READY_WAIT) {
                Ok(line) if line.contains(READY) => return Ok(Self { child, url }),
                Ok(line) => {
                    tell(&line);
                    said = said + &line + "\n";
                }
                Err(_) => {
                    let _ = child.kill();
                    let status = child.wait();
                    return Err(format!("{said}{status:?}"));
                }
            }
        }
    }

    /// SIGKILL, as a crash.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was our child");
    }

    /// A client with a connection of its own.
    pub async fn kv(&self) -> KvClient<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone()).expect("a URL");
        KvClient::new(endpoint.connect().await.expect("it listens"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
