//! The actor when a snapshot comes: what it tells whom, and in which order.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use castd_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use crossbeam_channel::{Receiver, Sender, bounded};
use futures::{FutureExt, StreamExt};
use prometheus::Registry;
use tokio::sync::Semaphore;

use super::*;
use crate::apply_loop::Install;
use crate::checkpointer::{
    CheckpointEvents, CheckpointMetrics, CheckpointStore, Checkpointer, CheckpointerOptions,
    LoadVisitor, LoadedMeta, Reclaim, SealJob, Sealed, StoreError,
};
use crate::cluster::ClusterState;
use crate::lease_manager::LeaseMessage;
use crate::raft_node::RaftCompletion;
use crate::shared::{Outlet, Published, Switchboard, ThreadInlet};
use crate::snapshot::{Arrived, Arriving, Export, Exporter};
use crate::wal_writer::Identity;
use crate::watch_hub::HubMessage;

const IDENTITY: Identity = Identity { cluster_id: 9, member_id: 2 };
/// Bounds a wait for another thread.
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk that shows each seal and ends it when it is told to.
struct Gate {
    begun: Sender<SealJob>,
    go_on: Receiver<()>,
}

impl CheckpointStore for Gate {
    fn sealed(&self) -> Option<LoadedMeta> {
        None
    }

    fn load(&mut self, _: LoadVisitor<'_>) -> Result<Option<LoadedMeta>, StoreError> {
        Ok(None)
    }

    fn seal(&mut self, job: &SealJob) -> Result<Sealed, StoreError> {
        self.begun.send(job.clone()).expect("the test waits for it");
        self.go_on.recv().expect("the test lets it go on");
        Ok(Sealed {
            applied_index: job.applied_index,
            applied_term: job.applied_term,
            bytes_written: 0,
            took: Duration::ZERO,
            volumes: 1,
            volumes_written: 1,
            volumes_retired: 0,
            disk_bytes: 0,
            // The volumes of a state that grew are older than it.
            clean_floor: if job.reclaim == Reclaim::Replace { job.compact_revision } else { -1 },
        })
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

struct Events(ThreadInlet<MvccMessage>);

impl CheckpointEvents for Events {
    fn sealed(&mut self, sealed: Sealed) {
        self.0.send_blocking(MvccMessage::Sealed(sealed));
    }

    fn failed(&mut self, error: StoreError) {
        panic!("{error}");
    }
}

/// Mvcc on its thread, and the test on all of its edges.
pub(super) struct Running {
    pub(super) mvcc: ThreadInlet<MvccMessage>,
    thread: JoinHandle<()>,
    checkpointer: Checkpointer,
    pub(super) view: Published<View>,
    pub(super) raft: Outlet<RaftCompletion>,
    leases: Outlet<LeaseMessage>,
    hub: Outlet<HubMessage>,
}

impl Running {
    /// Runs over a store that covers the log up to `index`.
    pub(super) fn start(checkpoints: Box<dyn CheckpointStore>, store: Store, index: u64) -> Self {
        let board = Switchboard::default();
        let (mvcc, outlet) = board.thread_mailbox("mvcc", 16);
        let (raft_inlet, raft) = board.mailbox("raft", 16);
        let (leases_inlet, leases) = board.mailbox("leases", 1024);
        let (hub_inlet, hub) = board.mailbox("hub", 1024);
        let registry = Registry::new();
        let checkpointer = Checkpointer::start(
            checkpoints,
            Box::new(Events(mvcc.clone())),
            CheckpointMetrics::register(&registry).unwrap(),
            &CheckpointerOptions::default(),
        )
        .unwrap();
        let view = Published::new(store.view(index, 2, Arc::new(ClusterState::default())));
        let edges = MvccEdges {
            raft: raft_inlet,
            leases: leases_inlet,
            hub: vec![hub_inlet],
            checkpointer: checkpointer.link(),
        };
        let policy = SealPolicy { log_bytes: u64::MAX, entries: 3 };
        let metrics = MvccMetrics::new(&registry).unwrap();
        let actor = Mvcc::new(IDENTITY, store, view.clone(), edges, policy, Duration::MAX, metrics);
        let thread = std::thread::spawn(move || actor.run(&outlet));
        Self { mvcc, thread, checkpointer, view, raft, leases, hub }
    }

    pub(super) fn apply(&self, index: u64, kinds: Vec<OperationKind>) {
        let operation = |kind| Operation { name: OperationName::Put, kind, reply: None };
        let operations = kinds.into_iter().map(operation).collect();
        let cluster = Arc::new(ClusterState::default());
        let batch = ApplyBatch { index, term: 2, log_bytes: 1, cluster, operations };
        self.mvcc.send_blocking(MvccMessage::Apply(batch));
    }

    pub(super) fn install(&self, state: Arrived) {
        let install = Install { index: state.index(), term: state.term(), state };
        self.mvcc.send_blocking(MvccMessage::Install(install));
    }

    /// Ends both threads, after the seals that were ordered.
    pub(super) fn end(self) {
        self.mvcc.send_blocking(MvccMessage::Stop);
        self.thread.join().unwrap();
        self.checkpointer.stop().unwrap();
    }
}

/// One whose seals the test lets go on.
struct World {
    running: Running,
    begun: Receiver<SealJob>,
    go_on: Sender<()>,
}

impl World {
    fn new() -> Self {
        let (begin, begun) = bounded(1);
        let (go_on, gate) = bounded(1);
        let checkpoints = Box::new(Gate { begun: begin, go_on: gate });
        let running = Running::start(checkpoints, Store::default(), 1);
        Self { running, begun, go_on }
    }

    fn put(&self, index: u64) {
        let put = PutRequest { key: "mine".into(), ..put() };
        self.running.apply(index, vec![OperationKind::Put(put)]);
    }

    fn begun(&self) -> SealJob {
        self.begun.recv_timeout(PATIENCE).expect("a seal begins")
    }
}

pub(super) fn next<M>(outlet: &mut Outlet<M>, waiting: &mut Vec<M>) -> M {
    if waiting.is_empty() {
        waiting.extend(futures::executor::block_on(outlet.next()).expect("Mvcc runs"));
    }
    waiting.remove(0)
}

fn put() -> PutRequest {
    PutRequest { value: Bytes::from_static(b"v"), ..PutRequest::default() }
}

/// Another member's state at index 50, as it arrives.
fn received(revisions: i64) -> Arrived {
    let mut store = Store::default();
    store.lease_grant(&LeaseGrantRequest { id: 7, ttl: 60 }).unwrap();
    store.lease_checkpoint(7, 20);
    for number in 2..=revisions {
        let key = format!("theirs/{number}").into();
        store.put(PutRequest { key, lease: 7, ..put() }).unwrap();
    }
    store.finish_batch();
    let cluster = ClusterState { version: Some("3.7.0".to_owned()), ..Default::default() };
    arrived(&store, (50, 4), &cluster)
}

/// What arrives at this member when another one sends `store`.
pub(super) fn arrived(store: &Store, (index, term): (u64, u64), cluster: &ClusterState) -> Arrived {
    let meta = StoreMeta {
        cluster_id: IDENTITY.cluster_id,
        member_id: 1,
        revision: store.revision(),
        compact_revision: store.compact_revision(),
        leases: store.lease_meta(),
        cluster: cluster.clone(),
        origin: Origin::Log,
    };
    let export = Export::new(meta, Arc::new(store.view(index, term, Arc::new(cluster.clone()))));
    let mut arriving = Arriving::default();
    export.into_pieces(1000).for_each(|piece| arriving.take(&piece).unwrap());
    arriving.finish().unwrap()
}

fn meta_of(job: &SealJob) -> StoreMeta {
    StoreMeta::from_bytes(&job.meta).unwrap()
}

#[test]
fn a_snapshot_waits_for_the_seal_under_way_and_is_sealed_whole() {
    let mut world = World::new();
    let waiting = &mut Vec::new();
    (2..=4).for_each(|index| world.put(index));
    let grown = world.begun();
    assert_eq!((grown.applied_index, meta_of(&grown).origin), (4, Origin::Log));
    world.running.install(received(30));
    for index in 2..=4 {
        assert_eq!(next(&mut world.running.raft, waiting), RaftCompletion::Applied { index });
    }

    // Readers and watchers have it while the old seal goes on.
    let told = &mut Vec::new();
    for _ in 2..=4 {
        assert!(matches!(next(&mut world.running.hub, told), HubMessage::Events(_)));
    }
    let HubMessage::Replaced(view) = next(&mut world.running.hub, told) else {
        panic!("not replaced")
    };
    assert_eq!((view.applied_index(), view.applied_term(), view.revision()), (50, 4, 30));
    assert!(Arc::ptr_eq(&view, &world.running.view.get()));
    assert_eq!(view.cluster().version.as_deref(), Some("3.7.0"));
    let LeaseMessage::Reset(leases) = next(&mut world.running.leases, &mut Vec::new()) else {
        panic!("leases were not reset")
    };
    assert_eq!(leases, [(7, 60, 20)]);
    assert!(world.begun.is_empty(), "there is one seal at a time");
    world.go_on.send(()).unwrap();
    assert_eq!(next(&mut world.running.raft, waiting), RaftCompletion::Sealed { index: 4 });
    let whole = world.begun();
    assert_eq!((whole.applied_index, whole.applied_term), (50, 4));
    assert_eq!(whole.reclaim, Reclaim::Replace);
    let meta = meta_of(&whole);
    assert_eq!((meta.origin, meta.member_id, meta.revision), (Origin::Installed, 2, 30));
    assert_eq!(meta.leases, leases);
    let early = world.running.raft.next().now_or_never();
    assert!(waiting.is_empty() && early.is_none(), "it is not installed before it is durable");
    world.go_on.send(()).unwrap();
    assert_eq!(next(&mut world.running.raft, waiting), RaftCompletion::Installed { index: 50 });

    // The log goes on behind it, and its next seal is an ordinary one.
    (51..=53).for_each(|index| world.put(index));
    for index in 51..=53 {
        assert_eq!(next(&mut world.running.raft, waiting), RaftCompletion::Applied { index });
    }
    let next_one = world.begun();
    assert_eq!((next_one.applied_index, next_one.reclaim), (53, Reclaim::Paced));
    assert_eq!(meta_of(&next_one).origin, Origin::Log);
    assert_eq!(meta_of(&next_one).revision, 33);
    world.go_on.send(()).unwrap();
    assert_eq!(next(&mut world.running.raft, waiting), RaftCompletion::Sealed { index: 53 });
    world.running.end();
}

#[test]
fn a_snapshot_that_finds_nothing_under_way_is_sealed_at_once() {
    let mut world = World::new();
    world.running.install(received(5));
    let whole = world.begun();
    assert_eq!((whole.applied_index, whole.reclaim), (50, Reclaim::Replace));
    world.go_on.send(()).unwrap();
    let completion = next(&mut world.running.raft, &mut Vec::new());
    assert_eq!(completion, RaftCompletion::Installed { index: 50 });

    // What it has now it can pass on.
    let exporter = Exporter::new(world.running.mvcc.clone(), Arc::new(Semaphore::new(1)));
    let export = futures::executor::block_on(exporter.export()).unwrap();
    assert_eq!((export.index(), export.term()), (50, 4));
    world.running.end();
}
