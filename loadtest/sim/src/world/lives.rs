//! Processes: their start, their turns, their end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use castd_actors::compactor;
use castd_actors::lease_manager;
use rand::Rng;

use super::World;
use super::events::{Beat, Event};
use crate::door::Done;
use crate::member::{Death, HEARTBEAT, Part, Process, WATCH_PROGRESS};
use crate::panics;
use crate::time::{MS, Nanos, SECOND};

/// A member probes its links at one of so many beats of raft.
const PROBE_BEATS: u32 = 40;

/// How a process ends against its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Killed: what it has written is there.
    Kill,
    /// The machine loses power: what was not synced may be lost.
    PowerCut,
}

impl World {
    /// A member's process starts over what its disk holds.
    pub(super) fn start(&mut self, id: u64) {
        let lives = self.members.get(&id).map_or(0, |member| member.lives);
        let seed = self.chance.seed_of_life(id, lives + 1);
        let (now, config) = (self.now, self.config);
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.process.is_some() || member.removed {
            return;
        }
        member.lives += 1;
        member.paused = false;
        let (life, clock_ms) = (member.lives, member.clock.show(now));
        let started = panics::caught(|| {
            Process::start(
                &member.disk,
                member.identity,
                &member.begin,
                &config,
                life,
                seed,
                clock_ms,
            )
        });
        let process = match started {
            Ok(Ok(process)) => process,
            Ok(Err(reason)) => return self.cannot_start(id, &reason),
            Err(said) => {
                let text = format!("m{id} stumbles at its start: {said}");
                return self.watchman.problem("a member starts again", text);
            }
        };
        member.noted = 0;
        let unnoticed =
            member.rotten.take().filter(|(file, _)| !member.disk.files(file).is_empty());
        if let Some((place, _)) = unnoticed {
            let text = format!("m{id} starts over {place}, in which a bit has turned");
            self.watchman.problem("damage is found", text);
        }
        member.process = Some(process);
        self.story.tell(now, || format!("m{id} starts, life {life}"));
        self.watchman.count("process started");
        self.begin_beats(id, life);
        self.publish_members(id);
        self.note_state(id);
        self.wake(id);
    }

    fn begin_beats(&mut self, id: u64, life: u16) {
        for beat in [Beat::Raft, Beat::Leases, Beat::Compactor, Beat::Progress] {
            let first = self.chance.random_range(0..interval(beat));
            self.after(first, Event::Beat { member: id, life, beat });
        }
    }

    /// A disk that ails may keep a member from starting; it is tried again. One on which
    /// a bit has turned is replaced by what it was before.
    fn cannot_start(&mut self, id: u64, reason: &str) {
        let member = self.members.get_mut(&id).expect("only members are started");
        let mended = member.rotten.take().map(|(_, whole)| member.disk = whole).is_some();
        let ailing = member.disk_ails() && is_of_the_disk(reason);
        if mended {
            self.watchman.count("damage found");
        }
        if mended || ailing {
            member.disk.kill();
            self.watchman.count("start failed");
            self.story.tell(self.now, || format!("m{id} cannot start: {reason}"));
            return self.after(SECOND, Event::Start { member: id });
        }
        self.watchman.problem("a member starts again", format!("m{id} cannot start: {reason}"));
    }

    /// Runs something on a process; gives what came of it unless the process has ended.
    fn on_process<T>(
        &mut self,
        id: u64,
        life: u16,
        act: impl FnOnce(&mut Process) -> Result<T, Death>,
    ) -> Option<T> {
        let now = self.now;
        let member = self.members.get_mut(&id)?;
        let clock_ms = member.clock.show(now);
        let process = member.process.as_mut().filter(|process| process.life == life)?;
        process.set_clock(clock_ms);
        let (outcome, panic) = panics::heard(|| catch_unwind(AssertUnwindSafe(|| act(process))));
        let death = match (outcome, process.take_death()) {
            (Ok(Ok(value)), None) => return Some(value),
            (Ok(Err(death)), _) | (_, Some(death)) => death,
            (Err(_), None) => ("an actor".to_owned(), panic.clone().unwrap_or_default()),
        };
        self.died(id, &death, panic);
        None
    }

    /// A process has ended by itself. That is right only when its disk has refused
    /// something; a panic never is.
    fn died(&mut self, id: u64, (actor, said): &Death, panic: Option<String>) {
        let ails = self.members[&id].disk_ails() && is_of_the_disk(said) && panic.is_none();
        let said = &panic.unwrap_or_else(|| said.clone());
        self.story.tell(self.now, || format!("m{id} ends: {actor}: {said}"));
        self.watchman.count("process ended by itself");
        if !ails {
            self.watchman.problem("no process ends by itself", format!("m{id}: {actor}: {said}"));
        }
        self.end(id, Ending::Kill);
        let pause = self.chance.random_range(200 * MS..2 * SECOND);
        self.after(pause, Event::Start { member: id });
    }

    /// A part's turn has come.
    pub(super) fn turn(&mut self, id: u64, life: u16, part: Part) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let paused = member.paused;
        let Some(process) = member.process.as_mut().filter(|process| process.life == life) else {
            return;
        };
        process.arranged.retain(|arranged| *arranged != part);
        if paused {
            return;
        }
        self.story.mix(&[id, u64::from(life), part as u64]);
        let Some(turned) = self.on_process(id, life, |process| process.turn(part)) else { return };
        self.watchman.turns(part);
        match part {
            Part::Mvcc => self.note_state(id),
            Part::Raft => self.note_raft(id),
            Part::Peers => self.take_peer_messages(id),
            _ => {}
        }
        for done in turned.done {
            self.done(id, life, done);
        }
        self.wake(id);
        if !turned.did {
            if part == Part::Mvcc {
                self.watchman.count("store waited for room");
            }
            self.retry(id, life, part);
        }
    }

    fn done(&mut self, id: u64, life: u16, done: Done) {
        match done {
            Done::Call(call, outcome) => self.call_done(id, call, outcome),
            Done::Export(exported) => self.send_snapshot(id, exported.0, exported.1),
            Done::Answered { to, question, answer } => {
                self.send_answer(id, life, to, question, answer);
            }
            Done::Nothing => {}
        }
    }

    /// Arranges turns for all parts that have something to do.
    pub(crate) fn wake(&mut self, id: u64) {
        for part in Part::ALL {
            let Some(member) = self.members.get_mut(&id).filter(|member| member.is_up()) else {
                return;
            };
            let process = member.process.as_mut().expect("a member that is up has a process");
            if process.arranged.contains(&part) || !process.has_work(part) {
                continue;
            }
            process.arranged.push(part);
            let life = process.life;
            let latency = self.latency(id, part);
            self.after(latency, Event::Turn { member: id, life, part });
        }
        self.arrange_pauses(id);
    }

    /// A part that could do nothing tries again a little later.
    fn retry(&mut self, id: u64, life: u16, part: Part) {
        let Some(process) = self.process_mut(id, life) else { return };
        if process.has_work(part) && !process.arranged.contains(&part) {
            process.arranged.push(part);
            self.after(MS, Event::Turn { member: id, life, part });
        }
    }

    fn arrange_pauses(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let clock = member.clock;
        let Some(process) = member.process.as_mut() else { return };
        let life = process.life;
        let leases =
            process.lease_waits.take_begun().into_iter().map(|begun| (Part::Leases, begun));
        let compactor =
            process.compactor_waits.take_begun().into_iter().map(|begun| (Part::Compactor, begun));
        let begun: Vec<_> = leases.chain(compactor).collect();
        for (part, (pause, span)) in begun {
            let span = clock.span(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
            self.after(span, Event::Pause { member: id, life, part, pause });
        }
    }

    pub(super) fn pause_over(&mut self, id: u64, life: u16, part: Part, pause: u64) {
        if self.is_paused(id) {
            return self.after(10 * MS, Event::Pause { member: id, life, part, pause });
        }
        self.on_process(id, life, |process| {
            match part {
                Part::Leases => process.lease_waits.over(pause, &mut process.leases),
                _ => process.compactor_waits.over(pause, &mut process.compactor),
            }
            Ok(())
        });
        self.wake(id);
    }

    pub(super) fn beat(&mut self, id: u64, life: u16, beat: Beat) {
        let Some(member) = self.members.get(&id) else { return };
        if member.process.as_ref().is_none_or(|process| process.life != life) {
            return;
        }
        let next = match member.paused {
            true => 10 * MS,
            false => member.clock.span(interval(beat)),
        };
        let paused = member.paused;
        self.after(next, Event::Beat { member: id, life, beat });
        if paused {
            return;
        }
        self.story.mix(&[id, beat as u64, 77]);
        self.on_process(id, life, |process| {
            match beat {
                Beat::Raft => process.raft.tick(),
                Beat::Leases => process.leases.tick(&mut process.lease_waits),
                Beat::Compactor => process.compactor.look(&mut process.compactor_waits),
                Beat::Progress => process.hub.notify_progress(),
            }
            Ok(())
        });
        if beat == Beat::Raft {
            self.note_raft(id);
            if self.chance.random_ratio(1, PROBE_BEATS) {
                self.probe_links(id);
            }
            self.leave_if_removed(id);
        }
        self.wake(id);
    }

    /// A member that is none any more stops.
    fn leave_if_removed(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.process.as_ref().is_some_and(|process| process.company.is_removed()) {
            member.removed = true;
            self.watchman.count("removed member stopped");
            self.story.tell(self.now, || format!("m{id} was removed and stops"));
            self.end(id, Ending::Kill);
        }
    }

    /// A process ends. What it was just writing may be there in part.
    pub(crate) fn end(&mut self, id: u64, ending: Ending) {
        let (cut_short, wal_steps, seal_steps) = (
            self.chance.random_bool(0.5),
            self.chance.random_range(0..6),
            self.chance.random_range(0..40),
        );
        let seed = self.chance.random();
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(mut process) = member.process.take() else { return };
        let life = process.life;
        for (part, steps) in [(Part::Wal, wal_steps), (Part::Sealer, seal_steps)] {
            if cut_short && process.arranged.contains(&part) {
                member.disk.fail_after(steps);
                // What it says is of no importance: it says it to a process that is gone.
                let _ = panics::caught(|| drop(process.turn(part)));
            }
        }
        match ending {
            Ending::Kill => member.disk.kill(),
            Ending::PowerCut => member.disk.crash(seed),
        }
        member.paused = false;
        drop(process);
        self.release(id);
        self.links_of(id, life);
        self.calls_lost(id, life);
    }

    pub(super) fn is_paused(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.paused)
    }

    pub(super) fn process(&self, id: u64) -> Option<&Process> {
        self.members.get(&id)?.process.as_ref()
    }

    pub(super) fn process_mut(&mut self, id: u64, life: u16) -> Option<&mut Process> {
        self.members.get_mut(&id)?.process.as_mut().filter(|process| process.life == life)
    }
}

/// Whether this is what a disk says that fails or is full.
fn is_of_the_disk(said: &str) -> bool {
    ["simulated failure", "no storage space", "no space left on device"]
        .iter()
        .any(|text| said.contains(text))
}

fn interval(beat: Beat) -> Nanos {
    let interval = match beat {
        Beat::Raft => HEARTBEAT,
        Beat::Leases => lease_manager::TICK,
        Beat::Compactor => compactor::LOOK,
        Beat::Progress => WATCH_PROGRESS,
    };
    u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
}
