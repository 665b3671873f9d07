//! What happened, as text for people and as a number for machines.

use raft::eraftpb::{Message, MessageType};

use crate::time::{Nanos, seconds};

/// Lines of the story, if anybody wants to read them, and a digest of everything.
#[derive(Debug, Default)]
pub struct Story {
    verbose: bool,
    /// The lines.
    pub lines: Vec<String>,
    /// What happened since somebody looked, for who follows it step by step.
    scene: Option<Vec<Told>>,
    digest: u64,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) at: Nanos,
    pub(crate) text: String,
    /// A message that says no more than that somebody is there.
    pub(crate) is_beat: bool,
}

impl Story {
    /// An empty story; nothing but its digest unless it is to be read.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// A story that is followed step by step.
    pub(crate) fn followed() -> Self {
        Self { scene: Some(Vec::new()), ..Self::default() }
    }

    /// What happened since this was last asked, if the story is followed.
    pub(crate) fn take_scene(&mut self) -> Vec<Told> {
        self.scene.as_mut().map(std::mem::take).unwrap_or_default()
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
        self.add(now, false, line);
    }

    fn add(&mut self, at: Nanos, is_beat: bool, line: impl FnOnce() -> String) {
        if !self.verbose && self.scene.is_none() {
            return;
        }
        let text = line();
        if self.verbose {
            self.lines.push(format!("{:>14} {text}", seconds(at)));
        }
        if let Some(scene) = &mut self.scene {
            scene.push(Told { at, text, is_beat });
        }
    }

    /// Adds a message between members.
    pub(crate) fn message(&mut self, now: Nanos, message: &Message) {
        let Message { from, to, term, index, log_term, commit, reject, .. } = message;
        self.mix(&[now, *from, *to, *term, *index, *log_term, *commit, u64::from(*reject)]);
        self.mix(&[now]);
        self.add(now, is_beat(message), || describe(message));
    }

    /// Adds a message that did not arrive. That it did not is in the digest already, as
    /// nothing comes of it.
    pub(crate) fn lost(&mut self, now: Nanos, message: impl FnOnce() -> Message) {
        if self.verbose || self.scene.is_some() {
            let message = message();
            self.add(now, is_beat(&message), || format!("{} (lost)", describe(&message)));
        }
    }
}

/// Whether a message is a heartbeat, or the answer to one, that confirms no read.
fn is_beat(message: &Message) -> bool {
    let kind = message.msg_type();
    let beats = matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse);
    beats && message.context.is_empty()
}

fn describe(message: &Message) -> String {
    let kind = message.msg_type().as_str_name().trim_start_matches("Msg");
    let Message { from, to, term, index, log_term, commit, entries, .. } = message;
    let mut line = format!("m{from} -> m{to} {kind}");
    // What is passed on to a leader has no term.
    if *term > 0 {
        line += &format!(" term {term}");
    }
    let appended = message.msg_type() == MessageType::MsgAppendResponse;
    if message.reject && appended {
        line += &format!(" rejects {index}, hint {}/{log_term}", message.reject_hint);
    } else if *log_term > 0 {
        line += &format!(" at {index}/{log_term}");
    } else if *index > 0 {
        line += &format!(" up to {index}");
    }
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        // What is proposed has no index yet.
        line += &match (first.index, last.index) {
            (0, _) => String::new(),
            (first, last) if first == last => format!(" entry {first}"),
            (first, last) => format!(" entries {first}..={last}"),
        };
    }
    if *commit > 0 {
        line += &format!(" commit {commit}");
    }
    if !message.context.is_empty() && kind.starts_with("Heartbeat") {
        line += " for a read";
    }
    if message.reject && !appended {
        line += " rejects";
    }
    line
}
