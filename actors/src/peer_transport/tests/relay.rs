//! A stretch of network that a test can break.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes on their way to the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    /// They pass.
    Open,
    /// So many pass on each connection, the others wait.
    StallAfter(u64),
    /// So many pass on each connection, then it breaks.
    CutAfter(u64),
    /// Every connection breaks at once, and so do new ones.
    Cut,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    mode: watch::Sender<Mode>,
    open: watch::Receiver<usize>,
}

impl Relay {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Open);
        let (opened, open) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, opened) = (seen.clone(), opened.clone());
                tokio::spawn(async move {
                    opened.send_modify(|open| *open += 1);
                    pass(client, target, seen).await;
                    opened.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, mode, open }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until so many connections are open.
    pub(super) async fn connections(&mut self, count: usize) {
        super::within(self.open.wait_for(|open| *open == count)).await.unwrap();
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let there = forward(from_client, to_server, mode.clone());
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut passed = 0;
    let mut buffer = [0; 4096];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let may_pass = |mode: &Mode| match *mode {
            Mode::StallAfter(bytes) => passed < bytes,
            Mode::Open | Mode::CutAfter(_) | Mode::Cut => true,
        };
        let Ok(now) = mode.wait_for(may_pass).await.map(|mode| *mode) else { return };
        if matches!(now, Mode::CutAfter(bytes) if passed >= bytes) {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        passed += length as u64;
    }
}
