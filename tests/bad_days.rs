//! Disks that lie, fill up or refuse: a clear word and an end, or a right
//! start; never a wrong answer.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use castd_proto::etcdserverpb::{PutRequest, RangeRequest};
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::Member;

async fn put(member: &Member, key: &str, value: Vec<u8>) -> Result<i64, tonic::Status> {
    let key = key.to_owned().into();
    let request = PutRequest { key, value: value.into(), ..PutRequest::default() };
    let response = member.kv().await.put(request).await?.into_inner();
    Ok(response.header.expect("a reply has a header").revision)
}

async fn get(member: &Member, key: &str) -> Option<Vec<u8>> {
    let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
    let response = member.kv().await.range(request).await.expect("a read is answered");
    response.into_inner().kvs.into_iter().next().map(|kv| kv.value.to_vec())
}

/// A data directory with some history, of a member that was killed.
async fn written(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    let member = Member::start(&data);
    for n in 0..50 {
        put(&member, &format!("k{}", n % 10), n.to_string().into_bytes()).await.expect("it writes");
    }
    member.kill();
    data
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    all.sort();
    all
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).expect("it can be written");
}

fn refused(data: &Path) -> String {
    Member::try_start(data, &[]).err().expect("the member must not start")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_waits_for_the_first_ones_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Member::start(&data);
    let (said, heard) = std::sync::mpsc::sync_channel(1024);
    let second = std::thread::spawn({
        let data = data.clone();
        move || {
            Member::try_start_telling(&data, &[], move |line| drop(said.try_send(line.to_owned())))
        }
    });
    let mut lines = heard.iter();
    assert!(lines.any(|line| line.contains("is in use by another castd process")));
    put(&first, "k", b"still here".to_vec()).await.unwrap();
    first.kill();
    let second = second.join().unwrap().unwrap();
    assert_eq!(get(&second, "k").await, Some(b"still here".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_refused_or_was_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = written(dir.path()).await;
    let segment = files(&data.join("member/wal"), ".wal").remove(0);
    let whole = fs::read(&segment).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut chance = StdRng::seed_from_u64(3);
    let mut refusals = 0;
    for _ in 0..12 {
        // Not the last group: damage there looks like a write that was never finished.
        let at = chance.random_range(0..used * 3 / 4);
        flip(&segment, at, chance.random_range(0..8));
        match Member::try_start(&data, &[]) {
            Err(said) => {
                refusals += 1;
                assert!(said.contains(".wal"), "the file is named: {said}");
            }
            Ok(member) => {
                // Padding between records may change without harm.
                for n in 40..50 {
                    let value = get(&member, &format!("k{}", n % 10)).await;
                    assert_eq!(value, Some(n.to_string().into_bytes()), "flipped at {at}");
                }
                member.kill();
            }
        }
        fs::write(&segment, &whole).unwrap();
    }
    assert!(refusals > 0, "damage to acknowledged records is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = written(dir.path()).await;
    let segment = files(&data.join("member/wal"), ".wal").remove(0);
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(8192).unwrap();
    let said = refused(&data);
    assert!(said.contains(".wal"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_checkpoint_is_refused_with_the_ways_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = written(dir.path()).await;
    let manifest = data.join("member/snap/manifest");
    let whole = fs::read(&manifest).unwrap();
    for at in [0, 9, whole.len() / 2, whole.len() - 1] {
        flip(&manifest, at, 3);
        let said = refused(&data);
        assert!(said.contains("manifest"), "{said}");
        fs::write(&manifest, &whole).unwrap();
    }
    fs::remove_file(&manifest).unwrap();
    let said = refused(&data);
    assert!(said.contains("no checkpoint to begin from"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_log_is_refused_when_a_checkpoint_counts_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let member = Member::start(&data);
    // More than one checkpoint's worth of log.
    for n in 0..80 {
        put(&member, &format!("k{n}"), vec![b'v'; 1 << 20]).await.unwrap();
    }
    // A checkpoint is durable when segments below it are gone.
    let first = files(&data.join("member/wal"), ".wal").remove(0);
    let mut n = 0;
    while files(&data.join("member/wal"), ".wal").contains(&first) {
        put(&member, "more", vec![b'v'; 1 << 20]).await.unwrap();
        n += 1;
        assert!(n < 500, "the checkpoint never lets go of the log");
    }
    member.kill();
    let member = Member::start(&data);
    assert_eq!(get(&member, "k79").await.map(|value| value.len()), Some(1 << 20));
    member.kill();
    fs::remove_dir_all(data.join("member/wal")).unwrap();
    let said = refused(&data);
    assert!(said.contains("there is no log"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::write(&data, "a file is in the way").unwrap();
    let said = refused(&data);
    assert!(said.contains("cannot access data directory"), "{said}");
}
