//! The end of all faults, and whether everything is well again.

use std::fmt::Write;

use super::World;
use super::events::Event;
use crate::member::Part;

impl World {
    /// Ends every fault: whatever is broken is whole from now on.
    pub(crate) fn mend(&mut self) {
        self.story.tell(self.now, || "== everything is mended".to_owned());
        self.calm_since = Some(self.now);
        self.disperse();
        self.network.cut.clear();
        self.network.cut_off.clear();
        self.weather = self.weather.mended();
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.stalled_until = 0;
            member.slowness = 1;
            member.sluggish = (Part::Raft, 1);
            member.full = false;
            member.disk.lift_limit();
            // Ends no process, only the failing of the disk.
            member.disk.kill();
            if let Some(process) = &mut member.process {
                // A turn that was far off, when all was slow, is not waited for.
                process.arranged.clear();
            }
            let starts = member.process.is_none() && !member.removed;
            if starts {
                self.after(0, Event::Start { member: id });
            }
            self.resume(id);
        }
    }

    /// Tells all clients to begin nothing new.
    pub(crate) fn retire_clients(&mut self) {
        self.clients.iter_mut().flatten().for_each(|client| client.retire());
    }

    /// Whether all calls are answered, and all members have applied the same.
    pub(crate) fn is_well(&self) -> bool {
        if !self.clients.iter().flatten().all(|client| client.is_content(self)) {
            return false;
        }
        let mut applied = None;
        for (id, member) in &self.members {
            if member.removed || !self.is_member(*id) {
                continue;
            }
            let Some(process) = &member.process else { return false };
            let (raft, view) = (process.company.raft(), process.company.view());
            let same = *applied.get_or_insert(view.applied_index()) == view.applied_index();
            if raft.leader == 0 || raft.committed != view.applied_index() || !same {
                return false;
            }
        }
        true
    }

    /// Whether the cluster, as its furthest member knows it, has this member.
    fn is_member(&self, id: u64) -> bool {
        let views = self.members.values().filter_map(|member| member.process.as_ref());
        let furthest =
            views.map(|process| process.company.view()).max_by_key(|view| view.applied_index());
        furthest.is_none_or(|view| view.cluster().members.contains_key(&id))
    }

    /// Looks at all members' states.
    pub(crate) fn take_all_fingerprints(&mut self) {
        self.compare_members();
        let mistaken =
            self.members.iter().filter(|(id, member)| member.removed && self.is_member(**id));
        let mistaken: Vec<u64> = mistaken.map(|(id, _)| *id).collect();
        if !mistaken.is_empty() {
            let text = format!("{mistaken:?} have stopped and are members");
            self.watchman.problem("who is a member stays one", text);
        }
        let lives: Vec<(u64, u16)> = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((*id, member.process.as_ref()?.life)))
            .collect();
        for (id, life) in lives {
            self.take_fingerprint(id, life);
        }
    }

    /// Those whom raft counts are those whom the cluster has, when all is applied.
    fn compare_members(&mut self) {
        let mut wrong = Vec::new();
        for (id, member) in &self.members {
            // Who was removed and has not heard of it yet has a list of its own.
            let Some(process) = member.process.as_ref().filter(|_| self.is_member(*id)) else {
                continue;
            };
            let (raft, view) = (process.company.raft(), process.company.view());
            let members = &view.cluster().members;
            let learners = members.values().filter(|member| member.is_learner).count() as u64;
            let listed = (members.len() as u64 - learners, learners);
            if (raft.voters, raft.learners) != listed {
                let counted = (raft.voters, raft.learners);
                wrong.push(format!("m{id}: raft counts {counted:?}, listed are {listed:?}"));
            }
        }
        for text in wrong {
            self.watchman.problem("raft counts the members there are", text);
        }
    }

    /// How the members are, for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, member) in &self.members {
            let _ = match &member.process {
                None => write!(text, "\n    m{id}: down, removed: {}", member.removed),
                Some(process) => {
                    let (raft, view) = (process.company.raft(), process.company.view());
                    write!(
                        text,
                        "\n    m{id}: life {}, {raft:?}, applied {} revision {}",
                        process.life,
                        view.applied_index(),
                        view.revision()
                    )
                }
            };
        }
        text
    }
}
