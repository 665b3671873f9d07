//! Watchers: each watch told every stored event it asked for, once, in order, those of a
//! revision together, and what it said about itself was true.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::Problems;
use crate::history::Event;
use crate::sightings::{Asked, Response, Sightings, Stretch};

/// Holds every watch against the stored events, which are in the order of their revisions.
/// Up to the revision `compacted` history may have been compacted away.
pub(super) fn check(
    sightings: &Sightings,
    stored: &[Event],
    compacted: i64,
    problems: &mut Problems,
) {
    // Per watcher: where its latest watch left off.
    let mut left_off: BTreeMap<u32, Option<i64>> = BTreeMap::new();
    for stretch in &sightings.stretches {
        let before = left_off.insert(stretch.watcher, stretch.next()).flatten();
        let result =
            check_resumption(stretch, before).and_then(|()| check_one(stretch, stored, compacted));
        if let Err(text) = result {
            let (name, member, first) = (&stretch.name, stretch.member + 1, stretch.asked.first);
            let keys = &stretch.asked.keys;
            let which = format!("({name}) on m{member}, keys {keys:?} from revision {first}");
            problems.add("watch", format!("{which}: {text}"));
        }
    }
}

/// One that resumes leaves nothing out between the two watches.
fn check_resumption(stretch: &Stretch, before: Option<i64>) -> Result<(), String> {
    let first = stretch.asked.first;
    match before {
        Some(next) if stretch.resumes && first != next => {
            Err(format!("resumed at revision {first} instead of {next}"))
        }
        _ => Ok(()),
    }
}

fn check_one(stretch: &Stretch, stored: &[Event], compacted: i64) -> Result<(), String> {
    let mut course = Course::new(&stretch.asked, stored, compacted);
    for response in &stretch.responses {
        course.take(response)?;
    }
    match stretch.must_be_complete_to {
        Some(upto) => course.complete_to(upto),
        None => Ok(()),
    }
}

/// A watch under way: what it has told, and what it has yet to tell.
struct Course<'a> {
    asked: &'a Asked,
    stored: &'a [Event],
    compacted: i64,
    /// What is yet to come; there once it is known where the watch begins.
    due: Option<Peekable<Due<'a>>>,
    created: bool,
    ended: bool,
    /// The last response was a fragment and not the last one.
    open: bool,
    /// Everything before this revision was told, as far as the watcher knows.
    next: i64,
}

/// The stored events a watch has to tell.
struct Due<'a> {
    asked: &'a Asked,
    events: std::slice::Iter<'a, Event>,
}

impl<'a> Iterator for Due<'a> {
    type Item = &'a Event;

    fn next(&mut self) -> Option<&'a Event> {
        let asked = self.asked;
        self.events.find(|event| asked.wants(event))
    }
}

impl<'a> Course<'a> {
    fn new(asked: &'a Asked, stored: &'a [Event], compacted: i64) -> Self {
        let (created, ended, open) = (false, false, false);
        let (due, next) = (None, 0);
        let mut course = Self { asked, stored, compacted, due, created, ended, open, next };
        if asked.first > 0 {
            course.begin(asked.first);
        }
        course
    }

    fn begin(&mut self, first: i64) {
        let place = self.stored.partition_point(|event| event.revision < first);
        let due = Due { asked: self.asked, events: self.stored[place..].iter() };
        (self.due, self.next) = (Some(due.peekable()), first);
    }

    fn take(&mut self, response: &Response) -> Result<(), String> {
        if self.ended {
            return Err(format!("a response behind its end: {response:?}"));
        }
        if !self.created
            && !matches!(response, Response::Created { .. } | Response::Canceled { .. })
        {
            return Err(format!("a response before its creation: {response:?}"));
        }
        match response {
            Response::Created { revision } => self.create(*revision),
            Response::Events { revision, events, fragment } => {
                self.arrive(*revision, events, *fragment)
            }
            Response::Progress { revision } => self.progress(*revision),
            Response::Canceled { compact_revision, reason } => {
                self.cancel(*compact_revision, reason)
            }
        }
    }

    fn create(&mut self, revision: i64) -> Result<(), String> {
        if self.created {
            return Err("created twice".into());
        }
        self.created = true;
        if self.asked.first == 0 {
            self.begin(revision + 1);
        }
        Ok(())
    }

    fn arrive(&mut self, header: i64, events: &[Event], fragment: bool) -> Result<(), String> {
        let Some(last) = events.last() else {
            return Err("events announced, none told".into());
        };
        for event in events {
            self.tell(event)?;
        }
        if header < last.revision {
            return Err(format!(
                "the header of revision {} tells an older one, {header}",
                last.revision
            ));
        }
        if !fragment && let Some(due) = self.due_at_most(last.revision) {
            return Err(format!("revision {} came in parts: {due:?} is missing", due.revision));
        }
        self.open = fragment;
        self.next = if fragment { last.revision } else { last.revision + 1 };
        Ok(())
    }

    /// Takes in one event: it must be the next one due.
    fn tell(&mut self, told: &Event) -> Result<(), String> {
        let asked = self.asked;
        let Some(due) = self.due.as_mut().and_then(Peekable::next) else {
            return Err(self.out_of_line(told, None));
        };
        // What was before a compacted revision is not known any more.
        let lost = told.before.is_none() && told.revision <= self.compacted;
        let before = due.before.filter(|_| asked.prev_kv && !lost);
        if *told == (Event { before, ..*due }) {
            return Ok(());
        }
        Err(self.out_of_line(told, Some(due)))
    }

    /// What is wrong about an event that is not the next one due.
    fn out_of_line(&self, told: &Event, due: Option<&Event>) -> String {
        let place = self.stored.partition_point(|event| event.revision < told.revision);
        let of_revision = &self.stored[place..];
        let mut of_revision =
            of_revision.iter().take_while(|event| event.revision == told.revision);
        let stored = of_revision.find(|event| event.key == told.key);
        let what = match (stored, due) {
            (None, _) => "an event that is not stored",
            (Some(stored), _) if stored.now != told.now => "an event differs",
            (Some(stored), _) if !self.asked.wants(stored) => "an event nobody asked for",
            (Some(stored), Some(due)) if stored.revision > due.revision => "an event is missing",
            (Some(stored), Some(due)) if stored == due => "the key before it differs",
            (Some(stored), Some(due)) if stored.revision == due.revision => {
                "the events of a revision are in another order"
            }
            (Some(_), _) => "an event came twice, late, or from before the start",
        };
        format!("{what}: told {told:?}, due {due:?}, stored {stored:?}")
    }

    /// Nothing up to the revision may be yet to come.
    fn progress(&mut self, revision: i64) -> Result<(), String> {
        if let Some(due) = self.due_at_most(revision) {
            return Err(format!("progress told to revision {revision} ahead of {due:?}"));
        }
        self.next = self.next.max(revision + 1);
        Ok(())
    }

    fn cancel(&mut self, compact_revision: i64, reason: &str) -> Result<(), String> {
        self.ended = true;
        if compact_revision > self.compacted {
            return Err(format!("cancelled as compacted at {compact_revision}, which was not"));
        }
        if compact_revision > 0 && self.next >= compact_revision {
            return Err(format!(
                "cancelled as compacted at {compact_revision} ({reason:?}), but it had come to \
                 revision {}",
                self.next
            ));
        }
        Ok(())
    }

    fn complete_to(&mut self, upto: i64) -> Result<(), String> {
        if self.ended {
            return Err("it was cancelled, and should be there".into());
        }
        if !self.created {
            return Err("it was never created, and should be there".into());
        }
        if self.open {
            return Err("a response never came to its end".into());
        }
        match self.due_at_most(upto) {
            Some(due) => Err(format!("at the end, at revision {upto}, it still lacks {due:?}")),
            None => Ok(()),
        }
    }

    fn due_at_most(&mut self, revision: i64) -> Option<&'a Event> {
        self.due.as_mut()?.peek().copied().filter(|event| event.revision <= revision)
    }
}
