//! What watchers asked for, and what they were told.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::history::{Event, Key, Moment};

/// What a watch is to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The keys.
    pub keys: RangeInclusive<Key>,
    /// The first revision; 0 for whatever comes behind the watch's creation.
    pub first: i64,
    /// Puts are left out.
    pub no_put: bool,
    /// Deletions are left out.
    pub no_delete: bool,
    /// Each event tells the key before it.
    pub prev_kv: bool,
}

impl Asked {
    /// Everything that happens to some keys, from a revision on, with the keys before it.
    pub fn all(keys: RangeInclusive<Key>, first: i64) -> Self {
        Self { keys, first, no_put: false, no_delete: false, prev_kv: true }
    }

    /// Whether the watch is to tell an event, its revision aside.
    pub fn wants(&self, event: &Event) -> bool {
        let filtered = if event.now.is_some() { self.no_put } else { self.no_delete };
        !filtered && self.keys.contains(&event.key)
    }
}

/// One response of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Response {
    /// The watch is there.
    Created {
        /// The store's revision in the header.
        revision: i64,
    },
    /// Something happened.
    Events {
        /// The store's revision in the header. It promises nothing about later responses.
        revision: i64,
        /// What happened, in the order told. Without prev_kv their `before` is `None`.
        events: Vec<Event>,
        /// The next response goes on with the same revisions.
        fragment: bool,
    },
    /// Everything up to a revision has been told.
    Progress {
        /// That revision.
        revision: i64,
    },
    /// The watch is over.
    Canceled {
        /// The revision of the compaction that was the reason, or 0.
        compact_revision: i64,
        /// The reason in words.
        reason: String,
    },
}

/// What one watch delivered, from its creation to the end of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// The watcher's number. It keeps it when it watches anew.
    pub watcher: u32,
    /// What the watcher is called in texts.
    pub name: String,
    /// The member watched.
    pub member: u8,
    /// What was asked for.
    pub asked: Asked,
    /// It goes on where the same watcher's stretch before it ended.
    pub resumes: bool,
    /// What came, in order.
    pub responses: Vec<Response>,
    /// By now it must have told everything up to this revision; `None` where it ended before
    /// that could be asked of it.
    pub must_be_complete_to: Option<i64>,
}

impl Stretch {
    /// A watch of which nothing has been heard.
    pub fn new(watcher: u32, name: impl Into<String>, member: u8, asked: Asked) -> Self {
        Self {
            watcher,
            name: name.into(),
            member,
            asked,
            resumes: false,
            responses: Vec::new(),
            must_be_complete_to: None,
        }
    }

    /// The first revision that may still come, as far as the responses tell: where a watcher
    /// resumes. `None` before a watch without a first revision has been created.
    pub fn next(&self) -> Option<i64> {
        let mut next = (self.asked.first > 0).then_some(self.asked.first);
        for response in &self.responses {
            let reached = match response {
                Response::Created { revision } if self.asked.first == 0 => Some(*revision),
                Response::Progress { revision } => Some(*revision),
                // More of the last revision may be in a fragment that never came.
                Response::Events { events, fragment: true, .. } => {
                    events.last().map(|event| event.revision - 1)
                }
                Response::Events { events, .. } => events.last().map(|event| event.revision),
                _ => None,
            };
            next = next.max(reached.map(|reached| reached + 1));
        }
        next
    }

    /// Events told.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.responses.iter().flat_map(|response| match response {
            Response::Events { events, .. } => events.as_slice(),
            _ => &[],
        })
    }
}

/// What all watchers saw.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    /// Every watch. Those of one watcher are in the order of time.
    pub stretches: Vec<Stretch>,
    /// When the deletion of a key held by a lease was first seen.
    pub lease_ends: BTreeMap<Key, Moment>,
    /// What no history can explain.
    pub problems: Vec<String>,
    /// Streams opened again.
    pub reopened: u64,
}
