//! One watch of a stream: what it was asked for, and what it has told.

use crate::chance::Chance;
use castd_check::{Asked, Event, Key, LEASE_KEYS, Response, Stretch};
use castd_proto::etcdserverpb::watch_create_request::FilterType;
use castd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use castd_proto::mvccpb::event::EventType;
use rand::Rng;

use crate::keys;

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be asked for.
    Planned,
    /// To be created.
    Asked,
    /// For what happens.
    Live,
    /// For its cancellation, which it has asked for.
    Leaving,
}

/// A watch.
pub(super) struct Watch {
    number: u32,
    asked: Asked,
    progress_notify: bool,
    fragment: bool,
    pub(super) state: State,
    /// Its id on the stream, once it is created.
    pub(super) id: i64,
    resumes: bool,
    /// What it has told since it was last asked for.
    stretch: Option<Stretch>,
    /// The first revision of which it may not know everything.
    next: Option<i64>,
}

/// What a response led to.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing special.
    Something,
    /// The watch has ended and goes on as planned.
    Ended,
    /// Something that must not be.
    Wrong(String),
}

impl Watch {
    /// Draws one, of the keys below `keys` and of a history up to `revision`.
    pub(super) fn draw(number: u32, chance: &mut Chance, keys: Key, revision: i64) -> Self {
        let keys = match chance.random_range(0..10) {
            0..4 => 0..=Key::MAX,
            4..6 => LEASE_KEYS..=Key::MAX,
            6..8 => {
                let key = chance.random_range(0..keys);
                key..=key
            }
            _ => {
                let first = chance.random_range(0..keys);
                first..=chance.random_range(first..keys)
            }
        };
        let first = match chance.random_range(0..10) {
            0..4 => 0,
            4..8 => chance.random_range(1..=revision.max(1)),
            _ => revision + chance.random_range(1..20),
        };
        let (no_put, no_delete) = (chance.random_bool(0.1), chance.random_bool(0.1));
        let asked = Asked { keys, first, no_put, no_delete, prev_kv: chance.random_bool(0.5) };
        Self {
            number,
            asked,
            progress_notify: chance.random_bool(0.5),
            fragment: chance.random_bool(0.5),
            state: State::Planned,
            id: 0,
            resumes: false,
            stretch: None,
            next: None,
        }
    }

    /// The request for it; `id` 0 leaves the choice to the member.
    pub(super) fn request(&self, id: i64) -> WatchCreateRequest {
        let Asked { keys, first, no_put, no_delete, prev_kv } = &self.asked;
        let mut filters = Vec::new();
        if *no_put {
            filters.push(FilterType::Noput.into());
        }
        if *no_delete {
            filters.push(FilterType::Nodelete.into());
        }
        let single = keys.start() == keys.end();
        WatchCreateRequest {
            key: keys::key(*keys.start()),
            range_end: if single { Default::default() } else { keys::behind(*keys.end()) },
            start_revision: *first,
            progress_notify: self.progress_notify,
            filters,
            prev_kv: *prev_kv,
            watch_id: id,
            fragment: self.fragment,
        }
    }

    /// It was asked for at a member.
    pub(super) fn begin(&mut self, member: u8) {
        let name = match (self.progress_notify, self.fragment) {
            (true, true) => "told its progress, in fragments",
            (true, false) => "told its progress",
            (false, true) => "in fragments",
            (false, false) => "plain",
        };
        let mut stretch = Stretch::new(self.number, name, member, self.asked.clone());
        stretch.resumes = self.resumes;
        self.next = (self.asked.first > 0).then_some(self.asked.first);
        self.stretch = Some(stretch);
        self.state = State::Asked;
    }

    /// Its stream has ended: what it told, if it was asked for at all. It is to go on
    /// from there.
    pub(super) fn break_off(&mut self) -> Option<Stretch> {
        if self.state == State::Planned {
            return None;
        }
        self.state = State::Planned;
        self.go_on();
        self.stretch.take()
    }

    fn go_on(&mut self) {
        self.resumes = self.next.is_some();
        self.asked.first = self.next.unwrap_or(self.asked.first);
    }

    /// It begins anew at a revision, leaving out what was between.
    fn skip_to(&mut self, first: i64) {
        self.resumes = false;
        self.asked.first = first;
    }

    /// Takes what was told so far and no more.
    pub(super) fn take_stretch(&mut self) -> Option<Stretch> {
        self.stretch.take()
    }

    /// Whether it has told everything up to a revision.
    pub(super) fn has_reached(&self, revision: i64) -> bool {
        self.state == State::Live && self.next.is_some_and(|next| next > revision)
    }

    /// How far it is, for people.
    pub(super) fn describe(&self) -> String {
        let Self { number, state, next, asked, .. } = self;
        format!("watch {number} {state:?} {asked:?} next {next:?}")
    }

    fn note(&mut self, response: Response, reached: Option<i64>) {
        if let Some(stretch) = &mut self.stretch {
            stretch.responses.push(response);
        }
        self.next = self.next.max(reached.map(|reached| reached + 1));
    }

    /// All watches of the stream have told everything up to a revision.
    pub(super) fn progress(&mut self, revision: i64) {
        if matches!(self.state, State::Live | State::Leaving) {
            self.note(Response::Progress { revision }, Some(revision));
        }
    }

    /// Takes a response that is its own.
    pub(super) fn take(&mut self, response: &WatchResponse) -> Heard {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            return self.created(revision, response);
        }
        if response.canceled {
            return self.canceled(response);
        }
        if response.events.is_empty() {
            self.note(Response::Progress { revision }, Some(revision));
            return Heard::Something;
        }
        let events: Vec<Event> = response.events.iter().map(event).collect();
        let last = events.last().map(|event| event.revision);
        let reached = last.map(|last| if response.fragment { last - 1 } else { last });
        self.note(Response::Events { revision, events, fragment: response.fragment }, reached);
        Heard::Something
    }

    fn created(&mut self, revision: i64, response: &WatchResponse) -> Heard {
        if response.canceled {
            return Heard::Wrong(format!(
                "{} was refused: {}",
                self.describe(),
                response.cancel_reason
            ));
        }
        self.id = response.watch_id;
        self.state = State::Live;
        let reached = (self.asked.first == 0).then_some(revision);
        self.note(Response::Created { revision }, reached);
        Heard::Something
    }

    fn canceled(&mut self, response: &WatchResponse) -> Heard {
        let compact_revision = response.compact_revision;
        let reason = response.cancel_reason.clone();
        if compact_revision == 0 && self.state != State::Leaving {
            return Heard::Wrong(format!("{} was cancelled unasked: {reason:?}", self.describe()));
        }
        self.note(Response::Canceled { compact_revision, reason }, None);
        self.state = State::Planned;
        match compact_revision {
            0 => self.go_on(),
            first => self.skip_to(first),
        }
        Heard::Ended
    }
}

fn event(event: &castd_proto::mvccpb::Event) -> Event {
    let pair = event.kv.clone().unwrap_or_default();
    Event {
        revision: pair.mod_revision,
        key: keys::number(&pair.key),
        now: (event.r#type() == EventType::Put).then(|| keys::kv(&pair)),
        before: event.prev_kv.as_ref().map(keys::kv),
    }
}
