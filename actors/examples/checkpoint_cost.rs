//! What the checkpoint costs: disk bytes, CPU, memory and time of seals and loads, the
//! disk after deletes, and what a seal does to the fsyncs of a log beside it.
//!
//! ```text
//! cargo run --release -p castd-actors --example checkpoint_cost -- seal  DIR MB BLOCK_KIB [VOLUME_MIB]
//! cargo run --release -p castd-actors --example checkpoint_cost -- load  DIR
//! cargo run --release -p castd-actors --example checkpoint_cost -- churn DIR MB BLOCK_KIB
//! cargo run --release -p castd-actors --example checkpoint_cost -- fsync DIR SECONDS [MB_PER_SECOND]
//! ```
//! `seal` makes one seal of so many MB in an empty directory; `load` reads it; `churn`
//! adds a tenth at a time, deletes half, then nine tenths; `fsync` times a log's
//! fdatasync of 4 KiB, alone and then beside a seal at this rate.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use castd_actors::checkpointer::{
    BlockSource, BlockVisitor, CheckpointStore, Reclaim, RevisionKey, SealJob, SledStore,
    SledStoreOptions, StoreError,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Blocks of bytes that no compressor shortens; block n holds the revisions from 200 n.
#[derive(Clone)]
struct Blocks {
    pool: Arc<Vec<u8>>,
    block_bytes: usize,
    /// For each block, how many of ten parts of it live.
    tenths: Arc<Vec<u8>>,
}

const REVISIONS: i64 = 200;
const POOL_BYTES: usize = 8 << 20;

impl Blocks {
    fn new(block_bytes: usize, tenths: Vec<u8>) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..POOL_BYTES / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self { pool: Arc::new(words.collect()), block_bytes, tenths: Arc::new(tenths) }
    }

    fn block(&self, n: usize) -> &[u8] {
        let start = n * 7919 % (POOL_BYTES - self.block_bytes);
        &self.pool[start..start + self.block_bytes * usize::from(self.tenths[n]) / 10]
    }

    fn range(&self, from: RevisionKey, to: RevisionKey) -> std::ops::Range<usize> {
        let place = |main: i64| usize::try_from(main.max(0)).unwrap_or(0) / REVISIONS as usize;
        let end = (place(to.main) + 1).min(self.tenths.len());
        (place(from.main.saturating_add(REVISIONS - 1).min(i64::MAX - REVISIONS))).min(end)..end
    }

    fn last(&self) -> RevisionKey {
        RevisionKey { main: self.tenths.len() as i64 * REVISIONS - 1, sub: 0 }
    }
}

impl BlockSource for Blocks {
    fn visit(
        &self,
        from: RevisionKey,
        to: RevisionKey,
        f: BlockVisitor<'_>,
    ) -> Result<(), StoreError> {
        for n in self.range(from, to).filter(|&n| self.tenths[n] > 0) {
            let main = n as i64 * REVISIONS;
            let last = RevisionKey { main: main + REVISIONS - 1, sub: 0 };
            f(RevisionKey { main, sub: 0 }, last, self.block(n))?;
        }
        Ok(())
    }

    fn live_bytes(&self, from: RevisionKey, to: RevisionKey) -> u64 {
        self.range(from, to).map(|n| self.block(n).len() as u64).sum()
    }
}

fn job(index: u64, blocks: &Blocks, reclaim: Reclaim) -> SealJob {
    SealJob {
        applied_index: index,
        applied_term: 1,
        last: blocks.last(),
        meta: Bytes::from_static(b"meta"),
        compact_revision: 0,
        reclaim,
        source: Arc::new(blocks.clone()),
    }
}

/// What the process has used so far.
struct Usage {
    at: Instant,
    cpu_seconds: f64,
    write_bytes: u64,
}

fn usage() -> Outcome<Usage> {
    let io = fs::read_to_string("/proc/self/io")?;
    let field = |name: &str| io.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
    let write_bytes = field("write_bytes:").ok_or("no write_bytes")?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().ok_or("no stat")?;
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    Ok(Usage { at: Instant::now(), cpu_seconds: ticks / 100.0, write_bytes })
}

fn memory_mb(field: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with(field)).ok_or("no such field")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no value")?.parse()?;
    Ok(kib / 1024)
}

fn disk_use(path: &Path) -> Outcome<u64> {
    let mut bytes = fs::metadata(path)?.blocks() * 512;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += disk_use(&entry?.path())?;
        }
    }
    Ok(bytes)
}

fn report(what: &str, before: &Usage, content: u64) -> Outcome<()> {
    let now = usage()?;
    let mb = content as f64 / 1e6;
    println!(
        "{what}: {mb:.0} MB in {:.2} s, CPU {:.2} ms/MB, written {:.3} bytes a byte, peak {} MB",
        (now.at - before.at).as_secs_f64(),
        (now.cpu_seconds - before.cpu_seconds) * 1e3 / mb,
        (now.write_bytes - before.write_bytes) as f64 / content as f64,
        memory_mb("VmHWM")?,
    );
    Ok(())
}

fn seal(dir: &Path, mb: usize, block_kib: usize, options: SledStoreOptions) -> Outcome<()> {
    let block_bytes = block_kib << 10;
    let blocks = Blocks::new(block_bytes, vec![10; (mb * 1_000_000).div_ceil(block_bytes)]);
    let mut store = SledStore::open(dir, options)?;
    let (before, base_mb) = (usage()?, memory_mb("VmHWM")?);
    let sealed = store.seal(&job(1, &blocks, Reclaim::Paced))?;
    let content = blocks.live_bytes(RevisionKey::MIN, RevisionKey::MAX);
    report("seal", &before, content)?;
    let disk = disk_use(dir)?;
    println!(
        "  {} volumes, disk {:.3}, peak over {base_mb} MB before",
        sealed.volumes,
        disk as f64 / content as f64
    );
    Ok(())
}

fn load(dir: &Path) -> Outcome<()> {
    let before = usage()?;
    let mut store = SledStore::open(dir, SledStoreOptions::default())?;
    let mut content = 0;
    store.load(&mut |_, _, bytes| {
        content += bytes.len() as u64;
        Ok(())
    })?;
    report("load", &before, content)
}

fn churn(dir: &Path, mb: usize, block_kib: usize) -> Outcome<()> {
    let block_bytes = block_kib << 10;
    let count = (mb * 1_000_000).div_ceil(block_bytes);
    let mut store = SledStore::open(dir, SledStoreOptions::default())?;
    let (mut written, mut index) = (0, 0);
    let mut step = |what: &str, blocks: &Blocks, reclaim| -> Outcome<u64> {
        index += 1;
        let sealed = store.seal(&job(index, blocks, reclaim))?;
        written += sealed.bytes_written;
        println!(
            "{what}: live {:.1} MB, disk {:.1} MB, {} volumes, written {:.1} MB, so far {:.1} MB",
            blocks.live_bytes(RevisionKey::MIN, RevisionKey::MAX) as f64 / 1e6,
            disk_use(dir)? as f64 / 1e6,
            sealed.volumes,
            sealed.bytes_written as f64 / 1e6,
            written as f64 / 1e6,
        );
        Ok(sealed.bytes_written)
    };
    for tenth in 1..=10 {
        let blocks = Blocks::new(block_bytes, vec![10; count * tenth / 10]);
        step("grow", &blocks, Reclaim::Paced)?;
    }
    for (what, tenths) in [("half deleted", 5), ("nine tenths deleted", 1)] {
        let blocks = Blocks::new(block_bytes, vec![tenths; count]);
        for _ in 0..20 {
            if step(what, &blocks, Reclaim::Paced)? < 10_000 {
                break;
            }
        }
    }
    let emptied: Vec<u8> = (0..count).map(|n| if n % 20 == 0 { 1 } else { 0 }).collect();
    step("defragmented", &Blocks::new(block_bytes, emptied), Reclaim::All)?;
    Ok(())
}

/// Times fdatasync of 4 KiB into a file that was written before, as a recycled log is.
fn time_fsyncs(path: &Path, until: &dyn Fn() -> bool) -> Outcome<Vec<Duration>> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; 64 << 20])?;
    file.sync_all()?;
    let (mut took, mut offset) = (Vec::new(), 0);
    while !until() {
        file.write_all_at(&[7; 4096], offset)?;
        offset = (offset + 4096) % (64 << 20);
        let started = Instant::now();
        file.sync_data()?;
        took.push(started.elapsed());
        // A log at about a thousand groups a second, so that the load is the same each time.
        std::thread::sleep(Duration::from_micros(700));
    }
    fs::remove_file(path)?;
    Ok(took)
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{what}: {} fsyncs, p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us",
        took.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn fsync(dir: &Path, seconds: u64, options: SledStoreOptions) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    let log = dir.join("log");
    let end = Instant::now() + Duration::from_secs(seconds);
    show("alone", time_fsyncs(&log, &|| Instant::now() > end)?);
    let done = Arc::new(AtomicBool::new(false));
    let (dir, done_there) = (dir.join("snap"), Arc::clone(&done));
    let sealing = std::thread::spawn(move || {
        let _priority = rustix::process::nice(10);
        let blocks = Blocks::new(64 << 10, vec![10; 4000]);
        let outcome = SledStore::open(&dir, options)
            .and_then(|mut store| store.seal(&job(1, &blocks, Reclaim::Paced)));
        done_there.store(true, Ordering::Release);
        outcome
    });
    let took = time_fsyncs(&log, &|| done.load(Ordering::Acquire))?;
    let sealed = sealing.join().map_err(|_| "the seal panicked")??;
    show("beside a seal", took);
    println!("  the seal: {} MB in {:?}", sealed.bytes_written / 1_000_000, sealed.took);
    Ok(())
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<usize>().ok());
    let dir = args.get(1).map(PathBuf::from).ok_or("no directory")?;
    let mut options = SledStoreOptions { bytes_per_second_max: u64::MAX, ..Default::default() };
    match (args[0].as_str(), number(2), number(3)) {
        ("seal", Some(mb), Some(block_kib)) => {
            if let Some(mib) = number(4) {
                options.volume_bytes = (mib as u64) << 20;
            }
            seal(&dir, mb, block_kib, options)
        }
        ("load", ..) => load(&dir),
        ("churn", Some(mb), Some(block_kib)) => churn(&dir, mb, block_kib),
        ("fsync", Some(seconds), rate) => {
            if let Some(mb) = rate {
                options.bytes_per_second_max = mb as u64 * 1_000_000;
            }
            fsync(&dir, seconds as u64, options)
        }
        _ => Err("see the head of the source for how to call this".into()),
    }
}
