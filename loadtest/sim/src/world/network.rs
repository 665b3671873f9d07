//! The network between members: links that come and go, lanes, and what is lost on them.
//! What a lane is and what goes on which is PeerTransport's; the wire is bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use castd_actors::Error;
use castd_actors::peer_transport::{Lane, PeerMessage, PeerStatus, Questions};
use castd_actors::raft_node::RaftInbound;
use castd_actors::shared::Refused;
use castd_actors::snapshot::{Export, SpoolWriter};
use castd_proto::castdpb::{Answer, Question};
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use rand::Rng;
use tokio::sync::oneshot;

use super::World;
use super::ambush::{self, Ambush};
use super::events::Event;
use crate::door::Done;
use crate::member::HEARTBEAT;
use crate::story::Story;
use crate::time::{MS, Nanos, SECOND, US};

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

/// The way from one process to another member.
#[derive(Debug, Default)]
struct Link {
    /// Which process of ours has it.
    life: u16,
    /// Which process of the other member it leads to, while it stands.
    to_life: Option<u16>,
    /// When it last stood up.
    since: Nanos,
    /// Its end is noticed soon.
    breaking: bool,
    /// When raft was last told that messages are lost.
    told: Nanos,
    /// An attempt to connect is arranged.
    trying: bool,
}

/// All links, and where nothing gets through.
#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<(u64, u64), Link>,
    /// Ways on which nothing arrives, from and to.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Members that clients do not reach.
    pub(crate) cut_off: BTreeSet<u64>,
    /// When the last parcel of a lane arrives.
    last: BTreeMap<(u64, u64, Lane), Nanos>,
    under_way: BTreeMap<(u64, u64, Lane), usize>,
    asks: BTreeMap<u64, (u64, u64, oneshot::Sender<Result<Answer, Error>>)>,
    asked: u64,
    /// See [`Ambush`].
    pub(super) ambush: Ambush,
}

/// Something on its way from one process to another.
pub(crate) struct Parcel {
    from: u64,
    from_life: u16,
    to: u64,
    to_life: u16,
    lane: Lane,
    load: Load,
}

#[derive(Clone)]
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
        let mut snapshots = Vec::new();
        while let Some(batch) = process.peers.messages.take_waiting() {
            for message in batch {
                match message {
                    PeerMessage::Send(messages) => sort(messages, &mut outgoing, &mut snapshots),
                    PeerMessage::Members(_) | PeerMessage::Notice(_) => {}
                    PeerMessage::Ask { to, question, reply } => {
                        self.network.asked += 1;
                        self.network.asks.insert(self.network.asked, (id, to, reply));
                        let asked = self.network.asked;
                        self.line_question(id, life, to, asked, question);
                        return self.take_peer_messages(id);
                    }
                }
            }
        }
        self.meet(id, life);
        for ((to, lane), messages) in outgoing {
            self.send(id, life, to, lane, Load::Messages(messages.into()));
        }
        for message in snapshots {
            self.export(id, life, message);
        }
    }

    fn line_question(&mut self, id: u64, life: u16, to: u64, asked: u64, question: Question) {
        if self.stands(id, life, to).is_none() {
            if let Some((_, _, reply)) = self.network.asks.remove(&asked) {
                let _ = reply.send(Err(Error::NoLeader));
            }
            return;
        }
        self.send(id, life, to, Lane::Urgent, Load::Question(asked, question));
        self.after(ASK_TIMEOUT, Event::Unanswered { member: id, life, question: asked });
    }

    /// Links to all members that the process knows, and to no others.
    fn meet(&mut self, id: u64, life: u16) {
        let Some(process) = self.process(id) else { return };
        let view = process.company.view();
        let others: Vec<u64> =
            view.cluster().members.keys().copied().filter(|other| *other != id).collect();
        for to in others {
            let link = self.network.links.entry((id, to)).or_default();
            if link.life != life {
                *link = Link { life, ..Link::default() };
            }
            if link.to_life.is_none() && !link.trying {
                link.trying = true;
                let pause = self.chance.random_range(MS..30 * MS);
                self.after(pause, Event::Connect { from: id, life, to });
            }
        }
    }

    /// The process that a link leads to, while it stands.
    fn stands(&self, from: u64, life: u16, to: u64) -> Option<u16> {
        self.network.links.get(&(from, to)).filter(|link| link.life == life)?.to_life
    }

    pub(super) fn connect(&mut self, from: u64, life: u16, to: u64) {
        let still = self.process(from).is_some_and(|process| process.life == life);
        let link = self.network.links.get_mut(&(from, to)).filter(|link| link.life == life);
        let (true, Some(link)) = (still, link) else { return };
        link.trying = false;
        if link.to_life.is_some() {
            return;
        }
        let knows = |process: &crate::member::Process| {
            process.company.view().cluster().members.contains_key(&to)
        };
        if !self.process(from).is_some_and(knows) {
            return;
        }
        if self.is_removed_for(to, from) {
            return self.tell_removed(from, life);
        }
        match self.reaches(from, to) {
            Some(to_life) => self.connected(from, life, to, to_life),
            None => {
                let pause = self.chance.random_range(50 * MS..SECOND);
                if let Some(link) = self.network.links.get_mut(&(from, to)) {
                    link.trying = true;
                }
                self.after(pause, Event::Connect { from, life, to });
            }
        }
    }

    /// The process that runs at the other side, if both ways are open.
    fn reaches(&self, from: u64, to: u64) -> Option<u16> {
        let cut = &self.network.cut;
        if cut.contains(&(from, to)) || cut.contains(&(to, from)) {
            return None;
        }
        let other = self.members.get(&to).filter(|other| other.is_up())?;
        other.process.as_ref().map(|process| process.life)
    }

    /// Whether the member `at` runs, can be reached, and knows that `id` was removed.
    fn is_removed_for(&self, at: u64, id: u64) -> bool {
        let removed = |process: &crate::member::Process| {
            process.company.view().cluster().removed.contains(&id)
        };
        self.reaches(id, at).is_some() && self.process(at).is_some_and(removed)
    }

    /// Links that say nothing are probed now and then; who was removed learns of it so.
    pub(super) fn probe_links(&mut self, id: u64) {
        let Some(life) = self.process(id).map(|process| process.life) else { return };
        let others: Vec<u64> = self.members.keys().copied().collect();
        let stands = |to: &u64| self.stands(id, life, *to).is_some();
        if others.iter().filter(|to| stands(to)).any(|to| self.is_removed_for(*to, id)) {
            self.tell_removed(id, life);
        }
    }

    fn tell_removed(&mut self, id: u64, life: u16) {
        let Some(process) = self.process_mut(id, life) else { return };
        let status =
            PeerStatus { removed: true, ..PeerStatus::clone(&process.peers.edges.status.get()) };
        process.peers.edges.status.set(Arc::new(status));
    }

    fn connected(&mut self, from: u64, life: u16, to: u64, to_life: u16) {
        let now = self.now;
        if let Some(link) = self.network.links.get_mut(&(from, to)) {
            *link = Link { life, to_life: Some(to_life), since: now, ..Link::default() };
        }
        self.story.tell(now, || format!("m{from} connected to m{to}"));
        self.show_links(from, life);
    }

    fn show_links(&mut self, from: u64, life: u16) {
        let links: Vec<(u64, Nanos)> = self
            .network
            .links
            .range((from, 0)..=(from, u64::MAX))
            .filter(|(_, link)| link.life == life && link.to_life.is_some())
            .map(|((_, to), link)| (*to, link.since))
            .collect();
        let Some(process) = self.process_mut(from, life) else { return };
        let active_since =
            links.into_iter().map(|(to, since)| (to, process.instant(since))).collect();
        let removed = process.peers.edges.status.get().removed;
        process.peers.edges.status.set(Arc::new(PeerStatus { active_since, removed }));
    }

    pub(super) fn break_link(&mut self, from: u64, life: u16, to: u64) {
        let link = self.network.links.get_mut(&(from, to)).filter(|link| link.life == life);
        let Some(link) = link.filter(|link| link.breaking) else { return };
        (link.to_life, link.breaking, link.trying) = (None, false, true);
        self.story.tell(self.now, || format!("m{from} lost its connection to m{to}"));
        self.show_links(from, life);
        let lost: Vec<u64> = self
            .network
            .asks
            .iter()
            .filter(|(_, (asker, asked, _))| (*asker, *asked) == (from, to))
            .map(|(ask, _)| *ask)
            .collect();
        for ask in lost {
            self.unanswered(from, life, ask);
        }
        let pause = self.chance.random_range(50 * MS..SECOND);
        self.after(pause, Event::Connect { from, life, to });
    }

    /// A process has ended: so have its links, and those to it will be noticed to.
    pub(super) fn links_of(&mut self, id: u64, life: u16) {
        self.network.links.retain(|(from, _), _| *from != id);
        let gone: Vec<u64> = self
            .network
            .asks
            .iter()
            .filter(|(_, (asker, ..))| *asker == id)
            .map(|(ask, _)| *ask)
            .collect();
        for ask in gone {
            self.network.asks.remove(&ask);
        }
        let broken: Vec<(u64, u16)> = self
            .network
            .links
            .iter_mut()
            .filter(|((_, to), link)| *to == id && link.to_life == Some(life) && !link.breaking)
            .map(|((from, _), link)| {
                link.breaking = true;
                (*from, link.life)
            })
            .collect();
        for (from, from_life) in broken {
            let soon = self.chance.random_range(100 * US..5 * MS);
            self.after(soon, Event::Break { from, life: from_life, to: id });
        }
    }

    /// Sends something, or loses it.
    fn send(&mut self, from: u64, from_life: u16, to: u64, lane: Lane, load: Load) {
        let Some(to_life) = self.stands(from, from_life, to) else {
            return self.lost(from, from_life, to);
        };
        let way = (from, to, lane);
        let under_way = self.network.under_way.entry(way).or_default();
        if *under_way >= LANE_PARCELS {
            self.fell_through(from, from_life, to, MS, &load);
            return self.lost(from, from_life, to);
        }
        self.watchman.sent(from, to, lane);
        let weather = &self.weather;
        let chance = &mut self.chance;
        if chance.random_bool(weather.lost) {
            self.watchman.count("message lost");
            return self.fell_through(from, from_life, to, SILENCE, &load);
        }
        let copies = 1 + usize::from(chance.random_bool(weather.doubled));
        let delays: Vec<Nanos> = (0..copies).map(|_| weather.delay(chance)).collect();
        let reorders = weather.reordered > 0.0 && chance.random_bool(weather.reordered);
        let size = match &load {
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
            // It waits in the kernel's buffers.
            *self.network.under_way.entry((from, to, lane)).or_default() += 1;
            self.after(5 * MS, Event::Arrive(Box::new(parcel)));
            return;
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
                if let Some((_, _, reply)) = self.network.asks.remove(question) {
                    let _ = reply.send(answer.clone());
                }
            }
        }
    }

    fn take_in_snapshot(&mut self, parcel: &Parcel, message: Message, pieces: &[Bytes]) {
        let mut writer = SpoolWriter::in_memory();
        for piece in pieces {
            writer.write(piece).expect("a state that was exported can be read");
        }
        let spool = writer.finish().expect("a state that was exported is whole");
        let index = spool.index();
        let Parcel { from, from_life, to, to_life, .. } = *parcel;
        self.story.tell(self.now, || format!("m{to} received a snapshot at {index} from m{from}"));
        self.watchman.count("snapshot received");
        let Some(process) = self.process_mut(to, to_life) else { return };
        let inbound = RaftInbound::Snapshot { message, spool };
        let arrived = process.peers.edges.raft.try_send(inbound).is_ok();
        self.after(MS, Event::SnapshotSent { from, life: from_life, to, arrived });
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

    pub(super) fn unanswered(&mut self, id: u64, life: u16, question: u64) {
        let _ = life;
        if let Some((_, _, reply)) = self.network.asks.remove(&question) {
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
            Done::Export(message, export)
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
                self.send(id, life, to, Lane::Snapshot, Load::Snapshot(message, pieces.into()));
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
        self.send(id, life, to, Lane::Urgent, Load::Answer(question, answer));
    }

    /// The members a process starts with are its links' first.
    pub(super) fn publish_members(&mut self, id: u64) {
        if let Some(life) = self.process(id).map(|process| process.life) {
            self.meet(id, life);
        }
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
