//! The binaries that take part.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::CompareArgs;
use crate::error::LoadError;

/// A binary that takes part.
#[derive(Debug, Clone)]
pub(super) struct Contender {
    /// Its name in tables.
    pub(super) name: String,
    /// What it says about its version, in one line.
    pub(super) version: String,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Flags for it alone.
    pub(super) args: Vec<String>,
}

impl Contender {
    /// All binaries of a comparison; castd is the first, when it takes part.
    ///
    /// # Errors
    /// When a binary cannot be run.
    pub(super) fn all(args: &CompareArgs) -> Result<Vec<Self>, LoadError> {
        let mut all = Vec::new();
        if let Some(path) = &args.castd {
            all.push(Self::new("castd", path, &args.castd_arg)?);
        }
        for path in &args.etcd {
            let mut contender = Self::new("etcd", path, &args.etcd_arg)?;
            let number = contender.version.split_whitespace().last().unwrap_or_default();
            contender.name = unused_name(&format!("etcd {number}"), &all);
            all.push(contender);
        }
        Ok(all)
    }

    fn new(name: &str, path: &Path, args: &[String]) -> Result<Self, LoadError> {
        let problem = |problem: String| LoadError::Server { server: name.to_owned(), problem };
        let output = Command::new(path).arg("--version").output();
        let output = output.map_err(|error| problem(format!("{}: {error}", path.display())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // castd names the etcd version it is compatible with first, and then its own.
        let own = text.lines().find(|line| line.starts_with("castd Version:"));
        let version = own.or_else(|| text.lines().next()).unwrap_or_default().to_owned();
        Ok(Self { name: name.to_owned(), version, path: path.to_owned(), args: args.to_vec() })
    }
}

/// The same name again, for two builds of one version, gets a number.
fn unused_name(name: &str, taken: &[Contender]) -> String {
    let is_free = |name: &String| taken.iter().all(|other| other.name != *name);
    let numbered = (2..).map(|number| format!("{name} ({number})"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).expect("there is no last number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_of_one_version_are_told_apart() {
        let contender = |name: &str| Contender {
            name: name.into(),
            version: String::new(),
            path: PathBuf::new(),
            args: Vec::new(),
        };
        let taken = [contender("castd"), contender("etcd 3.5.1"), contender("etcd 3.5.1 (2)")];
        assert_eq!(unused_name("etcd 3.4.23", &taken), "etcd 3.4.23");
        assert_eq!(unused_name("etcd 3.5.1", &taken), "etcd 3.5.1 (3)");
    }
}
