//! The service that other members call.

use std::pin::Pin;
use std::sync::Arc;

use castd_proto::castdpb::peer_server::{Peer, PeerServer};
use castd_proto::castdpb::{
    Answer, Delivered, Parcel, Question, SnapshotPiece, SnapshotReceived, answer, question,
};
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream;
use prost::Message as _;
use raft::eraftpb::Message;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::intake;
use super::messages::{Notice, PeerMessage};
use super::metrics::{CallerFigures, PeerMetrics};
use super::queue::Lane;
use super::settings::{FRAME_BYTES_MAX, PeerSettings};
use super::wire::{Refusal, admit, answer_of, caller_of, peer_urls_of};
use crate::mvcc::View;
use crate::raft_node::{RaftInbound, SnapshotHold};
use crate::shared::{Error, Inlet, Published};

/// Answers what other members ask.
pub trait Questions: Send + Sync + 'static {
    /// The answer to a question of the member `from`. Who this member is, it is not asked.
    ///
    /// # Errors
    /// Any error; the asker gets the same one.
    fn answer(&self, from: u64, question: Question) -> BoxFuture<'_, Result<Answer, Error>>;
}

/// What [`PeerService`] needs of the others.
#[derive(Clone)]
pub struct ServiceEdges {
    /// Messages for raft go here; a full mailbox slows the senders down.
    pub raft: Inlet<RaftInbound>,
    /// PeerTransport is told of callers.
    pub transport: Inlet<PeerMessage>,
    /// Who is in the cluster, and who was removed.
    pub view: Published<View>,
    /// Who answers questions.
    pub questions: Arc<dyn Questions>,
}

/// The service `castdpb.Peer`. Clones are the same service.
#[derive(Clone)]
pub struct PeerService {
    room: Arc<Room>,
}

struct Room {
    settings: PeerSettings,
    edges: ServiceEdges,
    metrics: PeerMetrics,
    /// Whoever receives a snapshot holds it.
    snapshot: Arc<Semaphore>,
}

impl std::fmt::Debug for PeerService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerService").field("settings", &self.room.settings).finish_non_exhaustive()
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Delivered, Status>> + Send>>;

impl PeerService {
    /// The service of the member that `settings` name.
    pub fn new(settings: PeerSettings, edges: ServiceEdges, metrics: PeerMetrics) -> Self {
        let snapshot = Arc::new(Semaphore::new(1));
        let room = Room { settings, edges, metrics, snapshot };
        Self { room: Arc::new(room) }
    }

    /// The service as a tower service for requests to `/castdpb.Peer/*`.
    pub fn server(&self) -> PeerServer<Self> {
        PeerServer::new(self.clone())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }
}

impl Room {
    /// Who calls, if it may.
    fn admit(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let view = self.edges.view.get();
        let admitted =
            admit(metadata, self.settings.identity, &self.settings.version, view.cluster());
        admitted.map_err(|refusal| {
            let (from, cluster_id) = caller_of(metadata);
            self.turn_away(from, cluster_id, refusal)
        })
    }

    fn turn_away(&self, from: u64, cluster_id: u64, refusal: Refusal) -> Status {
        self.tell(Notice::Turned { from, cluster_id, refusal });
        refusal.status()
    }

    fn tell_of_caller(&self, from: u64, metadata: &MetadataMap) {
        self.tell(Notice::Caller { from, urls: peer_urls_of(metadata) });
    }

    fn tell(&self, notice: Notice) {
        // A busy PeerTransport may miss it: the next call brings another one.
        let _ = self.edges.transport.try_send(PeerMessage::Notice(notice));
    }

    /// Whether a stream that was let in may go on.
    fn still_welcome(&self, from: u64) -> Result<(), Status> {
        if self.edges.view.get().cluster().removed.contains(&from) {
            return Err(self.turn_away(from, self.settings.identity.cluster_id, Refusal::Removed));
        }
        Ok(())
    }

    fn is_for_us(&self, from: u64, message: &Message) -> bool {
        let kind = message.msg_type();
        let lane = matches!(Lane::of(kind), Some(Lane::Urgent | Lane::Bulk));
        lane && message.from == from && message.to == self.settings.identity.member_id
    }
}

/// One stream of parcels.
struct Incoming {
    room: Arc<Room>,
    parcels: Streaming<Parcel>,
    from: u64,
    figures: CallerFigures,
}

impl Incoming {
    /// Hands on what comes, until there is something to answer.
    async fn next(mut self) -> Result<Option<(Delivered, Self)>, Status> {
        loop {
            let parcel = self.parcels.message().await;
            let Some(parcel) = parcel.inspect_err(|_| self.figures.receive_failures.inc())? else {
                return Ok(None);
            };
            let probe = parcel.probe;
            self.hand_on(parcel.messages).await?;
            if probe != 0 {
                return Ok(Some((Delivered { probe }, self)));
            }
        }
    }

    async fn hand_on(&self, mut messages: Vec<Message>) -> Result<(), Status> {
        self.room.still_welcome(self.from)?;
        let bytes: usize = messages.iter().map(Message::encoded_len).sum();
        self.figures.received_bytes.inc_by(bytes as u64);
        let came = messages.len();
        messages.retain(|message| self.room.is_for_us(self.from, message));
        if messages.len() < came {
            self.figures.receive_failures.inc_by((came - messages.len()) as u64);
        }
        if messages.is_empty() {
            return Ok(());
        }
        let sent = self.room.edges.raft.send(RaftInbound::Step(messages)).await;
        sent.map_err(|_| stopped())
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type DeliverStream = Answers;

    async fn deliver(
        &self,
        request: Request<Streaming<Parcel>>,
    ) -> Result<Response<Answers>, Status> {
        let from = self.room.admit(request.metadata())?;
        self.room.tell_of_caller(from, request.metadata());
        let incoming = Incoming {
            room: Arc::clone(&self.room),
            parcels: request.into_inner(),
            from,
            figures: self.room.metrics.caller(from),
        };
        Ok(Response::new(Box::pin(stream::try_unfold(incoming, Incoming::next))))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<SnapshotReceived>, Status> {
        let from = self.room.admit(request.metadata())?;
        self.take_snapshot(from, request.into_inner()).await?;
        Ok(Response::new(SnapshotReceived {}))
    }

    async fn ask(&self, request: Request<Question>) -> Result<Response<Answer>, Status> {
        let from = self.room.admit(request.metadata())?;
        self.room.tell_of_caller(from, request.metadata());
        let question = request.into_inner();
        if let Some(question::Question::Info(_)) = question.question {
            return Ok(Response::new(self.info()));
        }
        let outcome = self.room.edges.questions.answer(from, question).await;
        Ok(Response::new(answer_of(outcome)))
    }
}

fn stopped() -> Status {
    Status::unavailable(Error::Stopped.to_string())
}

impl PeerService {
    /// Receives a snapshot and waits until it is in force, or raft has found that it is of
    /// no use. One at a time, since each is a whole state in memory: another one waits.
    async fn take_snapshot(
        &self,
        from: u64,
        pieces: Streaming<SnapshotPiece>,
    ) -> Result<(), Status> {
        let _alone = self.room.snapshot.acquire().await.map_err(|_| stopped())?;
        let guard = self.room.metrics.caller(from).snapshots.begin();
        let (message, state) = intake::receive(pieces, from, &self.room.settings).await?;
        let (hold, released) = SnapshotHold::new();
        let inbound = RaftInbound::Snapshot { message, state, hold };
        self.room.edges.raft.send(inbound).await.map_err(|_| stopped())?;
        guard.arrived();
        // It ends when the hold is let go of; there is nothing else to hear.
        let _ = released.await;
        Ok(())
    }

    fn info(&self) -> Answer {
        let settings = &self.room.settings;
        let info = answer::Info {
            version: settings.version.clone(),
            cluster_version: settings.cluster_version.clone(),
            applied_index: self.room.edges.view.get().applied_index(),
        };
        Answer { answer: Some(answer::Answer::Info(info)) }
    }
}
