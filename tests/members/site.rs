//! Members as processes of their own, and ways in.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use castd_proto::etcdserverpb::cluster_client::ClusterClient;
use castd_proto::etcdserverpb::{Member, MemberListRequest};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

const PROGRAM: &str = env!("CARGO_BIN_EXE_castd");
const READY: &str = "ready to serve client requests";

/// Where a member is reached.
pub struct Place {
    pub name: String,
    pub peer: String,
    pub client: String,
}

/// Places for members, and their data.
pub struct Site {
    pub dir: TempDir,
    pub places: Vec<Place>,
}

impl Site {
    pub fn new(members: usize) -> Self {
        // All listeners are there until every port is known: no two are the same.
        let held: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let url = |n: usize| format!("http://{}", held[n].local_addr().expect("it is bound"));
        let place = |n| Place { name: format!("m{n}"), peer: url(2 * n), client: url(2 * n + 1) };
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            places: (0..members).map(place).collect(),
        }
    }

    /// Starts the member `n` of a cluster that is to have these members.
    pub fn start(&self, n: usize, members: &[usize], flags: &[&str]) -> Running {
        let data = self.dir.path().join(&self.places[n].name);
        self.start_with_data(n, members, &data, flags)
    }

    pub fn start_with_data(
        &self,
        n: usize,
        members: &[usize],
        data: &Path,
        flags: &[&str],
    ) -> Running {
        self.spawn(Command::new(PROGRAM), n, members, data, flags)
    }

    /// Starts a member that may have no more than `descriptors` files open.
    pub fn start_with_limit(
        &self,
        n: usize,
        members: &[usize],
        descriptors: u32,
        flags: &[&str],
    ) -> Running {
        let mut shell = Command::new("bash");
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script]);
        self.start_by(shell, n, members, flags)
    }

    /// Starts a member by way of a launcher, which is told the program and its arguments.
    pub fn start_by(
        &self,
        mut launcher: Command,
        n: usize,
        members: &[usize],
        flags: &[&str],
    ) -> Running {
        let data = self.dir.path().join(&self.places[n].name);
        launcher.arg(PROGRAM);
        self.spawn(launcher, n, members, &data, flags)
    }

    fn spawn(
        &self,
        mut program: Command,
        n: usize,
        members: &[usize],
        data: &Path,
        flags: &[&str],
    ) -> Running {
        let Place { name, peer, client } = &self.places[n];
        let part = |n: &usize| format!("{}={}", self.places[*n].name, self.places[*n].peer);
        let cluster: Vec<String> = members.iter().map(part).collect();
        let mut child = program
            .args(["--name", name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &cluster.join(","), "--strict-reconfig-check=false"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        Running { child, said: Some(said) }
    }

    pub async fn cluster(&self, n: usize) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(n).await)
    }

    pub async fn channel(&self, n: usize) -> Channel {
        let endpoint = Endpoint::from_shared(self.places[n].client.clone()).expect("a URL");
        endpoint.connect().await.expect("the member listens")
    }

    pub async fn members(&self, n: usize) -> Vec<Member> {
        let request = MemberListRequest { linearizable: true };
        let listed = self.cluster(n).await.member_list(request).await;
        listed.expect("members are listed").into_inner().members
    }

    pub async fn id(&self, asked: usize, n: usize) -> u64 {
        let members = self.members(asked).await;
        let found = members.iter().find(|member| member.peer_urls == [self.places[n].peer.clone()]);
        found.expect("it is a member").id
    }
}

/// A member's process, killed when dropped.
pub struct Running {
    child: Child,
    said: Option<BufReader<ChildStderr>>,
}

impl Running {
    /// Reads what the member says until it is ready; somebody has to read on.
    pub fn wait_until_ready(&mut self) {
        self.wait_until_says(READY);
        let mut said = self.said.take().expect("one waits once");
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    }

    /// Reads what the member says up to a line with this text.
    pub fn wait_until_says(&mut self, text: &str) {
        let said = self.said.as_mut().expect("nobody else reads");
        let mut all = String::new();
        loop {
            let begin = all.len();
            let read = said.read_line(&mut all).expect("it writes text");
            assert!(read > 0, "the member ended:\n{all}");
            if all[begin..].contains(text) {
                return;
            }
        }
    }

    /// SIGTERM: a planned stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// The process of a member that was started by way of a launcher that stays.
    pub fn child(&self) -> Pid {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let child = children.expect("the system tells").trim().parse().expect("it has one child");
        Pid::from_raw(child).expect("no process has the number 0")
    }

    /// What the member said until it ended, and how it did.
    pub fn wait_until_ended(mut self) -> (String, ExitStatus) {
        let mut all = String::new();
        if let Some(said) = &mut self.said {
            said.read_to_string(&mut all).expect("it writes text");
        }
        let status = self.child.wait().expect("it is our child");
        (all, status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts these members of one cluster and waits until they serve.
pub fn begin(site: &Site, members: &[usize]) -> Vec<Running> {
    let mut all: Vec<Running> = members.iter().map(|n| site.start(*n, members, &[])).collect();
    all.iter_mut().for_each(Running::wait_until_ready);
    all
}
