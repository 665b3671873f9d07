//! Transcripts: scenarios as text, to be read and to be run.
//!
//! A transcript is a file of blocks. A block holds commands, one a line, below them a line
//! `----`, and below that what happened while they were carried out, up to an empty line.
//! Lines that begin with `#` are for readers. The members are the real ones, in a world in
//! which nothing is left to chance: a message between members takes 1 ms, a write to the
//! log 1.1 ms, and nothing is lost but what the commands have cut.
//!
//! Commands:
//!
//! | command | what it does |
//! |---|---|
//! | `members 3` | makes the members of a new cluster, which start at once; `without pre-vote` and `snapshot every 20` may follow |
//! | `run 500ms` | lets time pass |
//! | `run until m2 leads` | lets time pass until a line says these words |
//! | `cut m1 m2`, `cut m1 -> m2`, `isolate m1`, `mend` | the network between members, both ways or one; clients reach every member all the time |
//! | `kill m1`, `power-cut m1`, `power-cut m1 in a write`, `start m1` | ends and starts processes |
//! | `pause m1`, `resume m1`, `stall-disk m1 2s` | has a process or a disk stand still |
//! | `put k1 v1 at m1`, `put k1 v1 lease 7 at m1`, `put k1 2000 bytes at m1`, `delete k1 at m1` | writes |
//! | `get k1 at m2`, `get k1 at m2 serializable`, `get k1 at m2 revision 5` | reads, linearizable unless said otherwise |
//! | `txn if k1 = v1 put k1 v2 at m1`, `txn if k1 absent put k1 v1 at m1` | a transaction that reads the key if it is not as expected |
//! | `watch k1 at m1`, `watch k* at m1 from 5` | watches a key, or all that begin so |
//! | `grant lease 7 ttl 5s at m1`, `keep-alive 7 at m2`, `revoke 7 at m1` | leases |
//! | `compact 10 at m1` | gives up history |
//! | `transfer m1 to m2` | m1 is asked to hand the lead over |
//! | `add-learner m4 at m1`, `promote m4 at m1`, `remove m2 at m1` | membership |
//! | `propose-joint m2 to m1` | m2 sends m1 a proposal that no castd makes: one of joint consensus |
//! | `show`, `log m1` | the members' states, a member's log |
//! | `show heartbeats`, `hide heartbeats` | heartbeats that confirm no read are left out unless they are asked for |
//!
//! A client's call goes on until it has its answer, and 20 ms longer, so that what follows
//! from it can be seen. `begin` before a call: time does not pass, and the answer comes
//! when it comes. `within 1s` after it: how long the client waits, 10 s if it does not say.
//! `quietly` before a command: what happens is not told. `20 times` before a call: it is
//! made so often, one after the other.

mod client;
mod command;
mod stage;

use self::command::Command;
use self::stage::Stage;

/// The line between commands and what happened.
const LINE: &str = "----";

/// Carries a transcript out: gives it back with what happens now in place of what it said.
///
/// # Errors
/// When a command cannot be read, or makes no sense where it stands: its line, and why.
pub fn replay(transcript: &str) -> Result<String, String> {
    let mut stage = Stage::default();
    let mut told = String::new();
    let mut lines = transcript.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        told += line;
        told.push('\n');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut commands = vec![read(number, line)?];
        while let Some((number, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            if line == LINE {
                break;
            }
            told += &format!("{line}\n");
            commands.push(read(number, line)?);
        }
        while lines.next_if(|(_, line)| !line.trim().is_empty()).is_some() {}
        told += &format!("{LINE}\n");
        for (number, command) in commands {
            stage.carry_out(&command).map_err(|error| at_line(number, &error))?;
        }
        stage.take_told().iter().for_each(|line| told += &format!("{line}\n"));
    }
    Ok(told)
}

fn read(number: usize, line: &str) -> Result<(usize, Command), String> {
    let command = line.parse().map_err(|error: String| at_line(number, &error))?;
    Ok((number, command))
}

fn at_line(number: usize, error: &str) -> String {
    format!("line {}: {error}", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_replaces_what_was_said() {
        let told =
            replay("# A test.\n\nmembers 1\nquietly run 2s\n----\nlies\nmore lies\n\nshow\n")
                .expect("a good transcript");
        assert!(told.starts_with("# A test.\n\nmembers 1\nquietly run 2s\n----\n\nshow\n----\n"));
        assert!(told.contains("m1 leader"), "{told}");
        assert_eq!(replay(&told), Ok(told.clone()), "a transcript tells the same again");
    }

    #[test]
    fn a_bad_command_is_told_with_its_line() {
        let error = replay("# A test.\nmembers 1\ndance\n").expect_err("there is no such command");
        assert!(error.starts_with("line 3: "), "{error}");
        let error = replay("run 1s\n").expect_err("there are no members");
        assert!(error.starts_with("line 1: "), "{error}");
    }
}
