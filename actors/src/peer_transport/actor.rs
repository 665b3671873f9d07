//! The shell: messages to their links, and what the links notice.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, StreamHandler};
use raft::eraftpb::Message;
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;

use super::link::{self, Asked, LinkBasics, LinkDoor, Losses};
use super::messages::{Notice, PeerMessage, PeerStatus};
use super::metrics::PeerMetrics;
use super::pacing::SharedRate;
use super::queue::Lane;
use super::settings::PeerSettings;
use super::snapshot_lane::{Parting, SnapshotSource};
use super::strangers::Strangers;
use super::wire::{Caller, Refusal};
use crate::cluster::ClusterState;
use crate::raft_node::RaftInbound;
use crate::shared::{Gate, Inlet, Outlet, Published};

/// How often links are looked after.
const ROUND: Duration = Duration::from_secs(1);
/// How long a link outlives its member's removal: what is on its way may be the very news.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often the same refusal is logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Callers whose refusals are remembered: anyone can call.
const REFUSED_MAX: usize = 64;

/// Where PeerTransport sends to, and where it is heard.
#[derive(Clone)]
pub struct PeerEdges {
    /// What raft is told goes here.
    pub raft: Inlet<RaftInbound>,
    /// PeerTransport's own mailbox, for its links.
    pub transport: Inlet<PeerMessage>,
    /// Which members can be reached is shown here.
    pub status: Published<PeerStatus>,
    /// Gives the state that snapshots are made of.
    pub snapshots: Arc<dyn SnapshotSource>,
}

/// The actor; see the module's text.
pub struct PeerTransport {
    settings: Arc<PeerSettings>,
    edges: PeerEdges,
    messages: Option<Outlet<PeerMessage>>,
    metrics: PeerMetrics,
    cluster: Option<Arc<ClusterState>>,
    links: BTreeMap<u64, LinkDoor>,
    links_made: u64,
    /// Links to members that were removed, with the time since when.
    parting: Vec<(Instant, LinkDoor)>,
    snapshot_rate: SharedRate,
    strangers: Strangers,
    status: PeerStatus,
    refusals: HashMap<(u64, Refusal), Gate>,
}

impl PeerTransport {
    /// The actor over its mailbox. It has no links before it is told who the members are.
    pub fn new(
        settings: PeerSettings,
        edges: PeerEdges,
        messages: Outlet<PeerMessage>,
        metrics: PeerMetrics,
    ) -> Self {
        Self {
            snapshot_rate: SharedRate::new(settings.snapshot_bytes_per_second),
            // Some election timeouts: who leads says something at every heartbeat.
            strangers: Strangers::new(3 * settings.silence),
            settings: Arc::new(settings),
            edges,
            messages: Some(messages),
            metrics,
            cluster: None,
            links: BTreeMap::new(),
            links_made: 0,
            parting: Vec::new(),
            status: PeerStatus::default(),
            refusals: HashMap::new(),
        }
    }

    fn handle(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Send(messages) => {
                let now = Instant::now();
                messages.into_iter().for_each(|message| {
                    self.have_reason(message.to, now);
                    self.send(message);
                });
            }
            PeerMessage::Members(cluster) => {
                self.cluster = Some(cluster);
                self.meet_members();
            }
            PeerMessage::Ask { to, question, reply } => {
                self.ask(to, Asked::new(question, reply));
            }
            PeerMessage::Notice(notice) => self.notice(notice),
        }
    }

    fn send(&mut self, message: Message) {
        let Some(lane) = Lane::of(message.msg_type()) else {
            return self.metrics.undeliverable();
        };
        if lane == Lane::Snapshot {
            return self.send_snapshot(message);
        }
        let Some(link) = self.links.get(&message.to) else {
            return self.metrics.undeliverable();
        };
        let (queue, dropped) = match lane {
            Lane::Urgent => (&link.urgent, &link.figures.dropped_urgent),
            Lane::Bulk | Lane::Snapshot => (&link.bulk, &link.figures.dropped_bulk),
        };
        if queue.offer(message).is_err() {
            dropped.inc();
            link.figures.send_failures.inc();
            link.losses.tell();
        }
    }

    fn send_snapshot(&mut self, message: Message) {
        let to = message.to;
        // When it is dropped, raft is told.
        let parting = Parting::new(message, self.edges.raft.clone());
        let Some(link) = self.links.get(&to) else {
            return self.metrics.undeliverable();
        };
        if link.snapshots.try_send(parting).is_err() {
            link.figures.dropped_snapshots.inc();
        }
    }

    fn ask(&mut self, to: u64, asked: Asked) {
        let Some(link) = self.links.get(&to) else { return asked.refuse() };
        if let Err(TrySendError::Full(asked) | TrySendError::Closed(asked)) =
            link.asks.try_send(asked)
        {
            asked.refuse();
        }
    }

    /// Makes links to those who are in the cluster, and drops those to who are not.
    fn meet_members(&mut self) {
        let Some(cluster) = self.cluster.clone() else { return };
        let us = self.settings.identity.member_id;
        let (members, removed) = (&cluster.members, &cluster.removed);
        self.strangers.retain(|id| !members.contains_key(&id) && !removed.contains(&id));
        let gone = |id: &u64| !members.contains_key(id) && !self.strangers.contains(*id);
        for id in self.links.keys().copied().filter(gone).collect::<Vec<_>>() {
            let link = self.part(id, "removed from the cluster");
            self.parting.extend(link.map(|link| (Instant::now(), link)));
        }
        self.metrics.known(us, us).set(i64::from(members.contains_key(&us)));
        for member in cluster.members.values().filter(|member| member.id != us) {
            match self.links.get_mut(&member.id) {
                Some(link) if link.urls == member.peer_urls => {}
                Some(link) => link.moved(member.peer_urls.clone()),
                None => self.link(member.id, member.peer_urls.clone()),
            }
        }
        self.know_callers();
        self.show();
    }

    /// Whose calls are counted by their ids.
    fn know_callers(&self) {
        let members = self.cluster.iter().flat_map(|cluster| cluster.members.keys().copied());
        self.metrics.know(members.chain(self.strangers.ids()).collect());
    }

    fn link(&mut self, peer: u64, urls: Vec<String>) {
        let figures = self.metrics.link(self.settings.identity.member_id, peer);
        figures.known.set(1);
        self.links_made += 1;
        let basics = LinkBasics {
            peer,
            serial: self.links_made,
            addresses: Published::new(urls),
            settings: Arc::clone(&self.settings),
            caller: Caller::new(&self.settings, peer, &self.own_urls()),
            losses: Losses::new(peer, self.edges.raft.clone(), self.settings.tick),
            figures,
            snapshot_rate: self.snapshot_rate.clone(),
            transport: self.edges.transport.clone(),
            wake: Arc::new(Notify::new()),
        };
        let link = link::start(basics, Arc::clone(&self.edges.snapshots));
        tracing::info!(
            { "remote-peer-id" = format!("{peer:x}"),
              "remote-peer-urls" = format!("{:?}", link.urls) },
            "started a peer's link"
        );
        self.links.insert(peer, link);
    }

    /// Makes a link to who calls and is not in the list of members here: this member is
    /// behind, and the caller, who has joined meanwhile, may be the leader that has to hear
    /// how far it is.
    fn answer_stranger(&mut self, from: u64, urls: Vec<String>, now: Instant) {
        let removed = self.cluster.as_ref().is_none_or(|cluster| cluster.removed.contains(&from));
        if removed || urls.is_empty() {
            return;
        }
        if let Some(displaced) = self.strangers.admit(from, now) {
            self.part_stranger(displaced, "too many that are no members call");
        }
        // What it says now counts.
        let _ = self.strangers.recall(from);
        self.link(from, urls);
        self.know_callers();
    }

    /// raft has something to say to `to`. When that is a stranger, it stays, or comes back
    /// if it has gone: it may still have a stream on which it calls no more.
    fn have_reason(&mut self, to: u64, now: Instant) {
        if self.strangers.contains(to) {
            self.strangers.keep(to, now);
        } else if !self.links.contains_key(&to)
            && let Some(urls) = self.strangers.recall(to)
        {
            self.answer_stranger(to, urls, now);
        }
    }

    /// A stranger with a link calls again. Where it says that it is reached may be true
    /// this time.
    fn heed_stranger(&mut self, from: u64, urls: Vec<String>, now: Instant) {
        self.strangers.keep(from, now);
        if let Some(link) = self.links.get_mut(&from)
            && !urls.is_empty()
            && link.urls != urls
        {
            link.moved(urls);
        }
    }

    fn expire_strangers(&mut self, now: Instant) {
        let quiet = self.strangers.expire(now);
        for id in &quiet {
            self.part_stranger(*id, "it is no member, and has not called for long");
        }
        if !quiet.is_empty() {
            self.know_callers();
        }
    }

    /// Any id can be a stranger's: it leaves no figures behind.
    fn part_stranger(&mut self, id: u64, reason: &str) {
        if let Some(link) = self.links.get(&id) {
            self.strangers.remember(id, link.urls.clone());
        }
        drop(self.part(id, reason));
        self.metrics.forget(self.settings.identity.member_id, id);
    }

    /// Where this member is reached, as far as it knows.
    fn own_urls(&self) -> Vec<String> {
        let own = self.settings.identity.member_id;
        let member = self.cluster.as_ref().and_then(|cluster| cluster.members.get(&own));
        member.map(|member| member.peer_urls.clone()).unwrap_or_default()
    }

    /// Takes a link away, which ends when it is dropped.
    fn part(&mut self, peer: u64, reason: &str) -> Option<LinkDoor> {
        self.inactive(peer, reason);
        let link = self.links.remove(&peer)?;
        link.figures.known.set(0);
        tracing::info!({ "remote-peer-id" = format!("{peer:x}"), reason }, "stopped a peer's link");
        Some(link)
    }

    fn end_farewells(&mut self, now: Instant) {
        self.parting.retain(|(since, _)| now.duration_since(*since) < FAREWELL);
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Up { peer, link } if self.is_current(peer, link) => self.active(peer),
            Notice::Down { peer, link, error } if self.is_current(peer, link) => {
                self.inactive(peer, &error);
            }
            // A link that was replaced meanwhile.
            Notice::Up { .. } | Notice::Down { .. } => {}
            Notice::Refused { peer, refusal } => self.refused(peer, refusal),
            Notice::Caller { from, urls } => self.called(from, urls, Instant::now()),
            Notice::Turned { from, cluster_id, refusal } => {
                self.turned(from, cluster_id, refusal);
            }
        }
    }

    fn called(&mut self, from: u64, urls: Vec<String>, now: Instant) {
        let Some(link) = self.links.get(&from) else {
            return self.answer_stranger(from, urls, now);
        };
        link.wake.notify_waiters();
        if self.strangers.contains(from) {
            self.heed_stranger(from, urls, now);
        }
    }

    fn is_current(&self, peer: u64, serial: u64) -> bool {
        self.links.get(&peer).is_some_and(|link| link.serial == serial)
    }

    fn active(&mut self, peer: u64) {
        if let Some(link) = self.links.get(&peer) {
            link.figures.active.set(1);
        }
        self.status.active_since.insert(peer, Instant::now());
        tracing::info!({ "remote-peer-id" = format!("{peer:x}") }, "peer became active");
        self.show();
    }

    fn inactive(&mut self, peer: u64, reason: &str) {
        if self.status.active_since.remove(&peer).is_none() {
            return;
        }
        if let Some(link) = self.links.get(&peer) {
            link.figures.active.set(0);
            link.figures.disconnected.inc();
        }
        tracing::warn!(
            { "remote-peer-id" = format!("{peer:x}"), error = reason },
            "peer became inactive"
        );
        self.show();
    }

    /// Another member does not let us in.
    fn refused(&mut self, peer: u64, refusal: Refusal) {
        if refusal == Refusal::Removed && !self.status.removed {
            self.status.removed = true;
            self.show();
        }
        if self.is_news(peer, refusal) {
            tracing::error!(
                { "remote-peer-id" = format!("{peer:x}"), error = %refusal },
                "a peer refuses this member"
            );
        }
    }

    /// A caller was not let in.
    fn turned(&mut self, from: u64, cluster_id: u64, refusal: Refusal) {
        if self.is_news(from, refusal) {
            tracing::warn!(
                { "remote-peer-id" = format!("{from:x}"),
                  "local-member-id" = format!("{:x}", self.settings.identity.member_id),
                  "local-member-cluster-id" = format!("{:x}", self.settings.identity.cluster_id),
                  "remote-peer-cluster-id" = format!("{cluster_id:x}"),
                  error = %refusal },
                "refused a peer's call"
            );
        }
    }

    fn is_news(&mut self, peer: u64, refusal: Refusal) -> bool {
        if self.refusals.len() >= REFUSED_MAX {
            self.refusals.clear();
        }
        let gate = self.refusals.entry((peer, refusal));
        gate.or_insert_with(|| Gate::new(REFUSAL_LOG_INTERVAL)).pass(Instant::now())
    }

    fn show(&self) {
        self.edges.status.set(Arc::new(self.status.clone()));
    }

    /// Starts those links again that ended by themselves.
    fn restart_dead(&mut self) {
        let dead = self.links.iter().filter(|(_, link)| link.is_dead());
        for (peer, urls) in dead.map(|(id, link)| (*id, link.urls.clone())).collect::<Vec<_>>() {
            tracing::error!({ "remote-peer-id" = format!("{peer:x}") }, "restarting a peer's link");
            self.metrics.restarted();
            self.inactive(peer, "the link ended");
            self.link(peer, urls);
        }
    }

    /// Runs `step`. What it leaves behind when it panics is not to be trusted, but all of
    /// it can be made again: the links of the members known.
    fn supervised(&mut self, step: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            tracing::error!("PeerTransport failed; restarting every link");
            self.metrics.restarted();
            self.links.clear();
            self.parting.clear();
            self.strangers.clear();
            self.status.active_since.clear();
            self.meet_members();
        }
    }
}

impl Actor for PeerTransport {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        context.run_interval(ROUND, |transport, _| {
            transport.supervised(|transport| {
                let now = Instant::now();
                transport.expire_strangers(now);
                transport.end_farewells(now);
                transport.restart_dead();
            });
        });
    }
}

impl StreamHandler<Vec<PeerMessage>> for PeerTransport {
    fn handle(&mut self, batch: Vec<PeerMessage>, _: &mut Self::Context) {
        self.supervised(|transport| {
            batch.into_iter().for_each(|message| transport.handle(message));
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
