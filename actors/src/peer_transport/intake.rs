//! A snapshot that comes from another member: off the wire, into a state.

use bytes::Bytes;
use castd_proto::castdpb::{SnapshotPiece, snapshot_piece};
use raft::eraftpb::{Message, MessageType};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::settings::PeerSettings;
use super::snapshot_lane::NICE;
use crate::shared::lower_priority;
use crate::snapshot::{Arrived, Arriving, SnapshotError};

/// Pieces between the wire and the state.
const PIECES_AHEAD: usize = 4;

/// Receives a whole snapshot of the member `from`: raft's message and the state.
pub(super) async fn receive(
    mut pieces: Streaming<SnapshotPiece>,
    from: u64,
    settings: &PeerSettings,
) -> Result<(Message, Arrived), Status> {
    let next = timeout(settings.snapshot_stall, pieces.message()).await;
    let message = match next.map_err(|_| stalled())??.and_then(|first| first.piece) {
        Some(snapshot_piece::Piece::Message(message)) => message,
        _ => return Err(Status::invalid_argument("the snapshot begins without its message")),
    };
    check(&message, from, settings.identity.member_id)?;
    let index = message.get_snapshot().get_metadata().index;
    let reception = Reception::begin(format!("{from:x}"), index);

    let (ahead, taken) = mpsc::channel(PIECES_AHEAD);
    let built = build_on_a_thread(taken)?;
    let fed = feed(pieces, ahead, settings).await;
    // The builder says why it takes no more; what the sender did wrong comes after that.
    let outcome = match (fed, built.await) {
        (Err(status), Ok(Err(None) | Ok(_))) => Err(status),
        (_, Ok(Err(Some(error)))) => Err(Status::data_loss(error.to_string())),
        (Ok(()), Ok(Ok(state))) => {
            check_state(&state, &message, settings.identity.cluster_id).map(|()| (message, state))
        }
        (Ok(()), Ok(Err(None))) | (_, Err(_)) => {
            Err(Status::internal("the snapshot's builder ended early"))
        }
    };
    reception.end(outcome.as_ref().err().map(Status::message));
    outcome
}

/// Says in the log how a reception goes, also when its connection breaks and nobody waits
/// for it any more.
struct Reception {
    peer: String,
    index: u64,
    ended: bool,
}

impl Reception {
    fn begin(peer: String, index: u64) -> Self {
        tracing::info!({ "remote-peer-id" = peer, index }, "receiving a snapshot");
        Self { peer, index, ended: false }
    }

    fn end(mut self, error: Option<&str>) {
        self.ended = true;
        match error {
            None => {
                tracing::info!(
                    { "remote-peer-id" = self.peer, index = self.index },
                    "received a snapshot"
                );
            }
            Some(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &str) {
        tracing::warn!(
            { "remote-peer-id" = self.peer, index = self.index, error },
            "failed to receive a snapshot"
        );
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.ended {
            self.failed("the sender has gone");
        }
    }
}

fn check(message: &Message, from: u64, us: u64) -> Result<(), Status> {
    let kind = message.msg_type() == MessageType::MsgSnapshot;
    if kind && message.from == from && message.to == us {
        return Ok(());
    }
    Err(Status::invalid_argument("the snapshot's message is not one for this member"))
}

/// What raft is told of the state must be so.
fn check_state(state: &Arrived, message: &Message, cluster_id: u64) -> Result<(), Status> {
    let told = message.get_snapshot().get_metadata();
    let fits = (state.index(), state.term()) == (told.index, told.term);
    if fits && state.meta().cluster_id == cluster_id {
        return Ok(());
    }
    Err(Status::data_loss("the state is not the one that the snapshot's message speaks of"))
}

fn stalled() -> Status {
    Status::deadline_exceeded("the snapshot makes no progress")
}

/// What the wire has for the state. [`None`] ends a snapshot that is whole.
type Piece = Option<Bytes>;

async fn feed(
    mut pieces: Streaming<SnapshotPiece>,
    ahead: mpsc::Sender<Piece>,
    settings: &PeerSettings,
) -> Result<(), Status> {
    loop {
        let next = timeout(settings.snapshot_stall, pieces.message()).await;
        let piece = match next.map_err(|_| stalled())?? {
            Some(SnapshotPiece { piece: Some(snapshot_piece::Piece::State(bytes)) }) => Some(bytes),
            Some(_) => return Err(Status::invalid_argument("a piece of the snapshot is none")),
            None => None,
        };
        let last = piece.is_none();
        // A builder that has ended says why itself.
        if ahead.send(piece).await.is_err() || last {
            return Ok(());
        }
    }
}

/// The state, or why there is none: without a reason, the rest did not come.
type Built = Result<Arrived, Option<SnapshotError>>;

/// Builds the state on a thread that yields to those who serve: checking and indexing a
/// large one takes seconds.
fn build_on_a_thread(taken: mpsc::Receiver<Piece>) -> Result<oneshot::Receiver<Built>, Status> {
    let (done, built) = oneshot::channel();
    let thread = std::thread::Builder::new().name("snapshot_import".to_owned());
    let spawned = thread.spawn(move || {
        lower_priority(NICE);
        // Whoever waited for it may have gone.
        let _ = done.send(build(taken));
    });
    spawned.map_err(|e| Status::resource_exhausted(format!("cannot start a thread: {e}")))?;
    Ok(built)
}

fn build(mut taken: mpsc::Receiver<Piece>) -> Built {
    let mut arriving = Arriving::default();
    while let Some(piece) = taken.blocking_recv().ok_or(None)? {
        arriving.take(&piece)?;
    }
    Ok(arriving.finish()?)
}
