//! What a transcript can ask for.

use std::str::FromStr;

use crate::time::{MS, Nanos, SECOND};

/// How long a client waits unless it says so.
const PATIENCE: Nanos = 10 * SECOND;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Found a cluster.
    Members {
        count: u64,
        pre_vote: bool,
        snapshot_every: Option<u64>,
    },
    /// Let time pass.
    Run(Nanos),
    /// Let time pass until a line has these words.
    RunUntil(String),
    /// Nothing arrives from the first at the second.
    Cut(Vec<(u64, u64)>),
    /// A member and all others do not hear each other.
    Isolate(u64),
    /// Everything arrives again.
    Mend,
    Kill(u64),
    /// Whether it catches the log in the middle of a write.
    PowerCut(u64, bool),
    Start(u64),
    Pause(u64),
    Resume(u64),
    StallDisk(u64, Nanos),
    /// The first proposes to the second what a joint configuration begins with.
    ProposeJoint(u64, u64),
    Call(Call),
    /// Make a call so many times.
    Times(u64, Call),
    Show,
    Log(u64),
    /// Tell of heartbeats, or do not.
    Heartbeats(bool),
    /// Do it and tell nothing.
    Quietly(Box<Self>),
}

/// A client's call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// As it was written, without the member.
    pub(super) text: String,
    pub(super) ask: Ask,
    pub(super) member: u64,
    /// How long the client waits.
    pub(super) within: Nanos,
    /// Whether time passes until there is an answer.
    pub(super) waits: bool,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Put {
        key: String,
        value: String,
        lease: i64,
    },
    Delete(String),
    /// At a revision; 0 for the newest.
    Get {
        key: String,
        serializable: bool,
        revision: i64,
    },
    /// If a key has a value, or is absent, put another one.
    Txn {
        key: String,
        expected: Option<String>,
        then: (String, String),
    },
    /// From a revision on; 0 for now.
    Watch {
        keys: String,
        from: i64,
    },
    Grant {
        lease: i64,
        ttl: i64,
    },
    KeepAlive(i64),
    Revoke(i64),
    Compact(i64),
    /// 0 for any member.
    Transfer(u64),
    AddLearner(u64),
    Promote(u64),
    Remove(u64),
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        command(&words)
    }
}

fn command(words: &[&str]) -> Result<Command, String> {
    let found = match words {
        ["quietly", rest @ ..] => Command::Quietly(Box::new(command(rest)?)),
        [times, "times", rest @ ..] => Command::Times(number(times)?, call(rest)?),
        ["members", count, options @ ..] => members(number(count)?, options)?,
        ["run", "until", words @ ..] => Command::RunUntil(words.join(" ")),
        ["run", time] => Command::Run(span(time)?),
        ["cut", one, "->", other] => Command::Cut(vec![(member(one)?, member(other)?)]),
        ["cut", one, other] => {
            let (one, other) = (member(one)?, member(other)?);
            Command::Cut(vec![(one, other), (other, one)])
        }
        ["isolate", id] => Command::Isolate(member(id)?),
        ["mend"] => Command::Mend,
        ["kill", id] => Command::Kill(member(id)?),
        ["power-cut", id] => Command::PowerCut(member(id)?, false),
        ["power-cut", id, "in", "a", "write"] => Command::PowerCut(member(id)?, true),
        ["start", id] => Command::Start(member(id)?),
        ["pause", id] => Command::Pause(member(id)?),
        ["resume", id] => Command::Resume(member(id)?),
        ["stall-disk", id, time] => Command::StallDisk(member(id)?, span(time)?),
        ["propose-joint", from, "to", to] => Command::ProposeJoint(member(from)?, member(to)?),
        ["show"] => Command::Show,
        ["show", "heartbeats"] => Command::Heartbeats(true),
        ["hide", "heartbeats"] => Command::Heartbeats(false),
        ["log", id] => Command::Log(member(id)?),
        _ => Command::Call(call(words)?),
    };
    Ok(found)
}

fn members(count: u64, mut options: &[&str]) -> Result<Command, String> {
    let (mut pre_vote, mut snapshot_every) = (true, None);
    while !options.is_empty() {
        options = match options {
            ["without", "pre-vote", rest @ ..] => {
                pre_vote = false;
                rest
            }
            ["snapshot", "every", entries, rest @ ..] => {
                snapshot_every = Some(number(entries)?);
                rest
            }
            _ => return Err(format!("{:?} is nothing that members can be told", options[0])),
        }
    }
    Ok(Command::Members { count, pre_vote, snapshot_every })
}

fn call(words: &[&str]) -> Result<Call, String> {
    let (waits, words) = match words {
        ["begin", rest @ ..] => (false, rest),
        _ => (true, words),
    };
    let (within, words) = match words {
        [rest @ .., "within", time] => (span(time)?, rest),
        _ => (PATIENCE, words),
    };
    let (ask, id) = ask(words)?;
    let at = format!(" at m{id}");
    let text = words.join(" ").replacen(&at, "", 1);
    Ok(Call { text, ask, member: id, within, waits })
}

fn ask(words: &[&str]) -> Result<(Ask, u64), String> {
    let text = |word: &&str| (*word).to_owned();
    let found = match words {
        ["put", key, size, "bytes", "at", id] => {
            let value = "x".repeat(number(size)?);
            (Ask::Put { key: text(key), value, lease: 0 }, id)
        }
        ["put", key, value, "lease", lease, "at", id] => {
            (Ask::Put { key: text(key), value: text(value), lease: number(lease)? }, id)
        }
        ["put", key, value, "at", id] => {
            (Ask::Put { key: text(key), value: text(value), lease: 0 }, id)
        }
        ["delete", key, "at", id] => (Ask::Delete(text(key)), id),
        ["get", key, "at", id, how @ ..] => (get(text(key), how)?, id),
        ["txn", "if", key, "=", value, "put", other, new, "at", id] => {
            let then = (text(other), text(new));
            (Ask::Txn { key: text(key), expected: Some(text(value)), then }, id)
        }
        ["txn", "if", key, "absent", "put", other, new, "at", id] => {
            (Ask::Txn { key: text(key), expected: None, then: (text(other), text(new)) }, id)
        }
        ["watch", keys, "at", id] => (Ask::Watch { keys: text(keys), from: 0 }, id),
        ["watch", keys, "at", id, "from", from] => {
            (Ask::Watch { keys: text(keys), from: number(from)? }, id)
        }
        ["grant", "lease", lease, "ttl", ttl, "at", id] => {
            let ttl = i64::try_from(span(ttl)? / SECOND).map_err(|error| error.to_string())?;
            (Ask::Grant { lease: number(lease)?, ttl }, id)
        }
        ["keep-alive", lease, "at", id] => (Ask::KeepAlive(number(lease)?), id),
        ["revoke", lease, "at", id] => (Ask::Revoke(number(lease)?), id),
        ["compact", revision, "at", id] => (Ask::Compact(number(revision)?), id),
        ["transfer", id, "to", "any"] => (Ask::Transfer(0), id),
        ["transfer", id, "to", other] => (Ask::Transfer(member(other)?), id),
        ["add-learner", new, "at", id] => (Ask::AddLearner(member(new)?), id),
        ["promote", learner, "at", id] => (Ask::Promote(member(learner)?), id),
        ["remove", old, "at", id] => (Ask::Remove(member(old)?), id),
        _ => return Err(format!("cannot read {:?}", words.join(" "))),
    };
    Ok((found.0, member(found.1)?))
}

fn get(key: String, how: &[&str]) -> Result<Ask, String> {
    match how {
        [] => Ok(Ask::Get { key, serializable: false, revision: 0 }),
        ["serializable"] => Ok(Ask::Get { key, serializable: true, revision: 0 }),
        ["revision", revision] => {
            Ok(Ask::Get { key, serializable: false, revision: number(revision)? })
        }
        _ => Err(format!("cannot read {:?}", how.join(" "))),
    }
}

fn number<N: FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

fn member(word: &str) -> Result<u64, String> {
    let id = word.strip_prefix('m').and_then(|id| id.parse().ok());
    id.filter(|id| (1..=9).contains(id)).ok_or_else(|| format!("{word:?} is no member, as m1 is"))
}

fn span(word: &str) -> Result<Nanos, String> {
    let (digits, unit) = match (word.strip_suffix("ms"), word.strip_suffix('s')) {
        (Some(digits), _) => (digits, MS),
        (None, Some(digits)) => (digits, SECOND),
        (None, None) => return Err(format!("{word:?} is no time, as 200ms and 5s are")),
    };
    Ok(number::<Nanos>(digits)? * unit)
}
