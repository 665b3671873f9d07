//! A member that is told to stop does so at once, whatever it is about.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use castd_proto::etcdserverpb::lease_client::LeaseClient;
use castd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use castd_proto::etcdserverpb::watch_client::WatchClient;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, StatusRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use futures::{StreamExt, stream};
use rustix::process::{Signal, kill_process};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::site::{Running, Site, begin};

const SIGTERM: i32 = 15;

/// A stop takes two heartbeats after the lead was handed over; a machine with much else to
/// do is given more, and far less than the 5 seconds that calls are given to end.
const STOP_MAX: Duration = Duration::from_secs(2);

fn wait_until_terminated(member: Running) {
    let (said, status) = member.wait_until_ended();
    assert_eq!(status.signal(), Some(SIGTERM), "{said}");
}

#[test]
fn who_looks_for_a_name_goes_on_looking_and_hears_signals() {
    let site = Site::new(1);
    let elsewhere = ["--initial-advertise-peer-urls", "http://nowhere.invalid:2380"];
    let mut member = site.start(0, &[0], &elsewhere);
    member.wait_until_says("failed to resolve URL Host");
    member.wait_until_says("failed to resolve URL Host");
    let told = Instant::now();
    member.terminate();
    wait_until_terminated(member);
    assert!(told.elapsed() < STOP_MAX, "it took {:?}", told.elapsed());
}

#[test]
fn signals_that_mean_nothing_to_a_member_do_not_end_it() {
    let site = Site::new(1);
    let mut member = site.start(0, &[0], &[]);
    member.wait_until_says("started member");
    for signal in [Signal::USR1, Signal::USR2, Signal::ALARM] {
        member.signal(signal);
    }
    member.terminate();
    wait_until_terminated(member);
}

/// When a member is given up that waits for its lookup, which never ends.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// The first process of a container hears of a signal while the system looks for a name, and
/// does not wait for it. What the system reads for that is a pipe here, which says nothing.
#[test]
fn the_first_process_does_not_wait_for_a_name() {
    let own_processes = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    let tried = Command::new("unshare").args(own_processes).arg("true").status();
    if !tried.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "nothing can be the first process here");
        eprintln!("\n*** SKIPPED: nothing can be the first process here ***\n");
        return;
    }
    let site = Site::new(1);
    let aliases = site.dir.path().join("aliases");
    assert!(Command::new("mkfifo").arg(&aliases).status().unwrap().success());
    let mut launcher = Command::new("unshare");
    launcher.args(own_processes).env("HOSTALIASES", &aliases);
    let elsewhere = ["--initial-advertise-peer-urls", "http://nowhere:2380"];
    let member = site.start_by(launcher, 0, &[0], &elsewhere);

    // Opens when the system's lookup opens it for reading.
    let (opened, opening) = mpsc::sync_channel(1);
    thread::spawn(move || opened.send(File::options().write(true).open(aliases)));
    let _says_nothing = opening.recv_timeout(LOOKUP_MAX).expect("a name is looked up").unwrap();
    let first = member.child();
    let (ended, ending) = mpsc::sync_channel::<()>(1);
    let watch = thread::spawn(move || {
        if ending.recv_timeout(LOOKUP_MAX) == Err(RecvTimeoutError::Timeout) {
            kill_process(first, Signal::KILL).unwrap();
        }
    });
    let told = Instant::now();
    kill_process(first, Signal::TERM).unwrap();
    let (said, status) = member.wait_until_ended();
    let took = told.elapsed();
    drop(ended);
    watch.join().unwrap();
    assert!(took < STOP_MAX, "it took {took:?}: {said}");
    assert_eq!(status.code(), Some(0), "{said}");
}

async fn watch(channel: Channel) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The client may have more to ask: it does not end its half of the stream.
    let requests = stream::iter([request]).chain(stream::pending());
    let mut watch = WatchClient::new(channel).watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    watch
}

async fn keep_alive(channel: Channel) -> Streaming<LeaseKeepAliveResponse> {
    let mut lease = LeaseClient::new(channel);
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    let id = lease.lease_grant(grant).await.unwrap().into_inner().id;
    let requests = stream::iter([LeaseKeepAliveRequest { id }]).chain(stream::pending());
    let mut renewals = lease.lease_keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(renewals.message().await.unwrap().unwrap().ttl, 60);
    renewals
}

async fn leader(site: &Site, members: &[usize]) -> usize {
    for n in members {
        let mut maintenance = MaintenanceClient::new(site.channel(*n).await);
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        if status.leader == status.header.expect("a reply has a header").member_id {
            return *n;
        }
    }
    panic!("nobody leads");
}

/// Clients of etcd look for another member when they are told that this one is not
/// available.
fn look_elsewhere(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_stop_does_not_wait_for_streams_that_never_end() {
    let site = Site::new(3);
    let cluster = [0, 1, 2];
    let mut all = begin(&site, &cluster);
    let leading = leader(&site, &cluster).await;
    let member = all.remove(leading);
    let (mut watches, mut renewals) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let channel = site.channel(leading).await;
        for _ in 0..10 {
            watches.push(watch(channel.clone()).await);
        }
        renewals.push(keep_alive(channel).await);
    }
    let told = Instant::now();
    member.terminate();
    wait_until_terminated(member);
    assert!(told.elapsed() < STOP_MAX, "it took {:?}", told.elapsed());
    for mut watch in watches {
        look_elsewhere(&watch.message().await.unwrap_err());
    }
    for mut renewals in renewals {
        look_elsewhere(&renewals.message().await.unwrap_err());
    }
}
