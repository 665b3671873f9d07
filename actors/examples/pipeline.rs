//! How fast the company is without a network in front of it:
//! `cargo run --release -p castd-actors --example pipeline -- DIR PUTS CLIENTS`.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castd_actors::Company;
use castd_actors::cluster::{ClusterState, MemberInfo};
use castd_actors::compactor::{AutoCompaction, ScrubPace};
use castd_actors::company::{Begin, CompanyConfig, MembershipRules, WatchThreads, open, start};
use castd_actors::mvcc::SealPolicy;
use castd_actors::wal_writer::{Identity, WalOptions};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::PutRequest;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("a directory");
    let puts: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let clients: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(256);
    actix::System::new().block_on(run(std::path::Path::new(&dir), puts, clients));
}

async fn run(dir: &std::path::Path, puts: u64, clients: u64) {
    let member = MemberInfo { id: 7, ..MemberInfo::default() };
    let cluster = ClusterState { members: [(7, member)].into(), ..ClusterState::default() };
    let identity = Identity { cluster_id: 1, member_id: 7 };
    let wal = WalOptions::new(dir.join("wal"));
    let opened = open(wal, &dir.join("snap"), identity, &Begin::Bootstrap(cluster), false)
        .expect("the directory is usable");
    let (company, running) = start(opened, &config()).expect("the company starts");
    company.read_index().await.expect("the only voter leads");
    let (cpu, clock) = (cpu_time(), Instant::now());
    let each = puts / clients;
    let tasks: Vec<_> = (0..clients)
        .map(|client| actix::spawn(client_loop(company.clone(), client, each)))
        .collect();
    for task in tasks {
        task.await.expect("a client does not panic");
    }
    let (cpu, clock) = (cpu_time() - cpu, clock.elapsed());
    let done = each * clients;
    println!(
        "{done} puts, {:.0} a second, {:.1} us of CPU each",
        done as f64 / clock.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / done as f64
    );
    running.stop();
}

async fn client_loop(company: Company, client: u64, puts: u64) {
    for n in 0..puts {
        let key = (client * puts + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let request = PutRequest {
            key: key.to_vec().into(),
            value: vec![b'v'; 256].into(),
            ..PutRequest::default()
        };
        company.propose(Op::Put(request)).await.expect("a put is applied");
    }
}

fn config() -> CompanyConfig {
    CompanyConfig {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_secs(1),
        pre_vote: true,
        campaign_at_once: true,
        rules: MembershipRules::default(),
        slow_apply: Duration::from_millis(100),
        snapshot_count: 10_000,
        catchup_entries: 5000,
        backlog_bytes_max: 128 << 20,
        seal: SealPolicy { log_bytes: 64 << 20, entries: 500_000 },
        compaction: AutoCompaction::Off,
        scrub: ScrubPace { records: 1000, pause: Duration::from_millis(10) },
        watch_threads: WatchThreads::Own(NonZeroUsize::MIN.saturating_add(1)),
        watch_progress: Duration::from_secs(600),
        watch_fragment_bytes: 2 << 20,
        version: "3.7.1".to_owned(),
        registry: prometheus::Registry::new(),
        fatal: Arc::new(|actor, reason| panic!("{actor}: {reason}")),
    }
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec.unsigned_abs(), u32::try_from(usage.tv_nsec).unwrap_or(0))
}
