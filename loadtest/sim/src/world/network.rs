//! The network between members: lanes, and what is lost on them.
//! What a lane is and what goes on which is PeerTransport's; the wire is bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use castd_actors::Error;
use castd_actors::peer_transport::{Lane, PeerMessage, Questions};
use castd_actors::raft_node::{RaftInbound, SnapshotHold};
use castd_actors::shared::Refused;
use castd_actors::snapshot::{Arriving, Export};
use castd_proto::castdpb::{Answer, Question};
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use rand::Rng;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::World;
use super::ambush::{self, Ambush};
use super::events::Event;
use super::links::Link;
use crate::door::Done;
use crate::member::HEARTBEAT;
use crate::story::Story;
use crate::time::{MS, Nanos, SECOND};

/// Parcels of a lane that may be on their way.
const LANE_PARCELS: usize = 64;
/// How long the other side may give no sign of life before a link is given up.
const SILENCE: Nanos = 2 * SECOND;
/// How long an answer to a question may take.
const ASK_TIMEOUT: Nanos = 7 * SECOND;
/// Bytes of a snapshot's piece.
const PIECE_BYTES: usize = 128 << 10;
/// How long a byte of a snapshot takes.
const BYTE_TIME: Nanos = 20;

/// How often is looked whether a snapshot that has come is in force.
const HOLD_LOOK: Nanos = 5 * MS;

/// A snapshot whose sender waits until it is in force.
pub(crate) struct Held {
    from: u64,
    from_life: u16,
    to: u64,
    to_life: u16,
    released: oneshot::Receiver<()>,
}

/// A question of one member to another.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) from: u64,
    pub(super) to: u64,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// Ways, from and to, on which nothing arrives; each may be cut more than once.
#[derive(Debug, Default)]
pub(crate) struct Cuts(BTreeMap<(u64, u64), usize>);

impl Cuts {
    /// Cuts these.
    pub(crate) fn add(&mut self, ways: &[(u64, u64)]) {
        ways.iter().for_each(|way| *self.0.entry(*way).or_default() += 1);
    }

    /// Takes one cut of each back.
    pub(crate) fn take(&mut self, ways: &[(u64, u64)]) {
        for way in ways {
            if let Some(cuts) = self.0.get_mut(way) {
                *cuts -= 1;
            }
        }
        self.0.retain(|_, cuts| *cuts > 0);
    }

    /// Mends everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether nothing arrives on a way.
    pub(crate) fn contains(&self, way: &(u64, u64)) -> bool {
        self.0.contains_key(way)
    }

    /// All of them.
    pub(crate) fn ways(&self) -> Vec<(u64, u64)> {
        self.0.keys().copied().collect()
    }
}

/// All links, and where nothing gets through.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(super) links: BTreeMap<(u64, u64), Link>,
    /// Ways on which nothing arrives.
    pub(crate) cut: Cuts,
    /// Members that clients do not reach.
    pub(crate) cut_off: BTreeSet<u64>,
    /// When the last parcel of a lane arrives.
    last: BTreeMap<(u64, u64, Lane), Nanos>,
    under_way: BTreeMap<(u64, u64, Lane), usize>,
    pub(super) asks: BTreeMap<u64, Ask>,
    asked: u64,
    /// What has arrived at members that stand still.
    held: BTreeMap<u64, Vec<Parcel>>,
    /// See [`Ambush`].
    pub(super) ambush: Ambush,
}

/// Something on its way from one process to another.
#[derive(Debug)]
pub(crate) struct Parcel {
    from: u64,
    from_life: u16,
    to: u64,
    to_life: u16,
    lane: Lane,
    load: Load,
}

#[derive(Clone, Debug)]
enum Load {
    /// Encoded raft messages, and whether each may come twice.
    Messages(Arc<[(bool, Bytes)]>),
    /// An encoded snapshot message and the state.
    Snapshot(Bytes, Arc<[Bytes]>),
    Question(u64, Question),
    Answer(u64, Result<Answer, Error>),
}

impl Load {
    /// Tells what of it does not arrive.
    fn tell_lost(&self, now: Nanos, story: &mut Story) {
        let Self::Messages(messages) = self else { return };
        for (_, message) in messages.iter() {
            story.lost(now, || decode(message));
        }
    }

    /// What of it may come a second time.
    fn again(&self) -> Self {
        match self {
            Self::Messages(messages) => {
                Self::Messages(messages.iter().filter(|(twice, _)| *twice).cloned().collect())
            }
            other => other.clone(),
        }
    }
}

impl World {
    /// What PeerTransport has been sent.
    pub(super) fn take_peer_messages(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(process) = member.process.as_mut() else { return };
        let life = process.life;
        let mut outgoing = BTreeMap::new();
        let (mut snapshots, mut asks) = (Vec::new(), Vec::new());
        while let Some(batch) = process.peers.messages.take_waiting() {
            for message in batch {
                match message {
                    PeerMessage::Send(messages) => sort(messages, &mut outgoing, &mut snapshots),
                    PeerMessage::Members(_) | PeerMessage::Notice(_) => {}
                    PeerMessage::Ask { to, question, reply } => {
                        asks.push((Ask { from: id, to, reply }, question));
                    }
                }
            }
        }
        self.meet(id, life);
        for ((to, lane), messages) in outgoing {
            self.send(id, life, to, lane, &Load::Messages(messages.into()));
        }
        for message in snapshots {
            self.export(id, life, message);
        }
        for (ask, question) in asks {
            self.ask(life, ask, question);
        }
    }

    fn ask(&mut self, life: u16, ask: Ask, question: Question) {
        let (id, to) = (ask.from, ask.to);
        if self.stands(id, life, to).is_none() {
            let _ = ask.reply.send(Err(Error::NoLeader));
            return self.wake(id);
        }
        self.network.asked += 1;
        let asked = self.network.asked;
        self.network.asks.insert(asked, ask);
        self.send(id, life, to, Lane::Urgent, &Load::Question(asked, question));
        self.after(ASK_TIMEOUT, Event::Unanswered { member: id, question: asked });
    }

    /// Sends something, or loses it.
    fn send(&mut self, from: u64, from_life: u16, to: u64, lane: Lane, load: &Load) {
        let Some(to_life) = self.stands(from, from_life, to) else {
            return self.lost(from, from_life, to);
        };
        let way = (from, to, lane);
        let under_way = self.network.under_way.entry(way).or_default();
        if *under_way >= LANE_PARCELS {
            self.fell_through(from, from_life, to, MS, load);
            return self.lost(from, from_life, to);
        }
        self.watchman.count("parcel sent");
        let weather = &self.weather;
        let chance = &mut self.chance;
        if chance.random_bool(weather.lost) {
            self.watchman.count("message lost");
            return self.fell_through(from, from_life, to, SILENCE, load);
        }
        let copies = 1 + usize::from(chance.random_bool(weather.doubled));
        let delays: Vec<Nanos> = (0..copies).map(|_| weather.delay(chance)).collect();
        let reorders = weather.reordered > 0.0 && chance.random_bool(weather.reordered);
        let size = match load {
            Load::Snapshot(_, pieces) => pieces.iter().map(Bytes::len).sum::<usize>() as Nanos,
            _ => 0,
        };
        if copies > 1 {
            self.watchman.count("message doubled");
        }
        for (copy, delay) in delays.into_iter().enumerate() {
            let load = if copy == 0 { load.clone() } else { load.again() };
            let mut at = self.now + delay + size * BYTE_TIME;
            let last = self.network.last.entry(way).or_default();
            if reorders {
                self.watchman.count("message reordered");
            } else {
                at = at.max(*last + 1);
                *last = at;
            }
            *self.network.under_way.entry(way).or_default() += 1;
            let parcel = Parcel { from, from_life, to, to_life, lane, load };
            self.after(at - self.now, Event::Arrive(Box::new(parcel)));
        }
    }

    /// raft hears that messages to a member are lost, once in a tick.
    fn lost(&mut self, from: u64, life: u16, to: u64) {
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&(from, to)) else { return };
        if now - link.told < HEARTBEAT.as_nanos() as Nanos && link.told > 0 {
            return;
        }
        link.told = now;
        if let Some(process) = self.process_mut(from, life) {
            let _ = process.peers.edges.raft.try_send(RaftInbound::Unreachable(to));
        }
        self.wake(from);
    }

    pub(super) fn arrive(&mut self, parcel: Parcel) {
        let Parcel { from, from_life, to, to_life, lane, .. } = parcel;
        let under_way = self.network.under_way.entry((from, to, lane)).or_default();
        *under_way = under_way.saturating_sub(1);
        if self.network.cut.contains(&(from, to)) {
            self.watchman.count("message cut off");
            parcel.load.tell_lost(self.now, &mut self.story);
            return self.swallowed(from, from_life, to, SILENCE, &parcel.load);
        }
        let Some(member) = self.members.get(&to) else { return };
        if member.process.as_ref().is_none_or(|process| process.life != to_life) {
            return self.swallowed(from, from_life, to, MS, &parcel.load);
        }
        if member.paused {
            // It waits in the kernel's buffers, and the lane is that much fuller.
            *self.network.under_way.entry((from, to, lane)).or_default() += 1;
            return self.network.held.entry(to).or_default().push(parcel);
        }
        if self.is_removed_for(to, from) {
            return self.tell_removed(from, from_life);
        }
        self.take_in(parcel);
        self.wake(to);
    }

    /// Whoever sends a snapshot hears of it when it does not arrive.
    fn fell_through(&mut self, from: u64, life: u16, to: u64, after: Nanos, load: &Load) {
        if let Load::Snapshot(..) = load {
            self.after(after, Event::SnapshotSent { from, life, to, arrived: false });
        }
    }

    /// A member goes on, or has ended: what came meanwhile is before it.
    pub(super) fn release(&mut self, id: u64) {
        for parcel in self.network.held.remove(&id).unwrap_or_default() {
            self.arrive(parcel);
        }
    }

    /// Nobody was there for it: the link will be noticed to be broken.
    fn swallowed(&mut self, from: u64, life: u16, to: u64, after: Nanos, load: &Load) {
        self.fell_through(from, life, to, after, load);
        let link = self.network.links.get_mut(&(from, to));
        let Some(link) = link.filter(|link| link.life == life && !link.breaking) else { return };
        link.breaking = true;
        self.after(after, Event::Break { from, life, to });
    }

    fn take_in(&mut self, parcel: Parcel) {
        let Parcel { from, to, to_life, lane, .. } = parcel;
        match &parcel.load {
            Load::Messages(encoded) => {
                let messages: Vec<Message> =
                    encoded.iter().map(|(_, bytes)| decode(bytes)).collect();
                for message in &messages {
                    self.watchman.message(message);
                    self.story.message(self.now, message);
                }
                let gists: Vec<_> = messages.iter().filter_map(ambush::gist).collect();
                let Some(process) = self.process_mut(to, to_life) else { return };
                let inbound = RaftInbound::Step(messages);
                if let Err(Refused::Full(_)) = process.peers.edges.raft.try_send(inbound) {
                    self.watchman.count("mailbox full");
                    *self.network.under_way.entry((from, to, lane)).or_default() += 1;
                    self.after(MS, Event::Arrive(Box::new(parcel)));
                }
                self.spring(&gists);
            }
            Load::Snapshot(message, pieces) => {
                let (message, pieces) = (decode(message), Arc::clone(pieces));
                self.take_in_snapshot(&parcel, message, &pieces);
            }
            Load::Question(question, asked) => {
                let (question, asked) = (*question, asked.clone());
                let Some(process) = self.process_mut(to, to_life) else { return };
                let company = process.company.clone();
                process.tasks.push(async move {
                    let answer = Questions::answer(&company, from, asked).await;
                    Done::Answered { to: from, question, answer }
                });
            }
            Load::Answer(question, answer) => {
                if let Some(Ask { reply, .. }) = self.network.asks.remove(question) {
                    let _ = reply.send(answer.clone());
                }
            }
        }
    }

    fn take_in_snapshot(&mut self, parcel: &Parcel, message: Message, pieces: &[Bytes]) {
        let mut arriving = Arriving::default();
        for piece in pieces {
            arriving.take(piece).expect("a state that was exported can be read");
        }
        let state = arriving.finish().expect("a state that was exported is whole");
        let index = state.index();
        let Parcel { from, from_life, to, to_life, .. } = *parcel;
        self.story.tell(self.now, || format!("m{to} received a snapshot at {index} from m{from}"));
        self.watchman.count("snapshot received");
        let Some(process) = self.process_mut(to, to_life) else { return };
        let (hold, released) = SnapshotHold::new();
        let inbound = RaftInbound::Snapshot { message, state, hold };
        // A full mailbox drops it, and so lets go of the hold.
        let _ = process.peers.edges.raft.try_send(inbound);
        let held = Held { from, from_life, to, to_life, released };
        self.after(MS, Event::SnapshotHeld(Box::new(held)));
    }

    /// Looks whether a snapshot is in force, or its receiver gone.
    pub(super) fn snapshot_held(&mut self, mut held: Box<Held>) {
        let waits = held.released.try_recv() == Err(TryRecvError::Empty);
        let Held { from, from_life: life, to, to_life, .. } = *held;
        let lives = self.process(to).is_some_and(|process| process.life == to_life);
        if lives && waits {
            return self.after(HOLD_LOOK, Event::SnapshotHeld(held));
        }
        // When the answer cannot come, all of it has gone: raft asks what became of it.
        let cut = self.network.cut.contains(&(to, from));
        let after = if cut { SILENCE } else { MS };
        self.after(after, Event::SnapshotSent { from, life, to, arrived: true });
    }

    pub(super) fn snapshot_sent(&mut self, from: u64, life: u16, to: u64, arrived: bool) {
        if let Some(process) = self.process_mut(from, life) {
            let report = RaftInbound::SnapshotSent { to, arrived };
            if let Err(Refused::Full(_)) = process.peers.edges.raft.try_send(report) {
                self.after(MS, Event::SnapshotSent { from, life, to, arrived });
            }
        }
        self.wake(from);
    }

    /// Nobody has answered a member's question.
    pub(super) fn unanswered(&mut self, id: u64, question: u64) {
        if let Some(Ask { reply, .. }) = self.network.asks.remove(&question) {
            let _ = reply.send(Err(Error::Timeout));
        }
        self.wake(id);
    }

    /// Asks for the state that goes with a snapshot message.
    fn export(&mut self, id: u64, life: u16, message: Message) {
        let Some(process) = self.process_mut(id, life) else { return };
        let source = Arc::clone(&process.peers.edges.snapshots);
        process.tasks.push(async move {
            let export = source.export().await;
            Done::Export(Box::new((message, export)))
        });
    }

    pub(super) fn send_snapshot(
        &mut self,
        id: u64,
        mut message: Message,
        export: Result<Export, Error>,
    ) {
        let Some(life) = self.process(id).map(|process| process.life) else { return };
        let to = message.to;
        let placed = export.map_err(|error| error.to_string()).and_then(|export| {
            export.place(&mut message)?;
            Ok(export)
        });
        match placed {
            Ok(export) if self.stands(id, life, to).is_some() => {
                let pieces: Vec<Bytes> = export.into_pieces(PIECE_BYTES).collect();
                let message = message.encode_to_vec().into();
                self.send(id, life, to, Lane::Snapshot, &Load::Snapshot(message, pieces.into()));
            }
            _ => self.after(MS, Event::SnapshotSent { from: id, life, to, arrived: false }),
        }
    }

    pub(super) fn send_answer(
        &mut self,
        id: u64,
        life: u16,
        to: u64,
        question: u64,
        answer: Result<Answer, Error>,
    ) {
        self.send(id, life, to, Lane::Urgent, &Load::Answer(question, answer));
    }
}

fn sort(
    messages: Vec<Message>,
    outgoing: &mut BTreeMap<(u64, Lane), Vec<(bool, Bytes)>>,
    snapshots: &mut Vec<Message>,
) {
    for message in messages {
        match Lane::of(message.msg_type()) {
            Some(Lane::Snapshot) => snapshots.push(message),
            Some(lane) => {
                // A lane is a stream, and nothing on it comes twice. raft bears that all
                // the same, except for proposals: those would be made twice.
                let twice = message.msg_type() != MessageType::MsgPropose;
                let encoded = message.encode_to_vec().into();
                outgoing.entry((message.to, lane)).or_default().push((twice, encoded));
            }
            None => debug_assert!(message.msg_type() == MessageType::MsgHup, "{message:?}"),
        }
    }
}

fn decode(bytes: &Bytes) -> Message {
    Message::decode(bytes.clone()).expect("what a member encoded can be decoded")
}
