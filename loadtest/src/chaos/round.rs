//! One round: a fresh cluster, its clients, its faults, and the judgement.

use std::path::Path;
use std::time::Duration;

use castd_check::{Event, Evidence, Judgement, Key, LeaseRecord, NEVER, Problem, Records, judge};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Recipe};
use super::fault::{Planned, plan};
use super::history::Recorder;
use super::inject;
use super::leases::Leases;
use super::report::{self, FaultReport, RoundReport, Times};
use super::run_dir::RunDir;
use super::settings::Settings;
use super::watchers::{Watchers, read_all};
use super::workload::{Clients, Load};
use crate::commands::write_file;
use crate::error::LoadError;

/// The longest a cluster may take to serve, at the start and behind the last fault.
const READY_TIME_MAX: Duration = Duration::from_secs(45);
/// Between two looks at the members' processes.
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// Load behind the last fault: time to see that everything works again.
const CALM: Duration = Duration::from_secs(2);
/// How much longer than its time a lease that was left alone may live. An election renews all
/// leases, and expiry is paced.
const LEASE_GRACE: Duration = Duration::from_secs(5);
/// How long watchers may take to catch up, and reads of all events.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(30);
/// The same in a cluster that is broken already: just to see what is left of it.
const BROKEN_TIME_MAX: Duration = Duration::from_secs(3);

/// The file with the history of a round that is kept.
const HISTORY: &str = "history.jsonl";

/// What a round leaves behind to be reported.
struct Ran {
    recorder: Recorder,
    faults: Vec<FaultReport>,
    problems: Vec<Problem>,
    evidence: Evidence,
    packets: Option<(u64, u64)>,
    cpu: Duration,
}

/// Runs a round in the calling thread and judges it.
///
/// # Errors
/// When there was no round to speak of: no rights, no such program, no start.
pub(crate) async fn run(settings: &Settings, seed: u64) -> Result<RoundReport, LoadError> {
    let mut dir = RunDir::make(&settings.dir, seed)?;
    let ran = match carry_out(settings, seed, dir.path()).await {
        Ok(ran) => ran,
        Err(error) => {
            if settings.keep && !matches!(error, LoadError::Rights { .. }) {
                dir.keep();
                say(Duration::ZERO, &format!("data and logs are kept in {}", dir.path().display()));
            }
            return Err(error);
        }
    };
    let judgement = judge(&ran.evidence);
    let held = ran.problems.is_empty() && judgement.problems.is_empty();
    if settings.keep || !held {
        dir.keep();
        write_history(&ran.evidence.records, dir.path())?;
    }
    let kept = (settings.keep || !held).then(|| dir.path().to_owned());
    Ok(RoundReport { kept, ..sum_up(settings, seed, ran, judgement) })
}

/// Writes all operations beside the data and logs, one line of JSON each.
fn write_history(records: &Records, dir: &Path) -> Result<(), LoadError> {
    let mut text = String::new();
    for operation in &records.operations {
        text.push_str(&serde_json::to_string(operation).expect("numbers and names"));
        text.push('\n');
    }
    write_file(&dir.join(HISTORY), &text)
}

fn sum_up(settings: &Settings, seed: u64, ran: Ran, mut judgement: Judgement) -> RoundReport {
    let Ran { recorder, mut faults, mut problems, evidence, packets, cpu } = ran;
    let records = evidence.records;
    let times = Times::new(&records.successes);
    report::measure(&mut faults, &times);
    problems.append(&mut judgement.problems);
    RoundReport {
        seed,
        members: settings.members,
        seconds: Duration::from_nanos(recorder.now()).as_secs_f64(),
        tally: records.tally,
        faults,
        longest_gap_ms: times.longest_gap_ms(0, NEVER, NEVER),
        judgement,
        reopened_watches: evidence.sightings.reopened,
        packets,
        servers_cpu_seconds: cpu.as_secs_f64(),
        problems,
        kept: None,
    }
}

async fn carry_out(settings: &Settings, seed: u64, dir: &Path) -> Result<Ran, LoadError> {
    let mut cluster = Cluster::make(Recipe {
        binary: settings.binary.clone(),
        members: settings.members,
        args: settings.args.clone(),
        isolated: settings.isolated,
        own_disks: settings.faults.iter().any(|kind| kind.needs_disk()),
        dir: dir.to_owned(),
        seed,
    })?;
    cluster.start_all().await?;
    first_start(&mut cluster).await?;
    let recorder = Recorder::new();
    let load = Load {
        clients: settings.clients,
        rate: settings.rate,
        call_timeout: settings.call_timeout,
        seed,
    };
    let clients = Clients::start(&load, cluster.endpoints(), cluster.lives(), &recorder);
    let watchers = Watchers::start(cluster.endpoints(), &recorder, seed);
    let leases = Leases::start(cluster.endpoints(), &recorder, seed);
    let (faults, problems, patience) = (Vec::new(), Vec::new(), CATCH_UP_TIME_MAX);
    let mut course = Course { cluster, recorder, faults, problems, patience };
    let plan = plan(seed, &settings.faults, settings.duration, settings.election);
    course.inject_all(&plan, settings.duration).await?;
    course.recover().await?;
    clients.stop().await;
    let leases = leases.stop().await;
    course.settle(leases, watchers).await
}

/// Waits until all members serve. One that ends instead ends the round.
async fn first_start(cluster: &mut Cluster) -> Result<(), LoadError> {
    let deadline = Instant::now() + READY_TIME_MAX;
    loop {
        let waiting = cluster.await_ready(LOOK_PERIOD).await;
        if let Some(problem) = cluster.unexpected_ends().await?.pop() {
            return Err(LoadError::Server { server: "the cluster".into(), problem: problem.text });
        }
        match waiting.first() {
            None => return Ok(()),
            Some(member) if Instant::now() > deadline => {
                return Err(cluster.problem(*member, "does not serve"));
            }
            Some(_) => {}
        }
    }
}

/// A round under way.
struct Course {
    cluster: Cluster,
    recorder: Recorder,
    faults: Vec<FaultReport>,
    problems: Vec<Problem>,
    /// How long what must come in the end is waited for.
    patience: Duration,
}

impl Course {
    async fn inject_all(&mut self, plan: &[Planned], duration: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + duration;
        for planned in plan {
            self.watch_over(planned.quiet).await?;
            if Instant::now() > end {
                break;
            }
            self.inject(planned).await?;
        }
        self.watch_over(end.saturating_duration_since(Instant::now())).await
    }

    async fn inject(&mut self, planned: &Planned) -> Result<(), LoadError> {
        let begin = self.recorder.now();
        let begun = match inject::begin(&mut self.cluster, planned).await {
            Ok(begun) => begun,
            Err(error @ (LoadError::Thread | LoadError::Usage(_))) => return Err(error),
            Err(error) => {
                let text = format!("{}: {error}", planned.kind.name());
                self.problems.push(Problem::new("faults are survived", text));
                return Ok(());
            }
        };
        let seconds = planned.lasts.as_secs_f64();
        self.say(&format!("{} (for {seconds:.1} s)", begun.text));
        self.watch_over(planned.lasts).await?;
        let text = inject::end(&mut self.cluster, begun).await?;
        let end = self.recorder.now();
        self.say(&format!("  {} is over", planned.kind.name()));
        self.faults.push(FaultReport::new(planned.kind.name(), text, begin, end));
        Ok(())
    }

    /// Lets time pass, and notes members that end.
    async fn watch_over(&mut self, time: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + time;
        loop {
            for problem in self.cluster.unexpected_ends().await? {
                self.say(&problem.to_string());
                self.problems.push(problem);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK_PERIOD)).await;
        }
    }

    /// All faults are over: the cluster must serve again, on every member.
    async fn recover(&mut self) -> Result<(), LoadError> {
        self.cluster.start_all().await?;
        let start = Instant::now();
        for member in self.cluster.await_ready(READY_TIME_MAX).await {
            let text = self.cluster.problem(member, "does not serve").to_string();
            self.problems.push(Problem::new("the cluster recovers", text));
            self.patience = BROKEN_TIME_MAX;
        }
        let seconds = start.elapsed().as_secs_f64();
        if self.patience == CATCH_UP_TIME_MAX {
            self.say(&format!("all members serve again ({seconds:.1} s)"));
        }
        self.watch_over(CALM).await
    }

    /// Waits for what must come in the end, and collects what there is.
    async fn settle(
        mut self,
        leases: Vec<LeaseRecord>,
        watchers: Watchers,
    ) -> Result<Ran, LoadError> {
        let longest = leases.iter().map(|lease| lease.ttl).max().unwrap_or_default();
        self.say("leases run out");
        self.watch_over(longest + LEASE_GRACE).await?;
        let leases_over = Some(self.recorder.now());
        let mut stored = Vec::new();
        // Beyond the keys of leases, which no client answers for.
        match self.cluster.put_marker(Key::MAX, self.recorder.next_value()).await {
            Ok(revision) => {
                for text in watchers.catch_up(revision, self.patience).await {
                    self.problems.push(Problem::new("watchers catch up", text));
                }
                stored = self.read_back(revision).await;
            }
            Err(failure) => {
                let text = format!("no member takes a put at the end: {failure:?}");
                self.problems.push(Problem::new("the cluster recovers", text));
            }
        }
        let sightings = watchers.stop().await;
        let packets = self.cluster.network().map(super::network::Network::packets);
        let cpu = self.stop_members().await?;
        let records = self.recorder.with(std::mem::take);
        let told = Evidence { records, sightings, leases, stored, ..Evidence::default() };
        let evidence = Evidence { leases_over, ..told };
        let Self { recorder, faults, problems, .. } = self;
        Ok(Ran { recorder, faults, problems, evidence, packets, cpu })
    }

    /// All events and a digest of the store, from every member.
    async fn read_back(&mut self, revision: i64) -> Vec<Vec<Event>> {
        let (mut stored, mut hashes) = (Vec::new(), Vec::new());
        for member in 0..self.cluster.len() {
            let endpoints = self.cluster.endpoints();
            match read_all(endpoints, member, revision, self.patience).await {
                Ok(events) => stored.push(events),
                Err(text) => {
                    let text = format!("m{} does not tell all events: {text}", member + 1);
                    self.problems.push(Problem::new("the cluster recovers", text));
                }
            }
            match self.cluster.hash(member, revision).await {
                Ok(hash) => hashes.push(hash),
                Err(failure) => {
                    let text = format!("m{} tells no hash: {failure:?}", member + 1);
                    self.problems.push(Problem::new("the cluster recovers", text));
                }
            }
        }
        if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
            let text = format!("hashes at revision {revision}: {hashes:x?}");
            self.problems.push(Problem::new("members agree", text));
        }
        stored
    }

    /// Ends the members as a planned stop does. Answers the CPU time of their last processes.
    async fn stop_members(&mut self) -> Result<Duration, LoadError> {
        let mut cpu = Duration::ZERO;
        for member in 0..self.cluster.len() {
            let usage = self.cluster.on(member, |room| Ok(room.usage())).await?;
            let Some((member_cpu, _)) = usage else { continue };
            cpu += member_cpu;
            self.cluster.expect_down(member);
            match self.cluster.on(member, |room| room.terminate()).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let text = format!("m{} had to be killed at the end", member + 1);
                    self.problems.push(Problem::new("SIGTERM ends a member", text));
                }
                Err(error @ LoadError::Thread) => return Err(error),
                Err(error) => {
                    self.problems.push(Problem::new("members stay up", error.to_string()));
                }
            }
        }
        Ok(cpu)
    }

    fn say(&self, text: &str) {
        say(Duration::from_nanos(self.recorder.now()), text);
    }
}

/// Tells the user what happens, with the time in the round.
fn say(time: Duration, text: &str) {
    eprintln!("[{:8.3}] {text}", time.as_secs_f64());
}
