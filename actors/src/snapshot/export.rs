//! The sender's side: a view, and the pieces of its stream.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use raft::eraftpb::{ConfState, Message};
use tokio::sync::Semaphore;

use super::stream::{Encoder, Head};
use crate::mvcc::{Answer, Block, MvccMessage, StoreMeta, View};
use crate::shared::{Error, Refused, ThreadInlet};

/// Asks Mvcc for the state as it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    mvcc: ThreadInlet<MvccMessage>,
    /// Questions that may be with Mvcc at a time, whoever asks.
    questions: Arc<Semaphore>,
}

impl Exporter {
    /// An exporter of what the Mvcc behind `mvcc` holds.
    pub fn new(mvcc: ThreadInlet<MvccMessage>, questions: Arc<Semaphore>) -> Self {
        Self { mvcc, questions }
    }

    /// The newest applied state. It costs Mvcc no more than any other question.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] when Mvcc's mailbox is full, [`Error::Stopped`].
    pub async fn export(&self) -> Result<Export, Error> {
        let questions = Arc::clone(&self.questions);
        let permit = questions.acquire_owned().await.map_err(|_| Error::Stopped)?;
        let (reply, answer) = Answer::new(Some(permit));
        match self.mvcc.try_send(MvccMessage::Export { reply }) {
            Ok(()) => answer.await.map_err(|_| Error::Stopped),
            Err(Refused::Full(_)) => Err(Error::TooManyRequests),
            Err(Refused::Closed(_)) => Err(Error::Stopped),
        }
    }
}

/// The state at one applied index. Keeps that state in memory as long as it or
/// its pieces live, while writes go on beside it.
#[derive(Clone, Debug)]
pub struct Export {
    meta: StoreMeta,
    view: Arc<View>,
}

impl Export {
    /// An export of `view`; `meta` is what goes with it.
    pub fn new(meta: StoreMeta, view: Arc<View>) -> Self {
        Self { meta, view }
    }

    /// The raft index of the last entry in the state.
    pub fn index(&self) -> u64 {
        self.view.applied_index()
    }

    /// The raft term of that entry.
    pub fn term(&self) -> u64 {
        self.view.applied_term()
    }

    /// The members at that index, as raft counts them.
    pub fn conf_state(&self) -> ConfState {
        self.view.cluster().conf_state()
    }

    /// Makes a snapshot message speak of this state. raft allows a newer one than it
    /// asked for.
    ///
    /// # Errors
    /// When this state is older.
    pub fn place(&self, message: &mut Message) -> Result<(), String> {
        let metadata = message.mut_snapshot().mut_metadata();
        if self.index() < metadata.index {
            return Err(format!("the state is at {}, raft at {}", self.index(), metadata.index));
        }
        metadata.index = self.index();
        metadata.term = self.term();
        metadata.conf_state = Some(self.conf_state());
        message.mut_snapshot().clear_data();
        Ok(())
    }

    /// About how many bytes the pieces will be in all.
    pub fn size_hint(&self) -> u64 {
        self.view.db_size()
    }

    /// The stream, in pieces of `piece_bytes` bytes; the last one is shorter.
    /// Each costs the copying of that much: take them on a thread that may block.
    pub fn into_pieces(self, piece_bytes: usize) -> impl Iterator<Item = Bytes> + Send {
        let Self { meta, view } = self;
        let head = Head { index: view.applied_index(), term: view.applied_term(), meta };
        let mut encoder = Encoder::default();
        let mut buffer = BytesMut::new();
        encoder.begin(&head, &mut buffer);
        let blocks = view.blocks().cloned().collect();
        let piece_bytes = piece_bytes.max(1);
        Pieces { view, blocks, encoder, buffer, piece_bytes, ended: false }
    }
}

struct Pieces {
    view: Arc<View>,
    blocks: VecDeque<Arc<Block>>,
    encoder: Encoder,
    buffer: BytesMut,
    piece_bytes: usize,
    ended: bool,
}

impl Pieces {
    fn next_frame(&mut self) {
        match self.blocks.pop_front() {
            Some(block) => {
                if let Some(live) = self.view.live(&block) {
                    self.encoder.block(&live, &mut self.buffer);
                }
            }
            None => {
                self.encoder.end(&mut self.buffer);
                self.ended = true;
            }
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.buffer.len() < self.piece_bytes && !self.ended {
            self.next_frame();
        }
        let length = self.buffer.len().min(self.piece_bytes);
        (length > 0).then(|| self.buffer.split_to(length).freeze())
    }
}
