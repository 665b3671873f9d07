//! The snapshot lane: the state of this member, streamed to another one.
//!
//! The pieces are made on a thread of low priority, and nothing is made before the other
//! side has room for it: the way from there to the wire holds a few pieces only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use castd_proto::castdpb::{SnapshotPiece, snapshot_piece};
use futures::future::BoxFuture;
use futures::stream::{self, Stream, StreamExt};
use raft::eraftpb::Message;
use tokio::sync::mpsc;
use tokio::time::{interval_at, sleep, timeout};
use tonic::Code;

use super::dial::{LinkError, dial};
use super::link::LinkBasics;
use super::pacing::SharedRate;
use crate::raft_node::RaftInbound;
use crate::shared::{Error, Inlet, Refused, lower_priority};
use crate::snapshot::{Export, Exporter};

/// A piece of a snapshot, in bytes: small beside what the rate lets through in a moment.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces that are made ahead.
const PIECES_AHEAD: usize = 4;
/// Added to the nice value of the threads that make and take snapshots.
pub(super) const NICE: i32 = 10;

/// Gives the state that a snapshot is made of.
pub trait SnapshotSource: Send + Sync + 'static {
    /// The newest applied state.
    ///
    /// # Errors
    /// When it cannot be had now.
    fn export(&self) -> BoxFuture<'_, Result<Export, Error>>;
}

impl SnapshotSource for Exporter {
    fn export(&self) -> BoxFuture<'_, Result<Export, Error>> {
        Box::pin(Self::export(self))
    }
}

/// A snapshot that is to be sent. raft hears once what became of it, whatever
/// becomes of the link.
#[derive(Debug)]
pub(super) struct Parting {
    message: Message,
    raft: Inlet<RaftInbound>,
    told: bool,
}

impl Parting {
    pub(super) fn new(message: Message, raft: Inlet<RaftInbound>) -> Self {
        Self { message, raft, told: false }
    }

    /// Tells raft.
    async fn end(mut self, arrived: bool) {
        let sent = RaftInbound::SnapshotSent { to: self.message.to, arrived };
        // When RaftNode has ended, nobody waits for it.
        let _ = self.raft.send(sent).await;
        self.told = true;
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let sent = RaftInbound::SnapshotSent { to: self.message.to, arrived: false };
        if let Err(Refused::Full(sent)) = self.raft.try_send(sent)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let raft = self.raft.clone();
            runtime.spawn(async move { raft.send(sent).await });
        }
    }
}

/// The lane's task.
pub(super) struct SnapshotLane {
    basics: LinkBasics,
    queue: mpsc::Receiver<Parting>,
    source: Arc<dyn SnapshotSource>,
    turn: usize,
}

impl SnapshotLane {
    pub(super) fn new(
        basics: LinkBasics,
        queue: mpsc::Receiver<Parting>,
        source: Arc<dyn SnapshotSource>,
    ) -> Self {
        Self { basics, queue, source, turn: 0 }
    }

    /// Sends one snapshot after the other, until the link is dropped.
    pub(super) async fn run(mut self) {
        while let Some(parting) = self.queue.recv().await {
            let guard = self.basics.figures.snapshots.begin();
            let outcome = self.send(parting.message.clone()).await;
            let peer = format!("{:x}", self.basics.peer);
            match &outcome {
                Ok(sent) => {
                    guard.arrived();
                    tracing::info!(
                        { "remote-peer-id" = peer, index = sent.index, bytes = sent.bytes,
                          took = ?sent.took },
                        "sent a snapshot"
                    );
                }
                Err(Unsent { error, .. }) => {
                    drop(guard);
                    tracing::warn!({ "remote-peer-id" = peer, %error }, "failed to send a snapshot");
                }
            }
            // When all of it had gone, raft asks the other side what has become of it.
            let arrived = outcome.map_or_else(|unsent| unsent.gone, |_| true);
            parting.end(arrived).await;
        }
    }

    async fn send(&mut self, mut message: Message) -> Result<Sent, Unsent> {
        let start = Instant::now();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            LinkError::Broken(format!("{what}: {error}"))
        };
        let export = self.source.export().await.map_err(|e| failed("cannot export", &e))?;
        let index = export.index();
        export.place(&mut message).map_err(LinkError::Broken)?;
        tracing::info!(
            { "remote-peer-id" = format!("{:x}", self.basics.peer), index,
              size = export.size_hint() },
            "sending a snapshot"
        );
        let mut client = self.connect().await?;
        let (pieces, made) = mpsc::channel(PIECES_AHEAD);
        make_pieces(export, pieces).map_err(|e| failed("cannot start a thread", &e))?;
        let rate = self.basics.snapshot_rate.clone();
        let progress = Arc::new(Progress::default());
        let body = body(message, paced(made, rate, Arc::clone(&progress)));
        let call = client.send_snapshot(self.basics.caller.request(body));
        self.watch(call, &progress).await?;
        let bytes = progress.bytes.load(Relaxed);
        Ok(Sent { index, bytes, took: start.elapsed() })
    }

    async fn connect(
        &mut self,
    ) -> Result<castd_proto::castdpb::peer_client::PeerClient<tonic::transport::Channel>, LinkError>
    {
        let mut error = LinkError::NoUrl;
        let urls = self.basics.addresses.get();
        for _ in 0..urls.len() {
            let url = urls[self.turn % urls.len()].clone();
            let settings = &self.basics.settings;
            match timeout(settings.connect_timeout, dial(&url, settings, settings.snapshot_stall))
                .await
            {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(other)) => error = other,
                Err(_) => error = LinkError::Silent { url },
            }
            self.turn += 1;
        }
        Err(error)
    }

    /// Waits for the call's end, as long as bytes go out now and then. When the last one has
    /// gone, the other side takes its time to make the state its own; the connection's pings
    /// tell when it is gone.
    async fn watch<R>(
        &self,
        call: impl Future<Output = Result<R, tonic::Status>>,
        progress: &Progress,
    ) -> Result<(), Unsent> {
        let stall = self.basics.settings.snapshot_stall;
        let mut looks = interval_at(tokio::time::Instant::now() + stall, stall);
        let mut seen = 0;
        tokio::pin!(call);
        loop {
            tokio::select! {
                outcome = &mut call => return outcome.map(|_| ()).map_err(|status| {
                    // What the other side itself says against it has another code.
                    let broken = matches!(status.code(), Code::Unknown | Code::Unavailable);
                    let gone = broken && progress.all.load(Relaxed);
                    Unsent { error: status.into(), gone }
                }),
                _ = looks.tick() => {
                    let now = progress.bytes.load(Relaxed);
                    if now == seen && !progress.all.load(Relaxed) {
                        return Err(LinkError::Broken("no progress".to_owned()).into());
                    }
                    seen = now;
                }
            }
        }
    }
}

/// How far a snapshot is on its way out.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    /// There is nothing more to send.
    all: AtomicBool,
}

/// Why a snapshot is not in force, as far as is known.
struct Unsent {
    error: LinkError,
    /// All of it had gone when the connection broke: it may be in force or about to be.
    gone: bool,
}

impl From<LinkError> for Unsent {
    fn from(error: LinkError) -> Self {
        Self { error, gone: false }
    }
}

struct Sent {
    index: u64,
    bytes: u64,
    took: std::time::Duration,
}

/// Makes the pieces on a thread of their own, as they are taken.
fn make_pieces(export: Export, pieces: mpsc::Sender<Bytes>) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("snapshot_export".to_owned());
    thread.spawn(move || {
        lower_priority(NICE);
        for piece in export.into_pieces(PIECE_BYTES) {
            // The call has ended: nobody wants the rest.
            if pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The pieces at the rate that is allowed.
fn paced(
    made: mpsc::Receiver<Bytes>,
    rate: SharedRate,
    progress: Arc<Progress>,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((made, rate, progress), |(mut made, rate, progress)| async move {
        let Some(piece) = made.recv().await else {
            progress.all.store(true, Relaxed);
            return None;
        };
        let wait = rate.take(piece.len());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        progress.bytes.fetch_add(piece.len() as u64, Relaxed);
        Some((piece, (made, rate, progress)))
    })
}

fn body(
    message: Message,
    pieces: impl Stream<Item = Bytes> + Send,
) -> impl Stream<Item = SnapshotPiece> + Send {
    let piece = |piece| SnapshotPiece { piece: Some(piece) };
    let first = piece(snapshot_piece::Piece::Message(message));
    let rest = pieces.map(move |bytes| piece(snapshot_piece::Piece::State(bytes)));
    stream::once(std::future::ready(first)).chain(rest)
}
