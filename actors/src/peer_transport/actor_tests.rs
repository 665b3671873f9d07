//! Who has a link, and whose figures there are, at given times.

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus::Registry;

use super::*;
use crate::cluster::MemberInfo;
use crate::shared::{Error, Switchboard};
use crate::snapshot::Export;
use crate::wal_writer::Identity;

struct Nothing;

impl SnapshotSource for Nothing {
    fn export(&self) -> BoxFuture<'_, Result<Export, Error>> {
        std::future::ready(Err(Error::Stopped)).boxed()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The transport of member 1, which knows of member 2; both are nowhere. Its patience
/// with strangers is six seconds.
fn transport() -> (PeerTransport, Registry) {
    let board = Switchboard::default();
    let (raft, _) = board.mailbox("raft_inbound", 64);
    let (inlet, messages) = board.mailbox("peer_transport", 64);
    let edges = PeerEdges {
        raft,
        transport: inlet,
        status: Published::new(PeerStatus::default()),
        snapshots: Arc::new(Nothing),
    };
    let identity = Identity { cluster_id: 1, member_id: 1 };
    let settings = PeerSettings::new(identity, "3.7.0", SECOND / 10, SECOND);
    let registry = Registry::new();
    let metrics = PeerMetrics::new(&registry).unwrap();
    let mut transport = PeerTransport::new(settings, edges, messages, metrics);
    transport.handle(PeerMessage::Members(Arc::new(cluster([1, 2]))));
    (transport, registry)
}

fn cluster<const N: usize>(ids: [u64; N]) -> ClusterState {
    let member = |id| MemberInfo { id, peer_urls: nowhere(id), ..MemberInfo::default() };
    let members = ids.map(|id| (id, member(id))).into();
    ClusterState { members, ..ClusterState::default() }
}

fn nowhere(id: u64) -> Vec<String> {
    vec![format!("http://127.0.0.1:1/{id}")]
}

fn links(transport: &PeerTransport) -> Vec<u64> {
    transport.links.keys().copied().collect()
}

/// The ids and other names by which anything is counted; this member is known to itself.
fn names(registry: &Registry) -> Vec<String> {
    let families = registry.gather();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let labels = metrics.flat_map(|metric| metric.get_label());
    let theirs = labels.filter(|label| matches!(label.name(), "Remote" | "To" | "From"));
    let mut names: Vec<String> = theirs.map(|label| label.value().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[actix::test]
async fn a_stranger_that_calls_no_more_goes_and_leaves_nothing() {
    let (mut transport, registry) = transport();
    let start = Instant::now();
    transport.called(0xa, nowhere(0xa), start);
    transport.called(0xb, nowhere(0xb), start);
    transport.metrics.caller(0xa).received_bytes.inc_by(10);
    assert_eq!(links(&transport), [2, 0xa, 0xb]);
    assert_eq!(names(&registry), ["1", "2", "a", "b"]);
    transport.called(0xa, nowhere(0xa), start + 5 * SECOND);
    transport.expire_strangers(start + 7 * SECOND);
    assert_eq!(links(&transport), [2, 0xa]);
    assert_eq!(names(&registry), ["1", "2", "a"]);
    transport.expire_strangers(start + 60 * SECOND);
    assert_eq!(links(&transport), [2], "a member that says nothing stays");
    assert_eq!(names(&registry), ["1", "2"]);
}

#[actix::test]
async fn who_calls_next_has_a_link_however_many_have_called() {
    let (mut transport, registry) = transport();
    let start = Instant::now();
    (100..200).for_each(|id| transport.called(id, nowhere(id), start));
    transport.called(0xa, nowhere(0xa), start + SECOND);
    assert!(transport.links.contains_key(&0xa));
    assert_eq!((transport.links.len(), names(&registry).len()), (17, 18));
}

#[actix::test]
async fn a_stranger_stays_while_raft_answers_it_and_comes_back_for_that() {
    let (mut transport, _) = transport();
    let start = Instant::now();
    transport.called(0xa, nowhere(0xa), start);
    transport.have_reason(0xa, start + 5 * SECOND);
    transport.expire_strangers(start + 10 * SECOND);
    assert_eq!(links(&transport), [2, 0xa]);
    transport.expire_strangers(start + 20 * SECOND);
    assert_eq!(links(&transport), [2]);
    transport.have_reason(0xb, start + 30 * SECOND);
    transport.have_reason(0xa, start + 30 * SECOND);
    assert_eq!(links(&transport), [2, 0xa]);
    assert_eq!(transport.links[&0xa].urls, nowhere(0xa));
    // As a member it needs no reason.
    transport.handle(PeerMessage::Members(Arc::new(cluster([1, 2, 0xa]))));
    transport.expire_strangers(start + 60 * SECOND);
    assert_eq!(links(&transport), [2, 0xa]);
}

#[actix::test]
async fn a_stranger_is_where_it_says_now() {
    let (mut transport, _) = transport();
    let start = Instant::now();
    transport.called(0xa, nowhere(1), start);
    transport.called(0xa, nowhere(0xa), start);
    assert_eq!(transport.links[&0xa].urls, nowhere(0xa));
    transport.called(2, nowhere(7), start);
    assert_eq!(transport.links[&2].urls, nowhere(2), "where a member is, the cluster says");
}

#[actix::test]
async fn callers_that_are_nobody_are_counted_under_one_name() {
    let (transport, registry) = transport();
    let early = transport.metrics.caller(3);
    (100..200).for_each(|id| transport.metrics.caller(id).received_bytes.inc_by(1));
    early.received_bytes.inc_by(1);
    assert_eq!(names(&registry), ["1", "2", "unknown"]);
    // Once it is known that it is a member, what its stream brings is its own.
    transport.metrics.know([2, 3].into());
    early.received_bytes.inc_by(5);
    early.receive_failures.inc();
    assert_eq!(names(&registry), ["1", "2", "3", "unknown"]);
    let bytes = |from: &str| {
        let families = registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "etcd_network_peer_received_bytes_total");
        let of = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == from;
        family.unwrap().get_metric().iter().find(of).map(|m| m.get_counter().get_value())
    };
    assert_eq!((bytes("unknown"), bytes("3")), (Some(101.0), Some(5.0)));
}
