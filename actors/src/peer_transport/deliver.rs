//! The urgent and the bulk lane: raft messages on a stream, for as long as it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use castd_proto::castdpb::peer_client::PeerClient;
use castd_proto::castdpb::{Delivered, Parcel};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::dial::{LinkError, dial};
use super::link::{Asked, LinkBasics};
use super::messages::{Notice, PeerMessage};
use super::pacing::Backoff;
use super::queue::{Batch, Lane, LaneReceiver};
use super::wire::{Caller, answers, outcome_of};
use crate::shared::{Error, Gate};

/// How often a failure that lasts is logged.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Questions that may be on their way at a time.
const CALLS_MAX: usize = 256;

/// One lane's task.
pub(super) struct DeliverLane {
    basics: LinkBasics,
    lane: Lane,
    queue: LaneReceiver,
    /// Questions go over the urgent lane's connection.
    asks: Option<mpsc::Receiver<Asked>>,
    backoff: Backoff,
    /// The URL of the next attempt.
    turn: usize,
    failure_log: Gate,
}

/// A stream that the other side has agreed to.
struct Standing {
    client: PeerClient<Channel>,
    parcels: mpsc::Sender<Parcel>,
    answers: Streaming<Delivered>,
}

impl DeliverLane {
    pub(super) fn urgent(
        basics: LinkBasics,
        queue: LaneReceiver,
        asks: mpsc::Receiver<Asked>,
    ) -> Self {
        Self::new(basics, Lane::Urgent, queue, Some(asks))
    }

    pub(super) fn bulk(basics: LinkBasics, queue: LaneReceiver) -> Self {
        Self::new(basics, Lane::Bulk, queue, None)
    }

    fn new(
        basics: LinkBasics,
        lane: Lane,
        queue: LaneReceiver,
        asks: Option<mpsc::Receiver<Asked>>,
    ) -> Self {
        let backoff = Backoff::new(basics.settings.backoff, rand::random());
        let failure_log = Gate::new(FAILURE_LOG_INTERVAL);
        Self { basics, lane, queue, asks, backoff, turn: 0, failure_log }
    }

    /// Connects and sends, until the link is dropped.
    pub(super) async fn run(mut self) {
        while !self.queue.is_closed() {
            match self.connect().await {
                Ok(standing) => {
                    self.backoff.reset();
                    self.notice(Notice::Up { peer: self.basics.peer, link: self.basics.serial })
                        .await;
                    let error = self.pump(standing).await;
                    self.broke(&error).await;
                }
                Err(error) => self.failed(&error).await,
            }
            self.rest().await;
        }
    }

    /// Opens a stream to the next of the member's URLs.
    async fn connect(&mut self) -> Result<Standing, LinkError> {
        let urls = self.basics.addresses.get();
        let url = urls.get(self.turn % urls.len().max(1)).ok_or(LinkError::NoUrl)?.clone();
        self.turn += 1;
        let settings = &self.basics.settings;
        let open = async {
            let mut client = dial(&url, settings, settings.silence).await?;
            let (parcels, body) = mpsc::channel(1);
            let request = self.basics.caller.request(ReceiverStream::new(body));
            let answers = client.deliver(request).await?.into_inner();
            Ok(Standing { client, parcels, answers })
        };
        let outcome = timeout(settings.connect_timeout, open).await;
        outcome.unwrap_or_else(|_| Err(LinkError::Silent { url: url.clone() }))
    }

    /// Sends what waits until the stream breaks; why it did.
    async fn pump(&mut self, standing: Standing) -> LinkError {
        let Standing { client, parcels, mut answers } = standing;
        let start = Instant::now();
        let mut calls: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut probes = interval(self.basics.settings.probe_interval);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(delivered)) => self.measure(start, &delivered),
                    Ok(None) => return LinkError::Broken("the other side ended it".to_owned()),
                    Err(status) => return status.into(),
                },
                end = send_next(&parcels, &mut self.queue, &self.basics) => {
                    // Why the stream takes no more, its other half tells.
                    if end.is_err() { return ending(&mut answers).await }
                }
                asked = next_ask(&mut self.asks), if calls.len() < CALLS_MAX => {
                    let basics = &self.basics;
                    let limit = basics.settings.ask_timeout;
                    let call = ask(client.clone(), basics.caller.clone(), asked, limit);
                    calls.push(Box::pin(call));
                }
                Some(()) = calls.next(), if !calls.is_empty() => {}
                _ = probes.tick(), if self.lane == Lane::Urgent => {
                    let probe = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let parcel = Parcel { messages: Vec::new(), probe: probe.max(1) };
                    // A stream too busy to be measured now is measured later.
                    let _ = parcels.try_send(parcel);
                }
            }
        }
    }

    fn measure(&self, start: Instant, delivered: &Delivered) {
        let sent = Duration::from_nanos(delivered.probe);
        let took = start.elapsed().saturating_sub(sent);
        self.basics.figures.round_trip.observe(took.as_secs_f64());
    }

    /// A stream that stood is no more: what was on it may be lost.
    async fn broke(&mut self, error: &LinkError) {
        self.basics.losses.tell();
        self.basics.figures.send_failures.inc();
        let notice = Notice::Down {
            peer: self.basics.peer,
            link: self.basics.serial,
            error: error.to_string(),
        };
        self.notice(notice).await;
        self.refused(error).await;
    }

    /// An attempt failed: what waits has waited too long.
    async fn failed(&mut self, error: &LinkError) {
        self.drop_waiting();
        self.refused(error).await;
        if self.lane == Lane::Urgent && self.failure_log.pass(Instant::now()) {
            let peer = format!("{:x}", self.basics.peer);
            tracing::warn!({ "remote-peer-id" = peer, %error }, "cannot reach a peer");
        }
    }

    async fn refused(&self, error: &LinkError) {
        if let LinkError::Refused(refusal) = *error {
            self.notice(Notice::Refused { peer: self.basics.peer, refusal }).await;
        }
    }

    /// The pause before the next attempt. What comes meanwhile is lost.
    async fn rest(&mut self) {
        let wake = Arc::clone(&self.basics.wake);
        let pause = sleep(self.backoff.pause());
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                () = wake.notified() => return,
                batch = self.queue.take() => match batch {
                    Some(batch) => self.lost(batch.messages.len()),
                    None => return,
                },
                asked = next_ask(&mut self.asks) => asked.refuse(),
            }
        }
    }

    fn drop_waiting(&mut self) {
        let dropped = self.queue.clear();
        if dropped > 0 {
            self.lost(dropped);
        }
        while let Some(asked) = self.asks.as_mut().and_then(|asks| asks.try_recv().ok()) {
            asked.refuse();
        }
    }

    fn lost(&self, messages: usize) {
        let figures = &self.basics.figures;
        let dropped = match self.lane {
            Lane::Urgent => &figures.dropped_urgent,
            Lane::Bulk | Lane::Snapshot => &figures.dropped_bulk,
        };
        dropped.inc_by(messages as u64);
        figures.send_failures.inc_by(messages as u64);
        self.basics.losses.tell();
    }

    /// Tells PeerTransport; whether a peer is active is for the urgent lane to say.
    async fn notice(&self, notice: Notice) {
        let spoken = self.lane == Lane::Urgent || matches!(notice, Notice::Refused { .. });
        if spoken {
            // When PeerTransport has ended, so will this lane.
            let _ = self.basics.transport.send(PeerMessage::Notice(notice)).await;
        }
    }
}

/// The stream takes no more.
struct Closed;

/// Sends what waits as one parcel, when the stream has room for one. Nothing is lost when
/// the wait is given up.
async fn send_next(
    parcels: &mpsc::Sender<Parcel>,
    queue: &mut LaneReceiver,
    basics: &LinkBasics,
) -> Result<(), Closed> {
    let room = parcels.reserve().await.map_err(|_| Closed)?;
    let Batch { messages, bytes } = queue.take().await.ok_or(Closed)?;
    room.send(Parcel { messages, probe: 0 });
    basics.figures.sent_bytes.inc_by(bytes as u64);
    Ok(())
}

/// Why the other side ended the stream.
async fn ending(answers: &mut Streaming<Delivered>) -> LinkError {
    let patience = Duration::from_millis(100);
    match timeout(patience, answers.message()).await {
        Ok(Err(status)) => status.into(),
        _ => LinkError::Broken("the stream is closed".to_owned()),
    }
}

/// The next question; never comes on a lane that has none, nor when the link is about to
/// end and nobody can ask any more.
async fn next_ask(asks: &mut Option<mpsc::Receiver<Asked>>) -> Asked {
    if let Some(asks) = asks
        && let Some(asked) = asks.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

async fn ask(mut client: PeerClient<Channel>, caller: Caller, asked: Asked, limit: Duration) {
    let request = caller.request(asked.question.clone());
    let outcome = match timeout(limit, client.ask(request)).await {
        Ok(Ok(answer)) if answers(&asked.question, answer.get_ref()) => {
            outcome_of(answer.into_inner())
        }
        // What became of the question is unknown.
        _ => Err(Error::Timeout),
    };
    asked.answer(outcome);
}
