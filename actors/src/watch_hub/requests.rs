//! What streams ask for: watchers, their end, and how far all is.

use bytes::Bytes;
use castd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use smallvec::smallvec;

use super::cohort::{Cohort, Seat, Watcher, Way};
use super::core::{HubCore, Outbox, number};
use super::{StreamId, StreamRequest};
use crate::mvcc::KeyRange;
use crate::shared::Error;

/// The id in responses that concern no watcher, or all of a stream.
pub(super) const NO_WATCHER: i64 = -1;

impl HubCore {
    /// Takes a stream's requests. `newest` is the newest revision that any client
    /// can know of, even if the hub has not handed out everything up to there.
    pub fn ask(
        &mut self,
        stream: StreamId,
        requests: &[StreamRequest],
        newest: i64,
        out: &mut impl Outbox,
    ) {
        let Some(slot) = self.slot(stream) else { return out.answered(stream) };
        for request in requests {
            let answer = match request {
                StreamRequest::Create(request) => Some(self.create(slot, request, newest)),
                StreamRequest::Cancel(id) => self.cancel(slot, *id),
                StreamRequest::Progress => {
                    self.ask_progress(slot, newest);
                    None
                }
            };
            if let Some(answer) = answer {
                self.streams[slot].answers.message(&answer);
            }
        }
        if self.streams[slot].answers.is_empty() {
            return out.answered(stream);
        }
        self.rouse(slot);
    }

    /// Begins a watcher. One without a start begins behind `newest`.
    fn create(&mut self, slot: u32, request: &WatchCreateRequest, newest: i64) -> WatchResponse {
        let header = Some(self.header(newest));
        let created = WatchResponse { header, created: true, ..WatchResponse::default() };
        let refused = |reason: &str| WatchResponse {
            watch_id: NO_WATCHER,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..created.clone()
        };
        let Some(range) = watched_range(request) else {
            return refused("mvcc: watcher range is empty");
        };
        if request.start_revision < 0 {
            return refused(&Error::Compacted.to_string());
        }
        let stream = &mut self.streams[slot];
        let id = match request.watch_id {
            0 => stream.free_id(),
            id if stream.watchers.contains_key(&id) => {
                return refused("mvcc: duplicate watch ID provided on the WatchStream");
            }
            id => id,
        };
        if request.progress_notify {
            stream.notify.insert(id);
        }
        let watcher = Watcher { id, spoken: false };
        let next = if request.start_revision == 0 { newest + 1 } else { request.start_revision };
        self.seat(slot, &range, Way::of(request), next, watcher);
        self.backlog.watchers(1);
        WatchResponse { watch_id: id, ..created }
    }

    /// Puts a watcher into a cohort that is as far, or into a new one.
    fn seat(&mut self, slot: u32, range: &KeyRange, way: Way, next: i64, watcher: Watcher) {
        let group = self.groups.of(range);
        let revision = self.view.revision();
        let stream = &mut self.streams[slot];
        let main = stream.mains.get(&(group, way)).copied();
        if let Some(main) = main
            && self.cohorts[main].is_at(next, revision)
        {
            let watchers = &mut self.cohorts[main].watchers;
            stream.watchers.insert(watcher.id, (main, number(watchers.len())));
            watchers.push(watcher);
            return;
        }
        if let Some(beginner) = stream.beginners.get(&(group, way, next)).copied() {
            // What it reads from the store is read once for all of them.
            let watchers = &mut self.cohorts[beginner].watchers;
            stream.watchers.insert(watcher.id, (beginner, number(watchers.len())));
            watchers.push(watcher);
            self.backlog.enter(1, next);
            return;
        }
        let cohort = self.cohorts.insert_with(|cohort| Cohort {
            stream: slot,
            group,
            way,
            place: self.groups.join(group, cohort, way),
            next,
            queued: false,
            from_store: false,
            watchers: smallvec![watcher],
        });
        stream.watchers.insert(watcher.id, (cohort, 0));
        // One that begins later than others is no cohort for them.
        if main.is_none_or(|main| self.cohorts[main].next > revision + 1) {
            stream.mains.insert((group, way), cohort);
        }
        self.queue(cohort, next, true);
        if self.cohorts[cohort].queued {
            self.streams[slot].beginners.insert((group, way, next), cohort);
        }
    }

    /// Ends a watcher; nothing is said of one that is not there.
    fn cancel(&mut self, slot: u32, id: i64) -> Option<WatchResponse> {
        let stream = &mut self.streams[slot];
        let seat = stream.watchers.remove(&id)?;
        stream.notify.remove(&id);
        self.unseat(slot, seat);
        self.backlog.watchers(-1);
        let header = Some(self.header(self.view.revision()));
        Some(WatchResponse { header, watch_id: id, canceled: true, ..Default::default() })
    }

    fn unseat(&mut self, slot: u32, (at, mut place): Seat) {
        let cohort = &mut self.cohorts[at];
        let stream = &mut self.streams[slot];
        if cohort.queued {
            self.backlog.leave(1, cohort.next);
        }
        // Those who have the present response stand in front of those who have not.
        if let Some(sending) = &mut stream.sending
            && sending.cohort == at
            && place < sending.served
        {
            sending.served -= 1;
            if place != sending.served {
                cohort.watchers.swap(place as usize, sending.served as usize);
                stream.watchers.insert(cohort.watchers[place as usize].id, (at, place));
                place = sending.served;
            }
        }
        cohort.watchers.swap_remove(place as usize);
        if let Some(moved) = cohort.watchers.get(place as usize) {
            stream.watchers.insert(moved.id, (at, place));
        }
        if cohort.watchers.is_empty() && !cohort.queued {
            self.disband(at);
        }
    }

    /// Removes a cohort that has no watchers and waits for no turn.
    pub(super) fn disband(&mut self, at: u32) {
        let cohort = &self.cohorts[at];
        let key = (cohort.group, cohort.way);
        let mains = &mut self.streams[cohort.stream].mains;
        if mains.get(&key) == Some(&at) {
            mains.remove(&key);
        }
        self.dissolve(at);
    }

    fn ask_progress(&mut self, slot: u32, newest: i64) {
        let stream = &mut self.streams[slot];
        let revision = self.view.revision();
        if let Some((_, last)) = &mut stream.progress {
            *last = newest.max(*last);
            return;
        }
        stream.progress = Some((newest, newest));
        if newest <= revision {
            self.rouse(slot);
        } else {
            self.progress_asked.push(slot);
        }
    }
}

/// What a request wants to watch: an empty key is the first possible one.
fn watched_range(request: &WatchCreateRequest) -> Option<KeyRange> {
    let key = match request.key.is_empty() {
        true => Bytes::from_static(b"\0"),
        false => request.key.clone(),
    };
    match KeyRange::new(&key, &request.range_end) {
        KeyRange::Between(from, to) if from >= to => None,
        range => Some(range),
    }
}
