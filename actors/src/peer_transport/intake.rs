//! A snapshot that comes from another member: off the wire, onto the disk.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use castd_proto::castdpb::{SnapshotPiece, snapshot_piece};
use raft::eraftpb::{Message, MessageType};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::settings::PeerSettings;
use crate::raft_node::RaftInbound;
use crate::snapshot::{SnapshotError, Spool, SpoolWriter};

/// Pieces between the wire and the disk.
const PIECES_AHEAD: usize = 4;

/// Receives a whole snapshot of the member `from`.
pub(super) async fn receive(
    mut pieces: Streaming<SnapshotPiece>,
    from: u64,
    settings: &PeerSettings,
    dir: &Path,
) -> Result<RaftInbound, Status> {
    let next = timeout(settings.snapshot_stall, pieces.message()).await;
    let message = match next.map_err(|_| stalled())??.and_then(|first| first.piece) {
        Some(snapshot_piece::Piece::Message(message)) => message,
        _ => return Err(Status::invalid_argument("the snapshot begins without its message")),
    };
    check(&message, from, settings.identity.member_id)?;
    let index = message.get_snapshot().get_metadata().index;
    let peer = format!("{from:x}");
    tracing::info!({ "remote-peer-id" = peer, index }, "receiving a snapshot");

    let (ahead, writes) = mpsc::channel(PIECES_AHEAD);
    let dir = PathBuf::from(dir);
    let writer = tokio::task::spawn_blocking(move || write(&dir, writes));
    let fed = feed(pieces, ahead, settings).await;
    // The writer says why it takes no more; what the sender did wrong comes after that.
    let written = writer.await.map_err(|e| Status::internal(e.to_string()))?;
    let outcome = match (fed, written) {
        (Err(status), Err(None) | Ok(_)) => Err(status),
        (_, Err(Some(error))) => Err(Status::data_loss(error.to_string())),
        (Ok(()), Err(None)) => Err(Status::internal("the snapshot's writer ended early")),
        (Ok(()), Ok(spool)) => Ok(RaftInbound::Snapshot { message, spool }),
    };
    match &outcome {
        Ok(_) => tracing::info!({ "remote-peer-id" = peer, index }, "received a snapshot"),
        Err(status) => tracing::warn!(
            { "remote-peer-id" = peer, index, error = status.message() },
            "failed to receive a snapshot"
        ),
    }
    outcome
}

fn check(message: &Message, from: u64, us: u64) -> Result<(), Status> {
    let kind = message.msg_type() == MessageType::MsgSnapshot;
    if kind && message.from == from && message.to == us {
        return Ok(());
    }
    Err(Status::invalid_argument("the snapshot's message is not one for this member"))
}

fn stalled() -> Status {
    Status::deadline_exceeded("the snapshot makes no progress")
}

/// What the wire has for the disk. [`None`] ends a snapshot that is whole.
type Write = Option<Bytes>;

async fn feed(
    mut pieces: Streaming<SnapshotPiece>,
    ahead: mpsc::Sender<Write>,
    settings: &PeerSettings,
) -> Result<(), Status> {
    loop {
        let next = timeout(settings.snapshot_stall, pieces.message()).await;
        let write = match next.map_err(|_| stalled())?? {
            Some(SnapshotPiece { piece: Some(snapshot_piece::Piece::State(bytes)) }) => Some(bytes),
            Some(_) => return Err(Status::invalid_argument("a piece of the snapshot is none")),
            None => None,
        };
        let last = write.is_none();
        // A writer that has ended says why itself.
        if ahead.send(write).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Writes what comes; an error without a reason means that the rest did not come.
fn write(dir: &Path, mut writes: mpsc::Receiver<Write>) -> Result<Spool, Option<SnapshotError>> {
    let failed = |source: io::Error| SnapshotError::Io { path: dir.to_owned(), source };
    let mut spool = SpoolWriter::create(dir).map_err(|error| Some(failed(error)))?;
    loop {
        match writes.blocking_recv() {
            Some(Some(piece)) => spool.write(&piece).map_err(|error| Some(failed(error)))?,
            Some(None) => return spool.finish().map_err(Some),
            None => return Err(None),
        }
    }
}
