//! Begins and ends faults.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::fault::{FaultKind, Planned};
use super::network::{LOSS_WHOLE, Rule};
use super::session::Failure;
use crate::error::LoadError;

/// How long the steps of a change of members may take, each.
const STEP_TIME_MAX: Duration = Duration::from_secs(40);
/// Between two attempts at a step.
const STEP_PAUSE: Duration = Duration::from_millis(200);

/// Puts of bulk that go with a full disk, at most. Members reserve up to 64 MiB of log.
const BULK_PUTS: usize = 100;
/// How long they may go on.
const BULK_TIME_MAX: Duration = Duration::from_secs(15);

/// A fault that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What it is and whom it met.
    pub(crate) text: String,
    undo: Undo,
}

/// How a fault ends.
#[derive(Debug)]
enum Undo {
    Nothing,
    Heal,
    Start(Vec<usize>),
    Continue(usize),
    FreeDisk(usize),
    AwaitDisk(usize),
    SetBack,
}

/// Begins a fault.
///
/// # Errors
/// When it cannot be made: that says nothing about the cluster, except where a change of
/// members is refused for good.
pub(crate) async fn begin(cluster: &mut Cluster, planned: &Planned) -> Result<Begun, LoadError> {
    let mut random = SmallRng::seed_from_u64(planned.dice);
    let kind = planned.kind;
    let target = match kind {
        FaultKind::PartitionLeader
        | FaultKind::KillLeader
        | FaultKind::PauseLeader
        | FaultKind::TermLeader
        | FaultKind::MoveLeader => cluster.leader().await,
        // Half of the disks that fail are a leader's.
        FaultKind::DiskFull | FaultKind::DiskStall if random.random() => cluster.leader().await,
        _ => None,
    };
    let target = target.unwrap_or_else(|| random.random_range(0..cluster.len()));
    if kind.needs_network() {
        let text = network(cluster, kind, target, &mut random)?;
        return Ok(Begun { text: format!("{}: {text}", kind.name()), undo: Undo::Heal });
    }
    let (text, undo) = match kind {
        FaultKind::KillMajority => kill(cluster, some(cluster, &mut random)).await?,
        FaultKind::KillAll => kill_all(cluster).await?,
        FaultKind::TermOne | FaultKind::TermLeader => terminate(cluster, target).await?,
        FaultKind::PauseShort | FaultKind::PauseLong | FaultKind::PauseLeader => {
            cluster.on(target, |room| room.signal(Signal::STOP)).await?;
            (cluster.name(target).to_owned(), Undo::Continue(target))
        }
        FaultKind::Sabotage => (save_data(cluster).await?, Undo::SetBack),
        FaultKind::RollingRestart => (rolling_restart(cluster).await?, Undo::Nothing),
        FaultKind::MoveLeader => (move_leader(cluster, target, &mut random).await, Undo::Nothing),
        FaultKind::DiskFull => {
            fill_disk(cluster, target).await?;
            (cluster.name(target).to_owned(), Undo::FreeDisk(target))
        }
        FaultKind::DiskStall => {
            let lasts = planned.lasts;
            cluster.may_end(target);
            cluster.on(target, move |room| room.stall_disk(lasts)).await?;
            (cluster.name(target).to_owned(), Undo::AwaitDisk(target))
        }
        FaultKind::ReplaceMember => (replace(cluster, target).await?, Undo::Nothing),
        _ => kill(cluster, vec![target]).await?,
    };
    Ok(Begun { text: format!("{}: {text}", kind.name()), undo })
}

/// Ends a fault; answers what it was.
///
/// # Errors
/// When it cannot be ended.
pub(crate) async fn end(cluster: &mut Cluster, begun: Begun) -> Result<String, LoadError> {
    let mut text = begun.text;
    match begun.undo {
        Undo::Nothing => {}
        Undo::Heal => {
            if let Some(network) = cluster.network() {
                network.rules().heal();
            }
        }
        Undo::Start(members) => {
            for member in members {
                cluster.start(member).await?;
            }
        }
        Undo::Continue(member) => cluster.on(member, |room| room.signal(Signal::CONT)).await?,
        Undo::FreeDisk(member) => {
            cluster.on(member, |room| room.free_disk()).await?;
            text.push_str(start_if_ended(cluster, member).await?);
        }
        Undo::SetBack => {
            kill_all(cluster).await?;
            for member in 0..cluster.len() {
                cluster.on(member, |room| room.set_back_data()).await?;
            }
            cluster.start_all().await?;
        }
        Undo::AwaitDisk(member) => {
            cluster.on(member, |room| room.await_disk()).await?;
            text.push_str(start_if_ended(cluster, member).await?);
        }
    }
    Ok(text)
}

/// Fills a member's disk, and then has the cluster write more than members reserve for their
/// logs ahead of time: until this one ends, or for a while.
async fn fill_disk(cluster: &mut Cluster, member: usize) -> Result<(), LoadError> {
    cluster.may_end(member);
    cluster.on(member, |room| room.fill_disk()).await?;
    let deadline = Instant::now() + BULK_TIME_MAX;
    for _ in 0..BULK_PUTS {
        let has_ended = cluster.on(member, |room| room.exited().map(|_| !room.runs())).await?;
        if has_ended || Instant::now() > deadline {
            break;
        }
        // Whether it succeeds does not matter: it only has to reach the logs.
        let _ = cluster.put_bulk(member + 1).await;
    }
    Ok(())
}

/// A member whose disk failed may have ended; it has to come back once the disk is well.
/// Answers which it was.
async fn start_if_ended(cluster: &mut Cluster, member: usize) -> Result<&'static str, LoadError> {
    if cluster.on(member, |room| room.exited().map(|_| room.runs())).await? {
        return Ok(", which went on");
    }
    cluster.start(member).await?;
    Ok(", which ended, and was started again")
}

/// More than half of the members.
fn some(cluster: &Cluster, random: &mut SmallRng) -> Vec<usize> {
    let mut members = shuffled(cluster.len(), random);
    members.truncate(cluster.len() / 2 + 1);
    members
}

fn shuffled(count: usize, random: &mut SmallRng) -> Vec<usize> {
    let mut members: Vec<usize> = (0..count).collect();
    members.shuffle(random);
    members
}

fn names(cluster: &Cluster, members: &[usize]) -> String {
    members.iter().map(|member| cluster.name(*member)).collect::<Vec<_>>().join(" ")
}

/// Changes the rules of the network.
fn network(
    cluster: &Cluster,
    kind: FaultKind,
    target: usize,
    random: &mut SmallRng,
) -> Result<String, LoadError> {
    let no_network = || LoadError::Usage("this fault needs a network of namespaces".into());
    let rules = cluster.network().ok_or_else(no_network)?.rules();
    let (members, nodes) = (cluster.len(), rules.nodes());
    let cut = |rule: &mut Rule| rule.cut = true;
    let apply = |applies: &dyn Fn(usize, usize) -> bool, change: &dyn Fn(&mut Rule)| {
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if from != to && applies(from, to) {
                rules.change(from, to, change);
            }
        }
    };
    let is_member = |from: usize, to: usize| from < members && to < members;
    let order = shuffled(members, random);
    let mut text = cluster.name(target).to_owned();
    match kind {
        FaultKind::Isolate => apply(&|from, to| from == target || to == target, &cut),
        FaultKind::CutIn => apply(&|from, to| is_member(from, to) && to == target, &cut),
        FaultKind::CutOut => apply(&|from, to| is_member(from, to) && from == target, &cut),
        FaultKind::PartitionSplit => {
            let minority = &order[..(members - 1) / 2];
            let apart = |from, to| minority.contains(&from) != minority.contains(&to);
            apply(&|from, to| is_member(from, to) && apart(from, to), &cut);
            text = format!("{} from the others", names(cluster, minority));
        }
        FaultKind::Bridge => {
            let (middle, half) = (order[0], &order[1..1 + (members - 1) / 2]);
            let apart = |from: usize, to: usize| {
                from != middle && to != middle && half.contains(&from) != half.contains(&to)
            };
            apply(&|from, to| is_member(from, to) && apart(from, to), &cut);
            let (middle, half) = (cluster.name(middle), names(cluster, half));
            text = format!("{middle} hears all, {half} not the rest");
        }
        FaultKind::Loss | FaultKind::Delay => {
            let (everywhere, clients) = (random.random_bool(0.5), random.random_bool(0.3));
            let loss = random.random_range(LOSS_WHOLE / 100..=LOSS_WHOLE * 3 / 10);
            let delay = Duration::from_millis(random.random_range(10..=200));
            let applies = |from, to| {
                (clients || is_member(from, to)) && (everywhere || from == target || to == target)
            };
            let is_loss = kind == FaultKind::Loss;
            apply(&applies, &|rule| match is_loss {
                true => rule.loss = loss,
                false => rule.delay = delay,
            });
            let place = if everywhere { "all links" } else { text.as_str() };
            let among = if clients { ", clients too" } else { "" };
            let amount = match is_loss {
                true => format!("{:.1} %", f64::from(loss) * 100.0 / f64::from(LOSS_WHOLE)),
                false => format!("{} ms", delay.as_millis()),
            };
            text = format!("{amount} on {place}{among}");
        }
        _ => {
            let apart = |from: usize, to: usize| (from == target) != (to == target);
            apply(&|from, to| is_member(from, to) && apart(from, to), &cut);
        }
    }
    Ok(text)
}

async fn kill(cluster: &mut Cluster, members: Vec<usize>) -> Result<(String, Undo), LoadError> {
    for member in &members {
        cluster.expect_down(*member);
        let gone = cluster.on(*member, |room| room.signal(Signal::KILL)).await;
        // It may have ended just now: then it was expected to, from here on.
        if let Err(error @ LoadError::Thread) = gone {
            return Err(error);
        }
    }
    Ok((names(cluster, &members), Undo::Start(members)))
}

async fn kill_all(cluster: &mut Cluster) -> Result<(String, Undo), LoadError> {
    kill(cluster, (0..cluster.len()).collect()).await
}

/// Keeps a copy of every member's data, all from the same moment.
async fn save_data(cluster: &mut Cluster) -> Result<String, LoadError> {
    kill_all(cluster).await?;
    for member in 0..cluster.len() {
        cluster.on(member, |room| room.save_data()).await?;
    }
    cluster.start_all().await?;
    // What is to be lost has to be written first.
    cluster.await_ready(STEP_TIME_MAX).await;
    Ok("all members, to here from the end of this".to_owned())
}

async fn terminate(cluster: &mut Cluster, member: usize) -> Result<(String, Undo), LoadError> {
    cluster.expect_down(member);
    let took = cluster.on(member, |room| room.terminate()).await?;
    let took = took.ok_or_else(|| cluster.problem(member, "does not end after SIGTERM"))?;
    let text = format!("{}, ended after {} ms", cluster.name(member), took.as_millis());
    Ok((text, Undo::Start(vec![member])))
}

async fn rolling_restart(cluster: &mut Cluster) -> Result<String, LoadError> {
    let start = Instant::now();
    for member in 0..cluster.len() {
        terminate(cluster, member).await?;
        cluster.start(member).await?;
        retry(|| cluster.revision(member)).await.map_err(|failure| {
            cluster.problem(member, &format!("does not serve after a restart: {failure:?}"))
        })?;
    }
    Ok(format!("all members, in {:.1} s", start.elapsed().as_secs_f64()))
}

async fn move_leader(cluster: &Cluster, leader: usize, random: &mut SmallRng) -> String {
    let step = random.random_range(1..cluster.len().max(2));
    let to = (leader + step) % cluster.len();
    let moved = match cluster.id(to).await {
        Ok(id) => cluster.move_leader(leader, id).await,
        Err(failure) => Err(failure),
    };
    let (from, to) = (cluster.name(leader), cluster.name(to));
    match moved {
        Ok(()) => format!("{from} to {to}"),
        Err(failure) => format!("{from} to {to} failed: {failure:?}"),
    }
}

/// Removes a member for good and lets a new one take its place.
async fn replace(cluster: &mut Cluster, member: usize) -> Result<String, LoadError> {
    let start = Instant::now();
    let via = (member + 1) % cluster.len();
    let failed = |what: &str, failure: Failure, cluster: &Cluster| {
        cluster.problem(via, &format!("{what}: {failure:?}"))
    };
    let id = retry(|| cluster.id(member)).await;
    let id = id.map_err(|failure| failed("no id of the member to remove", failure, cluster))?;
    cluster.may_end(member);
    let removed = retry(|| async {
        match cluster.remove(via, id).await {
            // An earlier attempt whose answer was lost.
            Err(Failure::Refused(text)) if text.contains("NotFound") => Ok(()),
            other => other,
        }
    });
    removed.await.map_err(|failure| failed("cannot remove a member", failure, cluster))?;
    kill(cluster, vec![member]).await?;
    cluster.on(member, |room| room.wipe()).await?;
    let added = retry(|| async {
        match cluster.add_learner(via, member).await {
            // An earlier attempt whose answer was lost.
            Err(Failure::Refused(text)) if text.contains("exist") => {
                cluster.find(via, member).await
            }
            other => other,
        }
    })
    .await;
    let id = added.map_err(|failure| failed("cannot add a learner", failure, cluster))?;
    cluster.joins_existing(member);
    cluster.start(member).await?;
    let promoted = retry(|| async {
        match cluster.promote(via, id).await {
            // As above. A learner that is behind is refused with a longer text.
            Err(Failure::Refused(text)) if text.ends_with("only promote a learner member") => {
                Ok(())
            }
            other => other,
        }
    })
    .await;
    promoted.map_err(|failure| failed("cannot promote the learner", failure, cluster))?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(format!("{}, wiped and promoted again in {seconds:.1} s", cluster.name(member)))
}

/// Does a step again until it succeeds or has had its time.
async fn retry<T, F>(step: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let deadline = Instant::now() + STEP_TIME_MAX;
    loop {
        match step().await {
            Ok(done) => return Ok(done),
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Err(_) => tokio::time::sleep(STEP_PAUSE).await,
        }
    }
}
