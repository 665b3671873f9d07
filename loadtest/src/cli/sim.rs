//! The options of `sim`.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use castd_sim::Profile;
use clap::Args;

use super::parse::{duration, size};

/// Faults that anybody may name; worlds have far fewer.
const FAULTS_MAX: usize = 100_000;

/// Which kinds of trouble seeds get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SimProfile {
    /// Each seed the one that falls to its number, in turn.
    All,
    /// All of them this one.
    One(Profile),
}

impl SimProfile {
    /// The profile of a seed.
    pub(crate) fn of(self, seed: u64) -> Profile {
        match self {
            Self::All => Profile::ALL[(seed % Profile::ALL.len() as u64) as usize],
            Self::One(profile) => profile,
        }
    }
}

impl FromStr for SimProfile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            name => name.parse().map(Self::One).map_err(|error| format!("{error}, all")),
        }
    }
}

/// Numbers of faults: `3,7-9` for 3, 7, 8, 9.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Faults(pub(crate) BTreeSet<usize>);

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse::<usize>() {
            Ok(number) if number < FAULTS_MAX => Ok(number),
            _ => Err(format!("not the number of a fault: {text:?}")),
        };
        let mut faults = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            faults.extend(number(first)?..=number(last)?);
        }
        Ok(Self(faults))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for fault in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *fault => *last = *fault,
                _ => runs.push((*fault, *fault)),
            }
        }
        for (number, (first, last)) in runs.into_iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match first == last {
                true => write!(out, "{comma}{first}")?,
                false => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A bug by its name.
///
/// # Errors
/// With a text for the user when there is none of that name.
#[cfg(feature = "planted")]
fn planted(text: &str) -> Result<castd_sim::Planted, String> {
    let all = castd_sim::Planted::ALL.iter();
    let names = || all.clone().map(|bug| format!("{bug:?}")).collect::<Vec<_>>().join(", ");
    let found = all.clone().find(|bug| format!("{bug:?}") == text).copied();
    found.ok_or_else(|| format!("no such bug: {text:?}; there are {}", names()))
}

/// Options of `sim`.
///
/// Exit status 0: every promise held; 1: a seed failed, which is told with the command that
/// replays it; 2: the options make no sense.
#[derive(Debug, Clone, Args)]
pub(crate) struct SimArgs {
    /// Seeds to run (k and m allowed).
    #[arg(long, value_parser = size, default_value = "100")]
    pub(crate) seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,
    /// Run this seed alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub(crate) seed: Option<u64>,
    /// What kind of trouble there is: quiet, wild, disk, membership; or all, which gives seed n
    /// the profile n mod 4, so that a number names a world.
    #[arg(long, default_value = "all")]
    pub(crate) profile: SimProfile,
    /// How long clients and faults go on in each world, in virtual time [default: 20s].
    #[arg(long, value_parser = duration)]
    pub(crate) span: Option<Duration>,
    /// Faults of the plan that are left out, by number: 3,7-9.
    #[arg(long, value_name = "FAULTS", requires = "seed")]
    pub(crate) without: Option<Faults>,
    /// Threads; each runs whole seeds [default: one for each core].
    #[arg(long)]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Begin no seed after so much real time.
    #[arg(long, value_parser = duration)]
    pub(crate) time_limit: Option<Duration>,
    /// Run all seeds, even after one has failed.
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Look for the faults and the time that a failure does not need. The first failure has
    /// that done anyway; this is for all of them, and for replays (--verbose, --without).
    #[arg(long, conflicts_with = "no_shrink")]
    pub(crate) shrink: bool,
    /// Tell failures as they are.
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// Runs that the search for needless faults may take.
    #[arg(long, value_name = "RUNS", default_value = "100")]
    pub(crate) shrink_runs: NonZeroUsize,
    /// A bug that the members have, by name: to see that it is found.
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "BUG", value_parser = planted)]
    pub(crate) planted: Option<castd_sim::Planted>,
    /// Print the whole story of the seed and its history to standard output: the same bytes
    /// every time.
    #[arg(long, requires = "seed", conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// Print one line of JSON to standard output; the summary goes to standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the line of JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
    /// No progress bar. There is none either where standard error is not a terminal.
    #[arg(long)]
    pub(crate) no_progress: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_by_number() {
        let faults = |text: &str| text.parse::<Faults>().map(|faults| Vec::from_iter(faults.0));
        assert_eq!(faults("3"), Ok(vec![3]));
        assert_eq!(faults("3,7-9,8"), Ok(vec![3, 7, 8, 9]));
        assert_eq!(faults("9-7"), Ok(vec![]));
        for text in ["", "x", "1,", "-1", "1-", "1-2-3", "0-100000"] {
            assert!(faults(text).is_err(), "{text:?}");
        }
        for text in ["3", "0-4", "0-1,3,7-9"] {
            assert_eq!(text.parse::<Faults>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_number_names_a_world() {
        let all: SimProfile = "all".parse().unwrap();
        assert_eq!(all.of(0), Profile::Quiet);
        assert_eq!(all.of(7), Profile::Membership);
        assert_eq!("disk".parse::<SimProfile>().unwrap().of(0), Profile::Disk);
        assert!("bad".parse::<SimProfile>().is_err());
    }
}
