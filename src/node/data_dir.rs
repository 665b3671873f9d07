//! The data directory: made, checked, and locked for one process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// How often is looked whether a lock is free.
const LOCK_LOOK: Duration = Duration::from_secs(1);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refuses.
    #[error("cannot access data directory: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {0} is in use by another castd process")]
    InUse(PathBuf),
    /// It is etcd's.
    #[error(
        "data directory {0} was written by etcd, whose files castd does not read; start with an empty directory"
    )]
    Etcd(PathBuf),
}

/// A data directory that is ours for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    /// Holds the lock; the system gives it back when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and locks it. As in etcd, one that another
    /// process still has is waited for: an old member may be about to end.
    ///
    /// # Errors
    /// [`DataDirError`], but not [`DataDirError::InUse`].
    pub async fn when_free(data_dir: &Path, member_dir: &Path) -> Result<Self, DataDirError> {
        loop {
            match Self::open(data_dir, member_dir) {
                Err(error @ DataDirError::InUse(_)) => {
                    tracing::warn!("{error}: waiting for its end");
                    tokio::time::sleep(LOCK_LOOK).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`DataDirError`].
    fn open(data_dir: &Path, member_dir: &Path) -> Result<Self, DataDirError> {
        let failed = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| DataDirError::Io { action, path, source }
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(member_dir).map_err(failed("create", member_dir))?;
        warn_of_open_doors(data_dir);
        if member_dir.join("snap").join("db").is_file() {
            return Err(DataDirError::Etcd(data_dir.to_path_buf()));
        }
        let path = member_dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse(data_dir.to_path_buf())),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }
}

/// etcd says so, too, when others may look into the directory.
fn warn_of_open_doors(data_dir: &Path) {
    let Ok(metadata) = data_dir.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode != 0o700 {
        tracing::warn!(
            dir = %data_dir.display(), permission = format!("{mode:04o}"),
            "data directory should have permission 0700 without others being able to read it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        let first = DataDir::open(dir.path(), &member).unwrap();
        let second = DataDir::open(dir.path(), &member).unwrap_err();
        assert!(matches!(second, DataDirError::InUse(_)), "{second}");
        drop(first);
        DataDir::open(dir.path(), &member).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_in_use_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        let first = DataDir::open(dir.path(), &member).unwrap();
        let mut second = Box::pin(DataDir::when_free(dir.path(), &member));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }

    #[test]
    fn etcds_own_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        std::fs::create_dir_all(member.join("snap")).unwrap();
        std::fs::write(member.join("snap").join("db"), "bbolt").unwrap();
        let error = DataDir::open(dir.path(), &member).unwrap_err();
        assert!(error.to_string().contains("was written by etcd"), "{error}");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::write(&data, "a file").unwrap();
        let error = DataDir::open(&data, &data.join("member")).unwrap_err();
        assert!(error.to_string().starts_with("cannot access data directory: create"), "{error}");
    }
}
