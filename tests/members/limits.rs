//! Limits that are meant for some do not come between the others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use castd_proto::etcdserverpb::kv_client::KvClient;
use castd_proto::etcdserverpb::lease_client::LeaseClient;
use castd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use castd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, StatusRequest,
};

use super::site::{Running, Site};

/// Far longer than an election and every attempt to connect take.
const PATIENCE: Duration = Duration::from_secs(60);

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), ..PutRequest::default() }
}

/// Connections that say nothing.
fn silent(address: &str, many: u32) -> Vec<TcpStream> {
    (0..many)
        .map(|_| TcpStream::connect(address).expect("the kernel keeps those who wait"))
        .collect()
}

/// A client that says it speaks HTTP/2, and nothing more.
fn idle(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it is listened at");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The preface, and an empty frame of settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream
}

/// Waits until an idle client's ping is answered.
fn ping(mut idle: TcpStream) {
    idle.write_all(b"\0\0\x08\x06\0\0\0\0\0whatever").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\0\0\x08\x06\x01\0\0\0\0whatever") {
        let mut byte = [0];
        idle.read_exact(&mut byte).expect("the connection is kept");
        said.push(byte[0]);
    }
}

/// What a listener of HTTP answers to one request.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it is listened at");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: castd\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Writes as soon as there is a leader for it.
async fn put_in_the_end(site: &Site, n: usize, key: &str) {
    let mut kv = KvClient::new(site.channel(n).await);
    let written = async {
        // A member without a leader takes its time to say so.
        while kv.put(put(key)).await.is_err() {}
    };
    tokio::time::timeout(PATIENCE, written).await.expect("there is a majority");
}

/// Lets the second of three members leave and come back, and then the third one leave, so that
/// the first one is needed: its vote, its log, and new connections. Gives the second one.
async fn take_turns(site: &Site, others: [Running; 2]) -> Running {
    let [second, third] = others;
    drop(second);
    put_in_the_end(site, 2, "without the second").await;
    let mut second = site.start(1, &[0, 1, 2], &[]);
    second.wait_until_ready();
    drop(third);
    put_in_the_end(site, 1, "without the third").await;
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_leave_descriptors_to_the_log_and_to_members() {
    const DESCRIPTORS: u32 = 256;
    let site = Site::new(3);
    let cluster = [0, 1, 2];
    let mut crowded = site.start_with_limit(0, &cluster, DESCRIPTORS, &[]);
    let mut others = [1, 2].map(|n| site.start(n, &cluster, &[]));
    crowded.wait_until_ready();
    others.iter_mut().for_each(Running::wait_until_ready);

    let address = site.places[0].client.trim_start_matches("http://");
    let crowd = silent(address, DESCRIPTORS + 100);

    let _second = take_turns(&site, others).await;

    // Who waited gets a turn when another leaves.
    drop(crowd);
    put_in_the_end(&site, 0, "nobody else is there").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_no_descriptor_from_the_others() {
    const DESCRIPTORS: u32 = 260;
    const SILENT: u32 = 300;
    let site = Site::new(3);
    let cluster = [0, 1, 2];
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = ["--listen-metrics-urls", &format!("http://{metrics}")];
    let mut crowded = site.start_with_limit(0, &cluster, DESCRIPTORS, &flags);
    let mut others = [1, 2].map(|n| site.start(n, &cluster, &[]));
    crowded.wait_until_ready();
    others.iter_mut().for_each(Running::wait_until_ready);

    // Everywhere at once: none of these listeners takes from another.
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let client = address(&site.places[0].client);
    let idle = idle(&client);
    let _members = silent(&address(&site.places[0].peer), SILENT);
    let _scrapers = silent(&metrics, SILENT);
    let _clients = silent(&client, SILENT);
    assert!(get(&metrics, "/health").contains(r#""health":"true""#));

    let _second = take_turns(&site, others).await;
    put_in_the_end(&site, 0, "by way of the crowded one").await;
    ping(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_ask_each_other_whatever_streams_clients_may_have() {
    let site = Site::new(3);
    let cluster = [0, 1, 2];
    let mut all: Vec<Running> = cluster
        .iter()
        .map(|n| site.start(*n, &cluster, &["--max-concurrent-streams", "1"]))
        .collect();
    all.iter_mut().for_each(Running::wait_until_ready);
    let mut lease = LeaseClient::new(site.channel(0).await);
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    let id = lease.lease_grant(grant).await.unwrap().into_inner().id;
    let mut followers = 0;
    for n in cluster {
        let mut maintenance = MaintenanceClient::new(site.channel(n).await);
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        let own = status.header.expect("a reply has a header").member_id;
        followers += usize::from(status.leader != own);
        let mut lease = LeaseClient::new(site.channel(n).await);
        let requests = futures::stream::iter([LeaseKeepAliveRequest { id }]);
        let mut renewals = lease.lease_keep_alive(requests).await.unwrap().into_inner();
        let renewed = renewals.message().await.expect("the leader is asked").expect("an answer");
        assert_eq!(renewed.ttl, 60);
    }
    assert_eq!(followers, 2);
}
