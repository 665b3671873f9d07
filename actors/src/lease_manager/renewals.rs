//! Keep-alives on their way: what this member answers itself, what it must have
//! confirmed first, and what it passes on to the leader.
//!
//! A leader answers at once while its leadership was confirmed a moment ago.
//! Otherwise, and when it does not know the lease, it asks for a read index
//! first: with it, it leads, and everything that was committed is applied, so a
//! lease that another member has just granted is known, too. A follower
//! collects what waits and asks the leader, a few times at once. Without a
//! leader, and after failures, keep-alives wait until their time is over.

use std::collections::BTreeMap;

use super::core::{KeepAlive, LeaseCore};
use crate::shared::{Error, Planted, is_planted};

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct RenewalSettings {
    /// How long a keep-alive may wait.
    pub timeout_ms: u64,
    /// How long a confirmed leadership is believed; well below the election
    /// timeout, before which nobody else can come to lead.
    pub confirm_ms: u64,
    /// After a failure the leader is not asked again for this long.
    pub retry_ms: u64,
    /// Leases in one question.
    pub batch: usize,
    /// Questions under way at a time.
    pub questions: usize,
    /// Keep-alives that wait at a time.
    pub waiting: usize,
}

impl Default for RenewalSettings {
    fn default() -> Self {
        Self {
            timeout_ms: 7000,
            confirm_ms: 500,
            retry_ms: 50,
            batch: 1024,
            questions: 4,
            waiting: 16_384,
        }
    }
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This member, in this term.
    Leader(u64),
    /// The member with this id.
    Follower(u64),
    /// Nobody.
    Leaderless,
}

/// Something to be done for keep-alives that wait for it. The ticket says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a read index; then [`Renewals::confirmed`].
    Confirm {
        /// The keep-alives that wait.
        ticket: u64,
    },
    /// Have the log say that these leases have their full time, in this term
    /// only; then [`Renewals::uncheckpointed`].
    Uncheckpoint {
        /// The keep-alives that wait.
        ticket: u64,
        /// The term.
        term: u64,
        /// The leases.
        ids: Vec<i64>,
    },
    /// Ask the leader to renew these; then [`Renewals::forwarded`].
    Forward {
        /// The keep-alives that wait.
        ticket: u64,
        /// The leader.
        to: u64,
        /// The leases.
        ids: Vec<i64>,
    },
}

/// What is to be done now. `R` is where an answer goes.
#[derive(Debug)]
pub struct Work<R> {
    /// Answers: seconds granted, 0 for a lease there is not.
    pub answers: Vec<(R, Result<i64, Error>)>,
    /// How many leases this member renewed.
    pub renewed: u64,
    /// What must happen before there are more answers.
    pub steps: Vec<Step>,
}

#[derive(Debug)]
struct Asked<R> {
    id: i64,
    reply: R,
    until_ms: u64,
    /// Asked by another member, which will find the leader itself.
    from_peer: bool,
    /// The term in which leadership was confirmed after this was asked.
    confirmed: Option<u64>,
}

#[derive(Debug)]
enum Doing {
    Confirm { begun_ms: u64, term: u64 },
    Uncheckpoint { term: u64 },
    Forward { to: u64 },
}

impl Doing {
    /// Whether it can still come to something while this member has this role.
    fn suits(&self, role: Role) -> bool {
        match (self, role) {
            (Doing::Confirm { term, .. } | Doing::Uncheckpoint { term }, Role::Leader(now)) => {
                *term == now
            }
            (Doing::Forward { to }, Role::Follower(now)) => *to == now,
            _ => false,
        }
    }
}

/// The queue; see the module's text.
#[derive(Debug)]
pub struct Renewals<R> {
    settings: RenewalSettings,
    waiting: Vec<Asked<R>>,
    under_way: BTreeMap<u64, (Doing, Vec<Asked<R>>)>,
    tickets: u64,
    /// When leadership was confirmed last, and in which term.
    confirmed: Option<(u64, u64)>,
    retry_ms: u64,
}

impl<R> Renewals<R> {
    /// An empty queue.
    pub fn new(settings: RenewalSettings) -> Self {
        Self {
            settings,
            waiting: Vec::new(),
            under_way: BTreeMap::new(),
            tickets: 0,
            confirmed: None,
            retry_ms: 0,
        }
    }

    /// Takes a keep-alive in.
    ///
    /// # Errors
    /// The reply, when too many wait.
    pub fn add(&mut self, id: i64, from_peer: bool, reply: R, now_ms: u64) -> Result<(), R> {
        if self.waiting.len() >= self.settings.waiting {
            return Err(reply);
        }
        let until_ms = now_ms + self.settings.timeout_ms;
        self.waiting.push(Asked { id, reply, until_ms, from_peer, confirmed: None });
        Ok(())
    }

    /// Whether anything waits for [`Renewals::work`] to be called again.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.under_way.is_empty()
    }

    /// A read index came, or did not.
    pub fn confirmed(&mut self, ticket: u64, came: bool, now_ms: u64) {
        let Some((Doing::Confirm { begun_ms, term }, mut asked)) = self.under_way.remove(&ticket)
        else {
            return;
        };
        // A member that stood still meanwhile knows nothing of today.
        if came && now_ms.saturating_sub(begun_ms) <= 2 * self.settings.confirm_ms {
            self.confirmed = Some((begun_ms, term));
            asked.iter_mut().for_each(|asked| asked.confirmed = Some(term));
        }
        self.waiting.append(&mut asked);
    }

    /// The log says that the leases have their full time, or could not be made to.
    pub fn uncheckpointed(&mut self, ticket: u64, done: bool, core: &mut LeaseCore) {
        let Some((Doing::Uncheckpoint { term }, mut asked)) = self.under_way.remove(&ticket) else {
            return;
        };
        if done && core.term() == Some(term) {
            for asked in &mut asked {
                core.uncheckpointed(asked.id);
                asked.confirmed = Some(term);
            }
        }
        self.waiting.append(&mut asked);
    }

    /// The leader's answer, or why there is none. Gives the answers to hand on.
    pub fn forwarded(
        &mut self,
        ticket: u64,
        answer: Result<Vec<i64>, Error>,
        now_ms: u64,
    ) -> Vec<(R, Result<i64, Error>)> {
        let Some((Doing::Forward { .. }, mut asked)) = self.under_way.remove(&ticket) else {
            return Vec::new();
        };
        match answer {
            Ok(ttls_s) if ttls_s.len() == asked.len() => asked
                .into_iter()
                .zip(ttls_s)
                .map(|(asked, ttl_s)| (asked.reply, Ok(ttl_s)))
                .collect(),
            _ => {
                self.retry_ms = now_ms + self.settings.retry_ms;
                self.waiting.append(&mut asked);
                Vec::new()
            }
        }
    }

    /// Looks at everything that waits.
    pub fn work(&mut self, core: &mut LeaseCore, role: Role, now_ms: u64) -> Work<R> {
        let mut work = Work { answers: Vec::new(), renewed: 0, steps: Vec::new() };
        self.give_up_what_was_for(role);
        match role {
            Role::Leader(term) => self.renew(core, term, now_ms, &mut work),
            Role::Follower(leader) => {
                self.refuse_peers(&mut work);
                self.forward(leader, now_ms, &mut work);
            }
            Role::Leaderless => self.refuse_peers(&mut work),
        }
        let late = match role {
            Role::Leaderless => Error::NoLeader,
            _ => Error::Timeout,
        };
        for asked in self.waiting.extract_if(.., |asked| asked.until_ms <= now_ms) {
            work.answers.push((asked.reply, Err(late)));
        }
        work
    }

    /// Takes back what waits for somebody who does not lead any more: an answer
    /// would take its time, and to ask twice does no harm.
    fn give_up_what_was_for(&mut self, role: Role) {
        for (_, (_, mut asked)) in self.under_way.extract_if(.., |_, (doing, _)| !doing.suits(role))
        {
            self.waiting.append(&mut asked);
        }
    }

    fn renew(&mut self, core: &mut LeaseCore, term: u64, now_ms: u64, work: &mut Work<R>) {
        let recent = self.confirmed.is_some_and(|(at_ms, in_term)| {
            in_term == term && now_ms.saturating_sub(at_ms) < self.settings.confirm_ms
        });
        let (mut unsure, mut checkpointed) = (Vec::new(), Vec::new());
        for mut asked in std::mem::take(&mut self.waiting) {
            let credulous = is_planted(Planted::LeaseRenewedUnconfirmed);
            let sure = asked.confirmed == Some(term) || credulous;
            if !sure && !recent {
                unsure.push(asked);
                continue;
            }
            match core.keep_alive(asked.id, now_ms) {
                KeepAlive::Renewed(ttl_s) => {
                    work.renewed += 1;
                    work.answers.push((asked.reply, Ok(ttl_s)));
                }
                KeepAlive::Unknown if sure => work.answers.push((asked.reply, Ok(0))),
                KeepAlive::Unknown => unsure.push(asked),
                KeepAlive::Checkpointed => checkpointed.push(asked),
                KeepAlive::Ending => {
                    asked.confirmed = None;
                    self.waiting.push(asked);
                }
            }
        }
        self.have_confirmed(unsure, term, now_ms, work);
        if !checkpointed.is_empty() {
            let ids = checkpointed.iter().map(|asked| asked.id).collect();
            let ticket = self.begin(Doing::Uncheckpoint { term }, checkpointed);
            work.steps.push(Step::Uncheckpoint { ticket, term, ids });
        }
    }

    /// Asks for one read index on behalf of all that need it, unless one is
    /// under way: it may have begun too early for them.
    fn have_confirmed(
        &mut self,
        mut unsure: Vec<Asked<R>>,
        term: u64,
        now_ms: u64,
        work: &mut Work<R>,
    ) {
        let confirming =
            self.under_way.values().any(|(doing, _)| matches!(doing, Doing::Confirm { .. }));
        if confirming || unsure.is_empty() {
            return self.waiting.append(&mut unsure);
        }
        let ticket = self.begin(Doing::Confirm { begun_ms: now_ms, term }, unsure);
        work.steps.push(Step::Confirm { ticket });
    }

    fn forward(&mut self, leader: u64, now_ms: u64, work: &mut Work<R>) {
        let questions = |(doing, _): &&(Doing, _)| matches!(doing, Doing::Forward { .. });
        let mut room = self
            .settings
            .questions
            .saturating_sub(self.under_way.values().filter(questions).count());
        while room > 0 && now_ms >= self.retry_ms && !self.waiting.is_empty() {
            let batch = self.waiting.len().min(self.settings.batch);
            let asked: Vec<Asked<R>> = self.waiting.drain(..batch).collect();
            let ids = asked.iter().map(|asked| asked.id).collect();
            let ticket = self.begin(Doing::Forward { to: leader }, asked);
            work.steps.push(Step::Forward { ticket, to: leader, ids });
            room -= 1;
        }
    }

    fn refuse_peers(&mut self, work: &mut Work<R>) {
        for asked in self.waiting.extract_if(.., |asked| asked.from_peer) {
            work.answers.push((asked.reply, Err(Error::NotLeader)));
        }
    }

    fn begin(&mut self, doing: Doing, asked: Vec<Asked<R>>) -> u64 {
        self.tickets += 1;
        self.under_way.insert(self.tickets, (doing, asked));
        self.tickets
    }
}
