//! Servers to put load on, and the program that does.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The program under test.
pub(crate) const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// A server's process; killed when the test is over.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the server of empty calls on a free port, which it prints.
pub(crate) fn empty_server() -> Server {
    let mut child = Command::new(LOADTEST)
        .args(["empty-server", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.split([':', ',']).nth(1).unwrap();
    Server { child, endpoint: format!("127.0.0.1:{port}"), _dir: None }
}

/// The etcd to test against, if there is one.
pub(crate) fn reference_etcd() -> Option<PathBuf> {
    let path =
        std::env::var_os("CASTD_REFERENCE_ETCD").map_or("/usr/bin/etcd".into(), PathBuf::from);
    if !path.exists() {
        eprintln!("no etcd at {}: set CASTD_REFERENCE_ETCD", path.display());
        return None;
    }
    Some(path)
}

/// Starts etcd, and waits for the line in its log that says it serves.
pub(crate) fn etcd(binary: &Path) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer) = (free_url(), free_url());
    let mut child = Command::new(binary)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready to serve client requests") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "etcd ended before it was ready");
    }
    // Somebody has to read on, or the pipe fills up and etcd waits.
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    Server { child, endpoint: client, _dir: Some(dir) }
}

fn free_url() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Runs the program with these words.
pub(crate) fn loadtest(words: &str) -> Output {
    Command::new(LOADTEST).args(words.split_whitespace()).output().unwrap()
}

/// Runs the program against an endpoint; expects success and answers its line of JSON.
pub(crate) fn report(server: &Server, words: &str) -> Value {
    let output = loadtest(&format!("{words} --endpoints {} --json", server.endpoint));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {}\n{errors}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}
