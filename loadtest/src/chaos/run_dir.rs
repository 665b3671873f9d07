//! The directory of a round: data, logs, and who it belongs to.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// What the directories' names begin with.
const PREFIX: &str = "castd-chaos-";
/// The file in it that is locked while the round's program lives. Without it the directory is
/// one to keep.
const OWNER: &str = "in-use";

/// A round's directory. Dropping it removes it, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    keep: bool,
    /// Holds the lock.
    _owner: File,
}

impl RunDir {
    /// Makes one in `base`, and removes those of programs that died.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make(base: &Path, seed: u64) -> Result<Self, LoadError> {
        remove_leftovers(base);
        let path = base.join(format!("{PREFIX}{}-{seed}", std::process::id()));
        let owner = take(&path).map_err(|source| LoadError::File {
            what: "cannot make",
            path: path.clone(),
            source,
        })?;
        Ok(Self { path, keep: false, _owner: owner })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Nothing more can be done about what cannot be removed.
        let _ = match self.keep {
            true => std::fs::remove_file(self.path.join(OWNER)),
            false => std::fs::remove_dir_all(&self.path),
        };
    }
}

fn take(path: &Path) -> io::Result<File> {
    std::fs::create_dir_all(path)?;
    let owner = File::create(path.join(OWNER))?;
    owner.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::other("in use"),
    })?;
    Ok(owner)
}

fn remove_leftovers(base: &Path) {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let Ok(owner) = File::open(path.join(OWNER)) else { continue };
        if owner.try_lock().is_ok() {
            // Somebody else may be removing it as well.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_the_dead_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let dead = base.path().join(format!("{PREFIX}1-1"));
        drop(take(&dead).unwrap());
        let kept = base.path().join(format!("{PREFIX}2-2"));
        std::fs::create_dir(&kept).unwrap();
        let living = RunDir::make(base.path(), 3).unwrap();
        assert!(!dead.exists() && kept.exists() && living.path().exists());
        let path = living.path().to_owned();
        let mut next = RunDir::make(base.path(), 4).unwrap();
        assert!(path.exists(), "it is still in use");
        drop(living);
        assert!(!path.exists());
        next.keep();
        let path = next.path().to_owned();
        drop(next);
        assert!(path.exists() && !path.join(OWNER).exists());
    }
}
