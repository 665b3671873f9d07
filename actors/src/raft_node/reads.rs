//! Linearizable reads: one read index round for all that wait.

use std::collections::BTreeMap;

use super::messages::ReadReply;
use crate::shared::{Error, Planted, is_planted};

#[derive(Debug)]
struct Read {
    reply: ReadReply,
    since: u64,
}

/// A question to the leader that is not answered yet.
#[derive(Debug)]
struct Round {
    /// Numbers of the contexts it was asked with: the answer to any will do,
    /// since all of them were asked after the reads had come.
    contexts: Vec<u64>,
    leader: u64,
    term: u64,
    asked: u64,
    reads: Vec<Read>,
}

/// Whom a read index can be asked of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Respondent {
    pub(super) leader: u64,
    pub(super) term: u64,
    /// Whether it would be answered: a leader stays silent until it has
    /// committed an entry of its term.
    pub(super) ready: bool,
}

#[derive(Debug)]
pub(super) struct Reads {
    member_id: u64,
    run: u64,
    retry_ticks: u64,
    /// The last context's number. A context is never used twice: raft finds
    /// requests by it and would answer with an old index.
    last_context: u64,
    new: Vec<Read>,
    round: Option<Round>,
    /// Reads that wait for an index to be applied.
    confirmed: BTreeMap<u64, Vec<Read>>,
    slow: u64,
}

impl Reads {
    pub(super) fn new(member_id: u64, run: u64, retry_ticks: u64) -> Self {
        Self {
            member_id,
            run,
            retry_ticks,
            last_context: 0,
            new: Vec::new(),
            round: None,
            confirmed: BTreeMap::new(),
            slow: 0,
        }
    }

    pub(super) fn add(&mut self, reply: ReadReply, now: u64) {
        self.new.push(Read { reply, since: now });
    }

    /// Rounds that had to be asked again because no answer came.
    pub(super) fn slow(&self) -> u64 {
        self.slow
    }

    /// Whether there is anything to ask or to ask again.
    pub(super) fn is_idle(&self) -> bool {
        self.new.is_empty() && self.round.is_none()
    }

    /// The context to ask with, if it is time to ask.
    pub(super) fn ask(&mut self, respondent: Respondent, now: u64) -> Option<Vec<u8>> {
        self.drop_round_of_another_leader(respondent.leader);
        if !respondent.ready {
            return None;
        }
        let again = match &mut self.round {
            Some(round) if round.term != respondent.term => true,
            Some(round) if now >= round.asked + self.retry_ticks => {
                self.slow += 1;
                true
            }
            Some(_) => return None,
            None => false,
        };
        if !again && self.new.is_empty() {
            return None;
        }
        self.last_context += u64::from(!is_planted(Planted::ReadContextReused));
        let context = self.last_context;
        let Respondent { leader, term, .. } = respondent;
        match &mut self.round {
            Some(round) => {
                round.contexts.push(context);
                (round.term, round.asked) = (term, now);
            }
            None => {
                let reads = std::mem::take(&mut self.new);
                let contexts = vec![context];
                self.round = Some(Round { contexts, leader, term, asked: now, reads });
            }
        }
        Some(self.encode(context))
    }

    /// Whoever was asked does not lead any more, and another one does.
    fn drop_round_of_another_leader(&mut self, leader: u64) {
        let other = |round: &mut Round| leader != raft::INVALID_ID && leader != round.leader;
        for read in self.round.take_if(other).into_iter().flat_map(|round| round.reads) {
            read.reply.send(Err(Error::LeaderChanged));
        }
    }

    /// An answer: reads asked with this context see everything when `index` is
    /// applied.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some(number) = self.decode(context) else { return };
        let asked = |round: &mut Round| round.contexts.contains(&number);
        if let Some(round) = self.round.take_if(asked) {
            self.confirmed.entry(index).or_default().extend(round.reads);
        }
    }

    /// Answers the reads whose index is applied.
    pub(super) fn answer(&mut self, applied: u64) {
        while let Some(first) = self.confirmed.first_entry()
            && *first.key() <= applied
        {
            first.remove().into_iter().for_each(|read| read.reply.send(Ok(())));
        }
    }

    /// Gives up what has waited since before `since`.
    pub(super) fn expire(&mut self, since: u64) -> Vec<(u64, ReadReply)> {
        let mut expired: Vec<Read> = Vec::new();
        let old = |read: &mut Read| read.since <= since;
        expired.extend(self.new.extract_if(.., old));
        if let Some(round) = &mut self.round {
            expired.extend(round.reads.extract_if(.., old));
        }
        self.round.take_if(|round| round.reads.is_empty());
        for reads in self.confirmed.values_mut() {
            expired.extend(reads.extract_if(.., old));
        }
        self.confirmed.retain(|_, reads| !reads.is_empty());
        expired.into_iter().map(|read| (read.since, read.reply)).collect()
    }

    fn encode(&self, number: u64) -> Vec<u8> {
        [self.member_id, self.run, number].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn decode(&self, context: &[u8]) -> Option<u64> {
        let (words, rest) = context.as_chunks::<8>();
        let [member_id, run, number] = words else { return None };
        let own = u64::from_le_bytes(*member_id) == self.member_id
            && u64::from_le_bytes(*run) == self.run
            && rest.is_empty();
        own.then(|| u64::from_le_bytes(*number))
    }
}
