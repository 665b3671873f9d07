//! The links between members: tried, standing, found to be broken.

use std::sync::Arc;

use castd_actors::peer_transport::PeerStatus;
use rand::Rng;

use super::World;
use super::events::Event;
use crate::member::Process;
use crate::time::{MS, Nanos, SECOND, US};

/// The way from one process to another member.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Which process of ours has it.
    pub(super) life: u16,
    /// Which process of the other member it leads to, while it stands.
    pub(super) to_life: Option<u16>,
    /// When it last stood up.
    pub(super) since: Nanos,
    /// Its end is noticed soon.
    pub(super) breaking: bool,
    /// When raft was last told that messages are lost.
    pub(super) told: Nanos,
    /// An attempt to connect is arranged.
    pub(super) trying: bool,
    /// The other member has called, and need not be known.
    pub(super) called: bool,
}

impl World {
    /// The members a process starts with are its links' first.
    pub(super) fn publish_members(&mut self, id: u64) {
        if let Some(life) = self.process(id).map(|process| process.life) {
            self.meet(id, life);
        }
    }

    /// Links to all members that the process knows, and to no others.
    pub(super) fn meet(&mut self, id: u64, life: u16) {
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
    pub(super) fn stands(&self, from: u64, life: u16, to: u64) -> Option<u16> {
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
        let called = link.called;
        let knows = |process: &Process| process.company.view().cluster().members.contains_key(&to);
        if !called && !self.process(from).is_some_and(knows) {
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
    pub(super) fn is_removed_for(&self, at: u64, id: u64) -> bool {
        let removed = |process: &Process| process.company.view().cluster().removed.contains(&id);
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

    pub(super) fn tell_removed(&mut self, id: u64, life: u16) {
        let Some(process) = self.process_mut(id, life) else { return };
        let status =
            PeerStatus { removed: true, ..PeerStatus::clone(&process.peers.edges.status.get()) };
        process.peers.edges.status.set(Arc::new(status));
    }

    fn connected(&mut self, from: u64, life: u16, to: u64, to_life: u16) {
        let now = self.now;
        if let Some(link) = self.network.links.get_mut(&(from, to)) {
            let called = link.called;
            *link = Link { life, to_life: Some(to_life), since: now, called, ..Link::default() };
        }
        self.story.tell(now, || format!("m{from} connected to m{to}"));
        self.show_links(from, life);
        self.answer_caller(to, to_life, from);
    }

    /// Who is called answers, also to a member that has joined behind what it has applied.
    fn answer_caller(&mut self, id: u64, life: u16, caller: u64) {
        let link = self.network.links.get(&(id, caller));
        if link.is_some_and(|link| link.life == life) {
            return;
        }
        let link = Link { life, called: true, trying: true, ..Link::default() };
        self.network.links.insert((id, caller), link);
        let pause = self.chance.random_range(MS..30 * MS);
        self.after(pause, Event::Connect { from: id, life, to: caller });
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
            .filter(|(_, ask)| (ask.from, ask.to) == (from, to))
            .map(|(ask, _)| *ask)
            .collect();
        for ask in lost {
            self.unanswered(from, ask);
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
            .filter(|(_, ask)| ask.from == id)
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
}
