//! Messages that say no more than a later one are left out.

use std::collections::HashMap;

use raft::eraftpb::{Message, MessageType};

/// Drops acknowledgements of entries and of heartbeats, and news of commits, that a
/// later message to the same member repeats. Any message may be lost, so any may be dropped;
/// under load this halves what the leader has to read.
pub(super) fn coalesce(messages: &mut Vec<Message>) {
    if messages.len() < 2 {
        return;
    }
    let mut later: HashMap<(u64, MessageType), (u64, u64)> = HashMap::new();
    let mut kept = Vec::with_capacity(messages.len());
    for message in messages.drain(..).rev() {
        let kind = message.msg_type();
        let reach = match kind {
            MessageType::MsgAppendResponse if !message.reject => message.index,
            MessageType::MsgAppend => message.commit,
            // One with a context also answers a round of reads.
            MessageType::MsgHeartbeatResponse if message.context.is_empty() => message.commit,
            _ => {
                kept.push(message);
                continue;
            }
        };
        let droppable = message.entries.is_empty();
        match later.get(&(message.to, kind)) {
            Some(&(term, most)) if droppable && term == message.term && reach <= most => {}
            _ => {
                later.insert((message.to, kind), (message.term, reach));
                kept.push(message);
            }
        }
    }
    kept.reverse();
    *messages = kept;
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn message(kind: MessageType, to: u64, index: u64) -> Message {
        let mut message = Message { to, term: 3, index, commit: index, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    #[test]
    fn what_a_later_message_says_is_left_out() {
        use MessageType::{MsgAppend, MsgAppendResponse, MsgHeartbeat};
        let mut full = message(MsgAppend, 2, 5);
        full.entries.push(Entry::default());
        let rejection = Message { reject: true, ..message(MsgAppendResponse, 1, 4) };
        let mut messages = vec![
            message(MsgAppendResponse, 1, 4),
            message(MsgAppend, 2, 4),
            message(MsgAppend, 3, 4),
            full.clone(),
            rejection.clone(),
            message(MsgHeartbeat, 2, 4),
            message(MsgAppend, 2, 6),
            message(MsgAppendResponse, 1, 7),
        ];
        coalesce(&mut messages);
        let expected = vec![
            message(MsgAppend, 3, 4),
            full,
            rejection,
            message(MsgHeartbeat, 2, 4),
            message(MsgAppend, 2, 6),
            message(MsgAppendResponse, 1, 7),
        ];
        assert_eq!(messages, expected);
    }
}
