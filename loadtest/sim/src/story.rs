//! What happened, as text for people and as a number for machines.

use raft::eraftpb::Message;

use crate::time::{Nanos, seconds};

/// Lines of the story, if anybody wants to read them, and a digest of everything.
#[derive(Debug, Default)]
pub struct Story {
    verbose: bool,
    /// The lines.
    pub lines: Vec<String>,
    digest: u64,
}

impl Story {
    /// An empty story; nothing but its digest unless it is to be read.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// A number that differs when anything did.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes numbers into the digest.
    pub(crate) fn mix(&mut self, parts: &[u64]) {
        for part in parts {
            let mixed = (self.digest ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.digest = mixed.rotate_left(29);
        }
    }

    /// Adds a line.
    pub(crate) fn tell(&mut self, now: Nanos, line: impl FnOnce() -> String) {
        self.mix(&[now]);
        if self.verbose {
            self.lines.push(format!("{:>14} {}", seconds(now), line()));
        }
    }

    /// Adds a message between members.
    pub(crate) fn message(&mut self, now: Nanos, message: &Message) {
        let Message { from, to, term, index, log_term, commit, reject, .. } = message;
        self.mix(&[now, *from, *to, *term, *index, *log_term, *commit, u64::from(*reject)]);
        self.tell(now, || describe(message));
    }
}

fn describe(message: &Message) -> String {
    let kind = message.msg_type().as_str_name().trim_start_matches("Msg");
    let Message { from, to, term, index, log_term, commit, entries, .. } = message;
    let mut line = format!("m{from} -> m{to} {kind} term {term}");
    if *index > 0 || *log_term > 0 {
        line += &format!(" at {index}/{log_term}");
    }
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        line += &format!(" entries {}..={}", first.index, last.index);
    }
    if *commit > 0 {
        line += &format!(" commit {commit}");
    }
    if message.reject {
        line += &format!(" rejects, hint {}", message.reject_hint);
    }
    line
}
