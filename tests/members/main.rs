//! Real members on loopback: they begin a cluster, join it, vote in it, and leave it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod limits;
mod site;
mod stop;

use castd_proto::etcdserverpb::kv_client::KvClient;
use castd_proto::etcdserverpb::{
    MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, PutRequest, RangeRequest,
};
use tonic::Code;

use site::{Running, Site, begin};

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_joins_votes_and_another_member_leaves() {
    let site = Site::new(4);
    let mut all = begin(&site, &[0, 1, 2]);
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    KvClient::new(site.channel(0).await).put(put).await.unwrap();

    let learner =
        MemberAddRequest { peer_urls: vec![site.places[3].peer.clone()], is_learner: true };
    let added = site.cluster(1).await.member_add(learner.clone()).await.unwrap().into_inner();
    let id = added.member.expect("the new member is told").id;
    assert_eq!(added.members.len(), 4);
    // Another URL beside it, since the same ones make the same id within a second.
    let urls = vec![learner.peer_urls[0].clone(), "http://127.0.0.1:1".to_owned()];
    let other = MemberAddRequest { peer_urls: urls, is_learner: false };
    let again = site.cluster(2).await.member_add(other).await.unwrap_err();
    assert_eq!(again.message(), "etcdserver: Peer URLs already exists");
    let mut cluster = site.cluster(2).await;
    let early = cluster.member_promote(MemberPromoteRequest { id }).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    assert!(early.message().ends_with("which is in sync with leader"), "{early}");

    let mut joined = site.start(3, &[0, 1, 2, 3], &["--initial-cluster-state", "existing"]);
    joined.wait_until_ready();
    // Of the three, at least two are no leader and have to ask it.
    cluster.member_promote(MemberPromoteRequest { id }).await.unwrap();
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let found = KvClient::new(site.channel(3).await).range(range).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "v");

    let leaving = site.id(3, 0).await;
    let left = cluster.member_remove(MemberRemoveRequest { id: leaving }).await.unwrap();
    assert_eq!(left.into_inner().members.len(), 3);
    let (_, status) = all.remove(0).wait_until_ended();
    assert_eq!(status.code(), Some(0));
    let (said, status) = site.start(0, &[0, 1, 2], &[]).wait_until_ended();
    assert!(said.contains("the member has been permanently removed from the cluster"), "{said}");
    assert_eq!(status.code(), Some(1));
    let put = PutRequest { key: "k".into(), value: "w".into(), ..PutRequest::default() };
    KvClient::new(site.channel(3).await).put(put).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_or_unknown_may_not_begin_or_join() {
    let site = Site::new(3);
    let mut all = begin(&site, &[0, 1]);
    // A member without its data would break what it promised.
    drop(all.remove(1));
    let empty = site.dir.path().join("empty");
    let (said, status) = site.start_with_data(1, &[0, 1], &empty, &[]).wait_until_ended();
    assert!(said.contains("has already been bootstrapped"), "{said}");
    assert_eq!(status.code(), Some(1));
    let existing = ["--initial-cluster-state", "existing"];
    let (said, status) = site.start(2, &[0, 1, 2], &existing).wait_until_ended();
    assert!(said.contains("member count is unequal"), "{said}");
    assert_eq!(status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_goes_on_alone_with_its_data() {
    let site = Site::new(2);
    let all = begin(&site, &[0, 1]);
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    KvClient::new(site.channel(0).await).put(put).await.unwrap();
    drop(all);
    site.start(0, &[0, 1], &["--force-new-cluster"]).wait_until_ready();
    let mut alone = site.start(0, &[0, 1], &[]);
    alone.wait_until_ready();
    assert_eq!(site.members(0).await.len(), 1);
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let found = KvClient::new(site.channel(0).await).range(range).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_disk_is_refused_when_all_start_again() {
    let site = Site::new(3);
    drop(begin(&site, &[0, 1, 2]));
    std::fs::remove_dir_all(site.dir.path().join("m2")).unwrap();
    let mut others = [0, 1].map(|n| site.start(n, &[0, 1, 2], &[]));
    for place in &site.places[..2] {
        let address = place.peer.trim_start_matches("http://");
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    // They are there, and need not have read their data yet.
    let (said, status) = site.start(2, &[0, 1, 2], &[]).wait_until_ended();
    assert!(said.contains("has already been bootstrapped"), "{said}");
    assert_eq!(status.code(), Some(1));
    others.iter_mut().for_each(Running::wait_until_ready);
}

#[test]
fn a_port_in_use_is_told_before_anything_is_written() {
    let site = Site::new(1);
    let _running = begin(&site, &[0]);
    let elsewhere = site.dir.path().join("elsewhere");
    for data in [&elsewhere, &site.dir.path().join("m0")] {
        let (said, status) = site.start_with_data(0, &[0], data, &[]).wait_until_ended();
        let address = site.places[0].client.trim_start_matches("http://");
        let text = format!("listen tcp {address}: bind: address already in use");
        assert!(said.contains(&text), "{said}");
        assert_eq!(status.code(), Some(1));
    }
    assert!(!elsewhere.exists());
}
