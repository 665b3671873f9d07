//! A world that does what a transcript says, and tells what happened.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;

use castd_actors::ClusterState;
use castd_actors::compactor::AutoCompaction;
use castd_actors::company::Begin;
use castd_actors::mvcc::SealPolicy;
use castd_actors::raft_node::RaftInbound;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeV2, Entry, EntryType, Message, MessageType};

use super::client::{Desk, ScriptClient, request};
use super::command::{Ask, Call, Command};
use crate::chance::Chance;
use crate::member::{MemberConfig, Part};
use crate::story::{Story, Told};
use crate::time::{MS, Nanos, SECOND, US};
use crate::weather::{Fault, Weather};
use crate::world::{Ending, Event, World};

/// How long things are waited for.
const PATIENCE: Nanos = 60 * SECOND;
/// How long time passes after a call has its answer.
const DUST: Nanos = 20 * MS;
/// Entries after which a snapshot is made, unless it is said: none in a transcript.
const SNAPSHOT_EVERY: u64 = 10_000;

/// What was last seen of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    leader: u64,
    term: u64,
    members: String,
}

/// The stage.
#[derive(Default)]
pub(super) struct Stage {
    world: Option<World>,
    desk: Rc<RefCell<Desk>>,
    seen: BTreeMap<u64, Seen>,
    shows_beats: bool,
    quiet: bool,
    told: Vec<String>,
}

impl Stage {
    /// What there is to tell of the commands since this was last asked.
    pub(super) fn take_told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(super) fn carry_out(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Members { count, pre_vote, snapshot_every } => {
                return self.found(*count, *pre_vote, *snapshot_every);
            }
            Command::Heartbeats(shown) => self.shows_beats = *shown,
            Command::Quietly(command) => {
                self.quiet = true;
                let outcome = self.carry_out(command);
                self.quiet = false;
                return outcome;
            }
            Command::Call(call) => return self.call(call),
            Command::Times(times, call) => {
                for _ in 0..*times {
                    self.call(call)?;
                }
            }
            Command::Run(span) => {
                let until = self.world()?.now + span;
                while self.step(until)?.is_some() {}
            }
            Command::RunUntil(words) => return self.run_until(words),
            Command::Show => self.show()?,
            Command::Log(id) => return self.log(*id),
            other => self.trouble(other)?,
        }
        Ok(())
    }

    fn world(&mut self) -> Result<&mut World, String> {
        self.world.as_mut().ok_or_else(|| "there are no members yet: members 3".to_owned())
    }

    fn found(&mut self, count: u64, pre_vote: bool, every: Option<u64>) -> Result<(), String> {
        if self.world.is_some() {
            return Err("there are members already".to_owned());
        }
        let snapshot_count = every.unwrap_or(SNAPSHOT_EVERY);
        let config = MemberConfig {
            pre_vote,
            snapshot_count,
            backlog_bytes_max: 128 << 20,
            seal: SealPolicy { log_bytes: 16 << 20, entries: snapshot_count },
            segment_bytes: 64 << 10,
            scrub_records: 1000,
            fragment_bytes: 2 << 20,
            compaction: AutoCompaction::Off,
        };
        // The middle of the delays is 1 ms.
        let delay_max = 2 * MS - 50 * US;
        let weather = Weather { delay_max, drift_ppm: 0, ..Weather::calm() };
        let mut world = World::new(Chance::even(), config, weather, Story::followed());
        world.found(count);
        world.add_client(Box::new(ScriptClient(Rc::clone(&self.desk))));
        self.world = Some(world);
        Ok(())
    }

    /// Lets one thing happen; gives what was told of it, none when nothing is left.
    fn step(&mut self, until: Nanos) -> Result<Option<Vec<Told>>, String> {
        let more = self.world()?.step(until);
        self.look()?;
        for line in self.desk.borrow_mut().listen() {
            if let Some(world) = &mut self.world {
                world.story.tell(world.now, || line);
            }
        }
        let world = self.world()?;
        let problems = std::mem::take(&mut world.watchman.problems);
        let scene = world.story.take_scene();
        problems.iter().for_each(|problem| self.told.push(format!("!! {problem}")));
        if !self.quiet {
            let shown = scene.iter().filter(|told| self.shows_beats || !told.is_beat);
            self.told.extend(shown.map(line));
        }
        Ok(more.then_some(scene))
    }

    /// Tells what is new about who leads and who is a member.
    fn look(&mut self) -> Result<(), String> {
        let world = self.world.as_mut().ok_or("there are no members")?;
        for (id, member) in &world.members {
            let Some(process) = &member.process else {
                self.seen.remove(id);
                continue;
            };
            let (raft, view) = (process.company.raft(), process.company.view());
            let members = members(view.cluster());
            let new = Seen { leader: raft.leader, term: raft.term, members };
            let old = self.seen.entry(*id).or_insert_with(|| {
                let members = new.members.clone();
                Seen { members, ..Seen::default() }
            });
            if *old == new {
                continue;
            }
            let mut tell = |text: String| world.story.tell(world.now, || text);
            let Seen { leader, term, members } = &new;
            match (old.leader, *leader) {
                (before, now) if before == now && (now == 0 || old.term == *term) => {}
                (before, 0) if before == *id => {
                    tell(format!("m{id} steps down and has no leader in term {term}"));
                }
                (_, 0) => tell(format!("m{id} has no leader in term {term}")),
                (_, leader) if leader == *id => {}
                (_, leader) => tell(format!("m{id} follows m{leader} in term {term}")),
            }
            if old.members != *members {
                tell(format!("m{id} applies the members {members}"));
            }
            *old = new;
        }
        Ok(())
    }

    fn run_until(&mut self, words: &str) -> Result<(), String> {
        let deadline = self.world()?.now + PATIENCE;
        while let Some(scene) = self.step(deadline)? {
            let says = |told: &Told| !told.is_beat && told.text.contains(words);
            if scene.iter().any(says) {
                return Ok(());
            }
        }
        Err(format!("nothing said {words:?} within {} s", PATIENCE / SECOND))
    }

    fn call(&mut self, call: &Call) -> Result<(), String> {
        let world = self.world()?;
        let number = world.call(0, call.member, request(&call.ask), call.within);
        let deadline = world.now + call.within + SECOND;
        self.desk.borrow_mut().asked.insert(number, call.clone());
        if !call.waits {
            return Ok(());
        }
        while self.desk.borrow().asked.contains_key(&number) && self.step(deadline)?.is_some() {}
        if let Ask::AddLearner(id) = call.ask {
            self.arrive(id, call.member)?;
        }
        let until = self.world()?.now + DUST;
        while self.step(until)?.is_some() {}
        Ok(())
    }

    /// A member that was added starts, with what another one knows of the members.
    fn arrive(&mut self, id: u64, at: u64) -> Result<(), String> {
        let world = self.world()?;
        let process = world.members.get(&at).and_then(|member| member.process.as_ref());
        let cluster = process.map(|process| process.company.view().cluster().clone());
        if let Some(cluster) = cluster.filter(|cluster| cluster.members.contains_key(&id)) {
            world.add_member(id, Begin::Join(cluster));
        }
        Ok(())
    }

    fn trouble(&mut self, command: &Command) -> Result<(), String> {
        let world = self.world()?;
        match command {
            Command::Cut(ways) => world.fault(Fault::Cut(ways.clone())),
            Command::Isolate(id) => {
                let others = world.members.keys().filter(|other| *other != id);
                let ways = others.flat_map(|other| [(*id, *other), (*other, *id)]).collect();
                world.fault(Fault::Cut(ways));
            }
            Command::Mend => {
                let ways = world.network.cut.ways();
                world.fault(Fault::Mend(ways));
            }
            Command::Kill(id) => world.end(*id, Ending::Kill),
            Command::PowerCut(id, in_a_write) => return self.power_cut(*id, *in_a_write),
            Command::Start(id) => world.after(0, Event::Start { member: *id }),
            Command::Pause(id) => world.fault(Fault::Pause(*id)),
            Command::Resume(id) => world.fault(Fault::Resume(*id)),
            Command::StallDisk(id, span) => world.fault(Fault::Stall(*id, *span)),
            Command::ProposeJoint(from, to) => return self.propose_joint(*from, *to),
            other => return Err(format!("{other:?} is no trouble")),
        }
        // What was said about it is what the command says.
        world.story.take_scene();
        Ok(())
    }

    fn power_cut(&mut self, id: u64, in_a_write: bool) -> Result<(), String> {
        let deadline = self.world()?.now + PATIENCE;
        while in_a_write && !self.is_writing(id) && self.step(deadline)?.is_some() {}
        let world = self.world()?;
        world.chance.cut_short(in_a_write);
        world.end(id, Ending::PowerCut);
        world.chance.cut_short(false);
        if in_a_write {
            world.story.tell(world.now, || format!("m{id} loses power in the middle of a write"));
        }
        Ok(())
    }

    /// Hands a member a message that only a member of another kind would send.
    fn propose_joint(&mut self, from: u64, to: u64) -> Result<(), String> {
        let world = self.world()?;
        let members = world.members.keys();
        let changes = members.map(|id| ConfChangeSingle { node_id: *id, ..Default::default() });
        let change = ConfChangeV2 { changes: changes.collect(), ..Default::default() };
        let mut entry = Entry { data: change.encode_to_vec().into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut message = Message { from, to, entries: vec![entry], ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        world.story.message(world.now, &message);
        let process = world.members.get(&to).and_then(|member| member.process.as_ref());
        let process = process.ok_or_else(|| format!("m{to} does not run"))?;
        let taken = process.peers.edges.raft.try_send(RaftInbound::Step(vec![message]));
        taken.map_err(|_| format!("m{to} has no room for it"))?;
        world.wake(to);
        let until = world.now + DUST;
        while self.step(until)?.is_some() {}
        Ok(())
    }

    /// Whether a member's log is about to be written.
    fn is_writing(&self, id: u64) -> bool {
        let member = self.world.as_ref().and_then(|world| world.members.get(&id));
        let process = member.and_then(|member| member.process.as_ref());
        process.is_none_or(|process| process.arranged.contains(&Part::Wal))
    }

    fn show(&mut self) -> Result<(), String> {
        let world = self.world()?;
        let lines: Vec<String> = world.members.keys().map(|id| show(world, *id)).collect();
        self.told.extend(lines);
        Ok(())
    }

    fn log(&mut self, id: u64) -> Result<(), String> {
        let member = self.world()?.members.get(&id);
        let process = member.and_then(|member| member.process.as_ref());
        let process = process.ok_or_else(|| format!("m{id} does not run"))?;
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        for (index, term) in process.raft.log_terms() {
            match runs.last_mut() {
                Some((_, last, of)) if *of == term => *last = index,
                _ => runs.push((index, index, term)),
            }
        }
        let runs: Vec<String> = runs
            .iter()
            .map(|(first, last, term)| format!("{first}..={last} of term {term}"))
            .collect();
        let runs = if runs.is_empty() { "empty".to_owned() } else { runs.join(", ") };
        let committed = process.company.raft().committed;
        self.told.push(format!("log of m{id}: {runs}; committed {committed}"));
        Ok(())
    }
}

fn line(told: &Told) -> String {
    let tenths = told.at / (100 * US);
    format!("{:>7}.{}  {}", tenths / 10, tenths % 10, told.text)
}

fn members(cluster: &ClusterState) -> String {
    let mut text = String::new();
    for (id, member) in &cluster.members {
        let learner = if member.is_learner { " (learner)" } else { "" };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}m{id}{learner}");
    }
    text
}

fn show(world: &World, id: u64) -> String {
    let Some(member) = world.members.get(&id) else { return String::new() };
    let Some(process) = &member.process else {
        let removed = if member.removed { "removed" } else { "down" };
        return format!("m{id} {removed}");
    };
    let (raft, view) = (process.company.raft(), process.company.view());
    let role = match (raft.is_leader, raft.is_learner, raft.leader) {
        (true, ..) => "leader".to_owned(),
        (_, true, _) => "learner".to_owned(),
        (.., 0) => "no leader".to_owned(),
        (.., leader) => format!("follows m{leader}"),
    };
    let paused = if member.paused { ", paused" } else { "" };
    format!(
        "m{id} {role:<10} term {}, committed {}, applied {}, revision {}{paused}",
        raft.term,
        raft.committed,
        view.applied_index(),
        view.revision()
    )
}
