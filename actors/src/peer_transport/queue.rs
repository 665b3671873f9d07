//! The lanes of a link, and what waits in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::mpsc;

use crate::shared::Refused;

/// A parcel is closed when it has this many bytes.
pub(super) const PARCEL_BYTES: usize = 1 << 20;
/// The most messages in a parcel.
const PARCEL_MESSAGES: usize = 1024;

/// Which way a message takes to its member, so that the large never delays the urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, elections, read indexes, and their answers: small, and late is lost.
    Urgent,
    /// Entries and their acknowledgements.
    Bulk,
    /// Snapshots.
    Snapshot,
}

impl Lane {
    /// The lane of a kind of message; `None` for what raft tells itself only.
    pub fn of(kind: MessageType) -> Option<Self> {
        match kind {
            MessageType::MsgAppend | MessageType::MsgAppendResponse | MessageType::MsgPropose => {
                Some(Self::Bulk)
            }
            MessageType::MsgSnapshot => Some(Self::Snapshot),
            MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => Some(Self::Urgent),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgTransferLeader
            | MessageType::MsgCheckQuorum => None,
        }
    }
}

/// A queue of at most `messages` and about `bytes`. A message that is larger than all
/// the room is taken when nothing else waits.
pub(super) fn lane_queue(messages: usize, bytes: usize) -> (LaneSender, LaneReceiver) {
    let (sender, receiver) = mpsc::channel(messages);
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = LaneSender { sender, waiting: Arc::clone(&waiting), room: bytes };
    (sender, LaneReceiver { receiver, waiting })
}

/// The end of a queue that messages are put into. There is one of it only, so nobody
/// else takes the room it has seen.
#[derive(Debug)]
pub(super) struct LaneSender {
    sender: mpsc::Sender<(Message, usize)>,
    waiting: Arc<AtomicUsize>,
    room: usize,
}

impl LaneSender {
    /// Puts a message in.
    pub(super) fn offer(&self, message: Message) -> Result<(), Refused<()>> {
        let bytes = message.encoded_len();
        let waiting = self.waiting.load(Relaxed);
        if waiting > 0 && waiting + bytes > self.room {
            return Err(Refused::Full(()));
        }
        self.waiting.fetch_add(bytes, Relaxed);
        self.sender.try_send((message, bytes)).map_err(|refused| {
            self.waiting.fetch_sub(bytes, Relaxed);
            match refused {
                mpsc::error::TrySendError::Full(_) => Refused::Full(()),
                mpsc::error::TrySendError::Closed(_) => Refused::Closed(()),
            }
        })
    }

    /// Whether nobody takes messages out any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The end of a queue that messages are taken from.
#[derive(Debug)]
pub(super) struct LaneReceiver {
    receiver: mpsc::Receiver<(Message, usize)>,
    waiting: Arc<AtomicUsize>,
}

/// Messages that waited together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    /// Their size on the wire.
    pub(super) bytes: usize,
}

impl Batch {
    fn push(&mut self, (message, bytes): (Message, usize)) {
        self.bytes += bytes;
        self.messages.push(message);
    }

    fn has_room(&self) -> bool {
        self.bytes < PARCEL_BYTES && self.messages.len() < PARCEL_MESSAGES
    }
}

impl LaneReceiver {
    /// Waits for a message and takes what waits with it, as much as fits into a parcel;
    /// `None` when no more can come. Nothing is lost when the wait is given up.
    pub(super) async fn take(&mut self) -> Option<Batch> {
        let first = self.receiver.recv().await?;
        let mut batch = Batch::default();
        batch.push(first);
        while batch.has_room() {
            let Ok(next) = self.receiver.try_recv() else { break };
            batch.push(next);
        }
        self.waiting.fetch_sub(batch.bytes, Relaxed);
        Some(batch)
    }

    /// Whether no more can come.
    pub(super) fn is_closed(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Drops what waits; how many that were.
    pub(super) fn clear(&mut self) -> usize {
        let mut dropped = 0;
        while let Ok((_, bytes)) = self.receiver.try_recv() {
            self.waiting.fetch_sub(bytes, Relaxed);
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn append(index: u64, bytes: usize) -> Message {
        let entry = Entry { data: vec![7; bytes].into(), ..Entry::default() };
        Message { index, entries: vec![entry], ..Message::default() }
    }

    #[test]
    fn what_waits_comes_in_order_and_in_parcels_of_bounded_size() {
        let (sender, mut receiver) = lane_queue(16, 8 << 20);
        for index in 0..4 {
            sender.offer(append(index, 600 << 10)).unwrap();
        }
        let batch = futures::executor::block_on(receiver.take()).unwrap();
        assert_eq!(batch.messages.iter().map(|m| m.index).collect::<Vec<_>>(), [0, 1]);
        let batch = futures::executor::block_on(receiver.take()).unwrap();
        assert_eq!(batch.messages.iter().map(|m| m.index).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(batch.bytes, batch.messages.iter().map(Message::encoded_len).sum::<usize>());
        assert_eq!(receiver.waiting.load(Relaxed), 0);
    }

    #[test]
    fn a_queue_is_full_by_messages_and_by_bytes() {
        let (sender, mut receiver) = lane_queue(2, 1000);
        sender.offer(append(0, 5000)).expect("larger than the room, but alone");
        assert_eq!(sender.offer(append(1, 1)), Err(Refused::Full(())));
        assert_eq!(receiver.clear(), 1);
        sender.offer(append(2, 10)).unwrap();
        sender.offer(append(3, 10)).unwrap();
        assert_eq!(sender.offer(append(4, 10)), Err(Refused::Full(())));
        assert_eq!(receiver.clear(), 2);
        assert_eq!(receiver.waiting.load(Relaxed), 0);
        drop(receiver);
        assert_eq!(sender.offer(append(5, 10)), Err(Refused::Closed(())));
    }

    #[test]
    fn raft_s_notes_to_itself_have_no_lane() {
        assert_eq!(Lane::of(MessageType::MsgHup), None);
        assert_eq!(Lane::of(MessageType::MsgAppend), Some(Lane::Bulk));
        assert_eq!(Lane::of(MessageType::MsgHeartbeat), Some(Lane::Urgent));
        assert_eq!(Lane::of(MessageType::MsgSnapshot), Some(Lane::Snapshot));
    }
}
