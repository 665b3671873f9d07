//! A desk: where one network thread collects its questions and gets its answers.
//!
//! Waking a task on another thread costs a system call, every time. So what
//! hundreds of calls on one thread ask together crosses once, and what is
//! answered to them crosses once, too: the desk is a task of that thread and
//! hands everything on locally. It also makes linearizable reads cheap: all
//! that wait while one read index is under way share the next one.

use futures::StreamExt;
use tokio::sync::oneshot;

use crate::mvcc::{Courier, Delivery};
use crate::raft_node::{RaftMessage, ReadReply};
use crate::shared::{Error, Inlet, Outlet, Refused, Switchboard};

/// Batches of answers that may wait for the thread.
const ANSWERS: usize = 256;
/// Reads that may wait for a read index.
pub(super) const READS: usize = 16_384;

type ReadWaiter = oneshot::Sender<Result<(), Error>>;

/// The desk's task; see the module's text.
#[derive(Debug)]
pub struct Desk {
    answers: Outlet<Vec<Delivery>>,
    reads: Outlet<ReadWaiter>,
    raft: Inlet<RaftMessage>,
    /// Reads that came while an index was under way.
    waiting: Vec<ReadWaiter>,
    /// Reads whose index is under way.
    asked: Vec<ReadWaiter>,
}

impl Desk {
    pub(super) fn new(
        thread: usize,
        board: &Switchboard,
        raft: Inlet<RaftMessage>,
    ) -> (Self, Courier, Inlet<ReadWaiter>) {
        let (courier, answers) = board.mailbox(format!("desk_{thread}_answers"), ANSWERS);
        let (reading, reads) = board.mailbox(format!("desk_{thread}_reads"), READS);
        let desk = Self { answers, reads, raft, waiting: Vec::new(), asked: Vec::new() };
        (desk, Courier::new(courier), reading)
    }

    /// Serves until the company's door on this thread is gone.
    pub async fn run(mut self) {
        let mut index = None;
        loop {
            if index.is_none() && !self.waiting.is_empty() {
                index = self.ask();
            }
            tokio::select! {
                Some(batches) = self.answers.next() => {
                    batches.into_iter().flatten().for_each(Delivery::deliver);
                }
                Some(reads) = self.reads.next() => self.waiting.extend(reads),
                answer = arrival(&mut index) => {
                    index = None;
                    self.answer_reads(answer);
                }
                else => return,
            }
        }
    }

    /// Asks for one read index on behalf of everybody who waits.
    fn ask(&mut self) -> Option<oneshot::Receiver<Result<(), Error>>> {
        let (reply, answer) = oneshot::channel();
        self.asked.append(&mut self.waiting);
        match self.raft.try_send(RaftMessage::ReadIndex(ReadReply(reply))) {
            Ok(()) => return Some(answer),
            Err(Refused::Full(_)) => self.answer_reads(Err(Error::TooManyRequests)),
            Err(Refused::Closed(_)) => self.answer_reads(Err(Error::Stopped)),
        }
        None
    }

    fn answer_reads(&mut self, answer: Result<(), Error>) {
        for read in self.asked.drain(..) {
            // A client that went away hears nothing.
            let _ = read.send(answer);
        }
    }
}

/// The answer that is under way; never, when there is none.
async fn arrival(index: &mut Option<oneshot::Receiver<Result<(), Error>>>) -> Result<(), Error> {
    match index {
        Some(answer) => answer.await.unwrap_or(Err(Error::Stopped)),
        None => std::future::pending().await,
    }
}
