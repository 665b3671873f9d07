//! Turns: a stream that has room is sent one chunk, then it is another one's turn.

use std::mem;

use castd_proto::etcdserverpb::WatchResponse;

use super::StreamId;
use super::cohort::{Sending, Watcher};
use super::core::{HubCore, Outbox, Room};
use super::encode::{ChunkBuilder, Head, Section, encode, encode_with_previous};
use super::lines::{HISTORY_COST, Line};
use super::requests::NO_WATCHER;
use crate::shared::{Planted, is_planted};

/// So often a turn looks at a cohort, which may have nothing that is wanted. A chunk
/// has space for fewer that have something.
const STEPS: usize = 1024;

/// Why a watcher is ended that asked for more than can be sent.
const TOO_LARGE: &str = "castd: the events of one revision are larger than a response can be";

/// What a cohort is to be told next.
enum Next {
    /// These events, which are all it wants up to this revision.
    Events(Section, i64),
    /// That is not in its group's log any more: it reads from the store from now on.
    Older,
    /// That what it has not seen is gone.
    Compacted,
    /// One revision's events are more than a response can have.
    TooLarge,
}

impl HubCore {
    /// Serves the stream whose turn it is. Answers what that cost: 1 for a usual
    /// turn, more when history was read, 0 when there is no stream to serve.
    pub fn turn(&mut self, out: &mut impl Outbox) -> usize {
        let Some((line, (slot, id))) = self.lines.pop() else { return 0 };
        let cost = self.turn_of(line, slot, id, out);
        self.lines.charge(line, cost);
        cost
    }

    fn turn_of(&mut self, line: Line, slot: u32, id: StreamId, out: &mut impl Outbox) -> usize {
        let stream = self.streams.get_mut(slot).filter(|stream| stream.id == id);
        // It may have ended, and another one have its slot.
        let Some(stream) = stream else { return 1 };
        stream.in_line[line as usize] = false;
        if stream.waiting || !stream.wants_a_turn(line, self.view.revision()) {
            return 1;
        }
        if !out.has_room(id, stream.needs) {
            stream.waiting = true;
            out.await_room(id, stream.needs);
            return 1;
        }
        let mut chunk = mem::take(&mut stream.answers);
        if !chunk.is_empty() {
            out.answered(id);
        }
        let cost = if self.fill(slot, line, &mut chunk) { HISTORY_COST } else { 1 };
        let stream = &mut self.streams[slot];
        stream.needs = if chunk.is_large() { Room::All } else { Room::Any };
        if !chunk.is_empty() {
            out.send(id, chunk.build());
        }
        self.rouse(slot);
        cost
    }

    /// Puts into a chunk what the stream's cohorts have to be told, in a turn of
    /// this line. Answers whether a piece of history was read for that: one is, in
    /// a turn of history.
    fn fill(&mut self, slot: u32, line: Line, chunk: &mut ChunkBuilder) -> bool {
        let mut has_read = false;
        for _ in 0..STEPS {
            let stream = &self.streams[slot];
            let sending = stream.sending.as_ref().map(|sending| sending.cohort);
            let next = sending.or_else(|| stream.queue(line).front().copied());
            let Some(number) = next else { break };
            let cohort = &self.cohorts[number];
            if sending.is_none() && cohort.watchers.is_empty() {
                // They were cancelled while they waited.
                let next = cohort.next;
                self.advance(slot, number, next);
                continue;
            }
            if !chunk.takes_events() {
                break;
            }
            if sending.is_none() {
                if line == Line::History && mem::replace(&mut has_read, true) {
                    break;
                }
                self.streams[slot].begin(&self.cohorts[number], number);
                match self.next_section(number) {
                    Next::Events(section, upto) => {
                        let sending = Sending { cohort: number, section, upto, served: 0 };
                        self.streams[slot].sending = Some(sending);
                    }
                    Next::Older => {
                        self.fall_behind(slot, number);
                        continue;
                    }
                    Next::Compacted => {
                        let compact_revision = self.compact_revision;
                        self.end_front(slot, number, chunk, compact_revision, "");
                        continue;
                    }
                    Next::TooLarge => {
                        self.end_front(slot, number, chunk, 0, TOO_LARGE);
                        continue;
                    }
                }
            }
            if !self.send(slot, number, chunk) {
                break;
            }
        }
        self.tell_progress(slot, chunk);
        has_read
    }

    /// The front cohort of the present reads from the store from now on.
    fn fall_behind(&mut self, slot: u32, number: u32) {
        self.cohorts[number].from_store = true;
        let stream = &mut self.streams[slot];
        stream.queue_mut(Line::Present).pop_front();
        stream.queue_mut(Line::History).push_back(number);
    }

    /// What comes next for a cohort: from its group's log, or from the store when
    /// it is too far behind for that.
    fn next_section(&mut self, number: u32) -> Next {
        let cohort = &mut self.cohorts[number];
        let (section, upto) = if cohort.from_store {
            if cohort.next < self.compact_revision {
                if !is_planted(Planted::WatchSkipsCompacted) {
                    return Next::Compacted;
                }
                cohort.next = self.compact_revision;
            }
            self.read_store(number)
        } else {
            let revision = self.view.revision();
            let group = self.groups.get_mut(cohort.group);
            let read = group.section(cohort.way, cohort.next, revision);
            let Some(read) = read else { return Next::Older };
            read
        };
        if section.is_sendable() { Next::Events(section, upto) } else { Next::TooLarge }
    }

    /// A piece of history for a cohort, and the last revision it tells of.
    fn read_store(&self, number: u32) -> (Section, i64) {
        let cohort = &self.cohorts[number];
        let range = self.groups.get(cohort.group).range();
        let piece = self.settings.piece;
        let changes = self.view.changes(&range, cohort.next, piece);
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, 0);
        for record in &changes.records {
            let main = record.revision.main;
            // What was before a change may be much larger than the change.
            if bytes >= piece.bytes && main != last {
                return (Section::of(&events), last);
            }
            last = main;
            if cohort.way.wants(record.is_tombstone()) {
                let event = match cohort.way.prev_kv {
                    true => encode_with_previous(record, &self.view),
                    false => encode(record, None),
                };
                bytes += event.len();
                events.push(event);
            }
        }
        let synced = changes.next > self.view.revision();
        let skipped = i64::from(synced && is_planted(Planted::WatchSkipsAtSync));
        (Section::of(&events), changes.next - 1 + skipped)
    }

    /// Sends the front cohort's response to those of its watchers who have not got
    /// it, as far as the chunk has space. Whether all have it.
    fn send(&mut self, slot: u32, number: u32, chunk: &mut ChunkBuilder) -> bool {
        self.renew_head();
        let cohort = &mut self.cohorts[number];
        let stream = &mut self.streams[slot];
        let Some(sending) = &mut stream.sending else { return true };
        if !sending.section.is_empty() {
            let fragment = cohort.way.fragment.then_some(self.settings.fragment_bytes);
            let before = sending.served;
            let waiting = &mut cohort.watchers[before as usize..];
            chunk.expect(&sending.section, waiting.len());
            for watcher in waiting {
                if !chunk.events(&self.head.2, watcher.id, &sending.section, fragment) {
                    break;
                }
                watcher.spoken = true;
                sending.served += 1;
            }
            let served = (sending.served - before) as usize;
            self.backlog.sent(served * sending.section.events());
            if (sending.served as usize) < cohort.watchers.len() {
                return false;
            }
        }
        let upto = sending.upto;
        stream.sending = None;
        self.advance(slot, number, upto + 1);
        true
    }

    /// The front cohort has been sent everything before `next`.
    fn advance(&mut self, slot: u32, number: u32, next: i64) {
        let cohort = &mut self.cohorts[number];
        let stream = &mut self.streams[slot];
        stream.queue_mut(cohort.line()).pop_front();
        stream.begin(cohort, number);
        self.backlog.advance_some(cohort.watchers.len(), cohort.next, next);
        cohort.next = next;
        if next <= self.view.revision() && !cohort.watchers.is_empty() {
            // It may have come so far that the log has the rest.
            cohort.from_store &= !self.groups.get(cohort.group).reaches(next);
            // Others of this stream come first.
            stream.queue_mut(cohort.line()).push_back(number);
            return;
        }
        cohort.queued = false;
        cohort.from_store = false;
        self.backlog.leave(cohort.watchers.len(), next);
        self.groups.leave(cohort.group);
        self.settle(slot, number);
    }

    /// A cohort that has everything joins the main one, if that has everything too.
    fn settle(&mut self, slot: u32, number: u32) {
        let revision = self.view.revision();
        let cohort = &self.cohorts[number];
        if cohort.watchers.is_empty() {
            return self.disband(number);
        }
        let stream = &mut self.streams[slot];
        let main = *stream.mains.entry((cohort.group, cohort.way)).or_insert(number);
        if self.cohorts[main].next > revision + 1 {
            // It begins later than others: no cohort for them.
            stream.mains.insert((cohort.group, cohort.way), number);
            return;
        }
        if main == number || !self.cohorts[main].is_at(cohort.next, revision) {
            return;
        }
        let lengths = [main, number].map(|at| self.cohorts[at].watchers.len());
        let (from, to) = if lengths[0] < lengths[1] { (main, number) } else { (number, main) };
        stream.mains.insert((cohort.group, cohort.way), to);
        let movers = mem::take(&mut self.cohorts[from].watchers);
        let watchers = &mut self.cohorts[to].watchers;
        for watcher in movers {
            stream.watchers.insert(watcher.id, (to, super::core::number(watchers.len())));
            watchers.push(watcher);
        }
        self.disband(from);
    }

    /// Ends watchers of the front cohort, as many as the chunk has space for.
    fn end_front(
        &mut self,
        slot: u32,
        number: u32,
        chunk: &mut ChunkBuilder,
        compact_revision: i64,
        reason: &str,
    ) {
        // As etcd has it for what is compacted: no reason in words, and no revision
        // in the header.
        let header = Some(self.header(0));
        let cohort = &mut self.cohorts[number];
        let stream = &mut self.streams[slot];
        while chunk.takes_events()
            && let Some(Watcher { id, .. }) = cohort.watchers.pop()
        {
            chunk.end(&WatchResponse {
                header,
                watch_id: id,
                canceled: true,
                compact_revision,
                cancel_reason: reason.to_owned(),
                ..WatchResponse::default()
            });
            stream.watchers.remove(&id);
            stream.notify.remove(&id);
            self.backlog.leave(1, cohort.next);
            self.backlog.watchers(-1);
        }
    }

    /// Tells how far the stream is, and single watchers, if it is time for that.
    fn tell_progress(&mut self, slot: u32, chunk: &mut ChunkBuilder) {
        let revision = self.view.revision();
        let stream = &self.streams[slot];
        if let Some((first, last)) = stream.progress {
            let behind = stream.queued().map(|at| self.cohorts[at].next).min();
            let hasty = is_planted(Planted::ProgressAheadOfEvents);
            let reached = behind.filter(|_| !hasty).map_or(revision, |next| next - 1);
            if stream.watchers.is_empty() {
                self.streams[slot].progress = None;
            } else if reached >= first && chunk.has_space() {
                let header = Some(self.header(reached));
                let watch_id = NO_WATCHER;
                chunk.message(&WatchResponse { header, watch_id, ..WatchResponse::default() });
                self.streams[slot].progress = (reached < last).then_some((last, last));
                if revision < last {
                    self.progress_asked.push(slot);
                }
            }
        }
        self.notify(slot, chunk);
    }

    /// Goes on with a round of telling silent watchers how far they are.
    fn notify(&mut self, slot: u32, chunk: &mut ChunkBuilder) {
        let revision = self.view.revision();
        let header = Some(self.header(revision));
        let stream = &mut self.streams[slot];
        let Some(begin) = stream.notifying else { return };
        for id in stream.notify.range(begin..) {
            if !chunk.has_space() {
                stream.notifying = Some(*id);
                return;
            }
            let Some((at, place)) = stream.watchers.get(id) else { continue };
            let cohort = &mut self.cohorts[*at];
            let silent = !mem::take(&mut cohort.watchers[*place as usize].spoken);
            if silent && !cohort.queued && cohort.next <= revision + 1 {
                let watch_id = *id;
                chunk.message(&WatchResponse { header, watch_id, ..WatchResponse::default() });
            }
        }
        stream.notifying = None;
    }

    /// Encodes the header of events anew when it says something else now.
    fn renew_head(&mut self) {
        let (revision, term) = (self.view.revision(), self.term);
        if (self.head.0, self.head.1) != (revision, term) {
            self.head = (revision, term, Head::new(&self.header(revision)));
        }
    }
}
