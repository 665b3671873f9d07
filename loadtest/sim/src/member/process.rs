//! A running member: the company as production assembles it, which gets its turns from
//! the world.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use castd_actors::Identity;
use castd_actors::apply_loop::ApplyLoop;
use castd_actors::checkpointer::Sealer;
use castd_actors::compactor::{AutoCompaction, Compactor, ScrubPace};
use castd_actors::company::{
    Assembled, Begin, Company, CompanyConfig, Life, MembershipRules, PeerParts, WalToRaft,
    WatchThreads, assemble,
};
use castd_actors::lease_manager::LeaseManager;
use castd_actors::mvcc::{EventBatch, Mvcc, MvccMessage, SealPolicy};
use castd_actors::raft_node::RaftNode;
use castd_actors::shared::{Clock, FatalReport, ThreadOutlet};
use castd_actors::sim::SimDisk;
use castd_actors::wal_writer::WalWriter;
use parking_lot::Mutex;
use prometheus::Registry;

use super::hub::Hub;
use super::waits::{Futures, Waits};
use crate::door::Done;
use crate::time::Nanos;

/// An actor, as the one who gives turns sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// RaftNode.
    Raft,
    /// WalWriter.
    Wal,
    /// ApplyLoop.
    Apply,
    /// Mvcc.
    Mvcc,
    /// Checkpointer.
    Sealer,
    /// LeaseManager.
    Leases,
    /// Compactor.
    Compactor,
    /// WatchHub.
    Hub,
    /// PeerTransport.
    Peers,
    /// What faces and links wait for.
    Door,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Raft,
        Self::Wal,
        Self::Apply,
        Self::Mvcc,
        Self::Sealer,
        Self::Leases,
        Self::Compactor,
        Self::Hub,
        Self::Peers,
        Self::Door,
    ];

    /// The actor's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "RaftNode",
            Self::Wal => "WalWriter",
            Self::Apply => "ApplyLoop",
            Self::Mvcc => "Mvcc",
            Self::Sealer => "Checkpointer",
            Self::Leases => "LeaseManager",
            Self::Compactor => "Compactor",
            Self::Hub => "WatchHub",
            Self::Peers => "PeerTransport",
            Self::Door => "faces and links",
        }
    }
}

/// How a world's members are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberConfig {
    pub(crate) pre_vote: bool,
    pub(crate) snapshot_count: u64,
    pub(crate) backlog_bytes_max: u64,
    pub(crate) seal: SealPolicy,
    pub(crate) segment_bytes: u64,
    pub(crate) scrub_records: usize,
    pub(crate) compaction: AutoCompaction,
    /// A response of a watch that has more bytes comes in fragments, if that was wished.
    pub(crate) fragment_bytes: usize,
}

/// raft's tick.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
/// The election timeout.
pub(crate) const ELECTION: Duration = Duration::from_secs(1);
/// How often silent watchers are told how far they are.
pub(crate) const WATCH_PROGRESS: Duration = Duration::from_secs(10);

/// Why a process ended by itself: the actor, and what it said.
pub(crate) type Death = (String, String);

/// What a report of an actor's end unwinds with.
pub(crate) struct ProcessEnds;

/// One process of a member.
pub(crate) struct Process {
    pub(crate) life: u16,
    pub(crate) company: Company,
    pub(crate) raft: RaftNode,
    pub(crate) apply: ApplyLoop,
    pub(crate) leases: LeaseManager,
    pub(crate) lease_waits: Waits<LeaseManager>,
    pub(crate) compactor: Compactor,
    pub(crate) compactor_waits: Waits<Compactor>,
    mvcc: Mvcc,
    mvcc_messages: ThreadOutlet<MvccMessage>,
    pub(crate) wal: WalWriter<WalToRaft>,
    pub(crate) sealer: Sealer,
    pub(crate) peers: PeerParts,
    pub(crate) hub: Hub,
    /// What faces and links wait for.
    pub(crate) tasks: Futures<Done>,
    clock_ms: Arc<AtomicU64>,
    death: Arc<Mutex<Option<Death>>>,
    /// The zero of the instants that are shown.
    pub(crate) zero: Instant,
    /// Parts whose next turn is arranged.
    pub(crate) arranged: Vec<Part>,
}

/// What a turn of a part led to.
#[derive(Default)]
pub(crate) struct Turned {
    /// There was something to do, and it was done.
    pub(crate) did: bool,
    /// Batches of events that reached the hub.
    pub(crate) batches: Vec<EventBatch>,
    /// What the faces and links waited for.
    pub(crate) done: Vec<Done>,
}

impl Process {
    /// Starts over what the disk holds. `now_ms` is what the member's clock shows.
    pub(crate) fn start(
        disk: &SimDisk,
        identity: Identity,
        begin: &Begin,
        config: &MemberConfig,
        life: u16,
        seed: u64,
        now_ms: u64,
    ) -> Result<Self, String> {
        let death: Arc<Mutex<Option<Death>>> = Arc::default();
        let opened = castd_actors::sim::open(disk, config.segment_bytes, identity, begin, false)
            .map_err(|error| error.to_string())?;
        let clock_ms = Arc::new(AtomicU64::new(now_ms));
        let run = Life {
            first_id: u64::from(life) << 32,
            seed,
            clock: Clock::given(Arc::clone(&clock_ms)),
        };
        let config = company_config(config, Arc::clone(&death));
        let assembled = assemble(opened, &config, &run).map_err(|error| error.to_string())?;
        let Assembled { company, raft_node, apply_loop, lease_manager, compactor, .. } = assembled;
        let Assembled { mvcc, mvcc_messages, wal, sealer, peers, hub, .. } = assembled;
        let mut process = Self {
            life,
            company,
            raft: raft_node,
            apply: apply_loop,
            leases: lease_manager,
            lease_waits: Waits::default(),
            compactor,
            compactor_waits: Waits::default(),
            mvcc,
            mvcc_messages,
            wal,
            sealer,
            peers,
            hub: Hub::new(hub),
            tasks: Futures::default(),
            clock_ms,
            death,
            zero: Instant::now(),
            arranged: Vec::new(),
        };
        process.raft.begin();
        process.compactor.begin(&mut process.compactor_waits);
        Ok(process)
    }

    /// Shows the actors what time it is.
    pub(crate) fn set_clock(&self, now_ms: u64) {
        self.clock_ms.store(now_ms, Relaxed);
    }

    /// What an actor has said with its last breath.
    pub(crate) fn take_death(&self) -> Option<Death> {
        self.death.lock().take()
    }

    /// Whether a part has something to do.
    pub(crate) fn has_work(&self, part: Part) -> bool {
        match part {
            Part::Raft => self.raft.waiting() > 0,
            Part::Wal => self.wal.waiting() > 0,
            Part::Apply => self.apply.waiting() > 0,
            Part::Mvcc => self.mvcc_messages.waiting() > 0,
            Part::Sealer => self.sealer.waiting() > 0,
            Part::Leases => self.leases.waiting() > 0 || self.lease_waits.is_woken(),
            Part::Compactor => self.compactor.waiting() > 0 || self.compactor_waits.is_woken(),
            Part::Hub => self.hub.has_work(),
            Part::Peers => self.peers.messages.waiting() > 0,
            Part::Door => self.tasks.is_woken(),
        }
    }

    /// Gives a part its turn. What PeerTransport takes is for the network to take.
    pub(crate) fn turn(&mut self, part: Part) -> Result<Turned, Death> {
        let mut turned = Turned { did: true, ..Turned::default() };
        match part {
            Part::Raft => turned.did = self.raft.turn(),
            Part::Wal => {
                turned.did =
                    self.wal.turn().map_err(|error| ("wal_writer".into(), error.to_string()))?;
            }
            Part::Apply => turned.did = self.apply.turn(),
            Part::Mvcc => turned.did = self.mvcc.turn(&self.mvcc_messages),
            Part::Sealer => {
                turned.did = self
                    .sealer
                    .turn()
                    .map_err(|error| ("checkpointer".into(), error.to_string()))?;
            }
            Part::Leases => {
                self.leases.turn(&mut self.lease_waits);
                self.lease_waits.poll(&mut self.leases);
            }
            Part::Compactor => {
                self.compactor.turn(&mut self.compactor_waits);
                self.compactor_waits.poll(&mut self.compactor);
            }
            Part::Hub => turned.batches = self.hub.turn(),
            Part::Peers => {}
            Part::Door => turned.done = self.tasks.poll(),
        }
        Ok(turned)
    }

    /// An instant to show for a moment of the world.
    pub(crate) fn instant(&self, now: Nanos) -> Instant {
        self.zero + Duration::from_nanos(now)
    }
}

fn company_config(config: &MemberConfig, death: Arc<Mutex<Option<Death>>>) -> CompanyConfig {
    let fatal: FatalReport = Arc::new(move |actor, reason| {
        death.lock().get_or_insert((actor.to_owned(), reason));
        std::panic::resume_unwind(Box::new(ProcessEnds));
    });
    CompanyConfig {
        heartbeat: HEARTBEAT,
        election: ELECTION,
        pre_vote: config.pre_vote,
        campaign_at_once: true,
        rules: MembershipRules { strict: true, max_learners: 1 },
        slow_apply: Duration::from_secs(3600),
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_count / 2,
        backlog_bytes_max: config.backlog_bytes_max,
        seal: config.seal,
        compaction: config.compaction,
        scrub: ScrubPace { records: config.scrub_records, pause: Duration::from_millis(10) },
        watch_threads: WatchThreads::Consensus,
        watch_progress: WATCH_PROGRESS,
        watch_fragment_bytes: config.fragment_bytes,
        version: "3.7.1".to_owned(),
        registry: Registry::new(),
        fatal,
    }
}
