//! The names of works, and the stages they make.

use super::catch_up::CatchUp;
use super::failover::{Blow, Failover};
use super::stage::{BigStage, SmallWork, Stage};
use super::watches::WatchWork;
use crate::cli::size;
use crate::error::LoadError;

/// Keys of the large works, when `fill` does not say.
const BIG_KEYS: u64 = 1_000_000;
/// With fewer members nothing goes on when one has gone.
const CLUSTER_MEMBERS_MIN: usize = 3;

/// Reads the names of works. Those on many keys become one stage, for filling takes long.
///
/// # Errors
/// When a name is unknown, there are two sizes of fill, or a work needs more than so many
/// `members`.
pub(super) fn stages(names: &[String], members: usize) -> Result<Vec<Stage>, LoadError> {
    let mut stages = Vec::new();
    let mut big = BigStage { keys: BIG_KEYS, fill: false, count: false, restart: false };
    for name in names {
        if let Some(stage) = of_cluster(name)? {
            if members < CLUSTER_MEMBERS_MIN {
                return Err(LoadError::Usage(format!("{name} needs --members 3 or more")));
            }
            stages.push(stage);
            continue;
        }
        match (name.as_str(), name.strip_prefix("fill-")) {
            ("count", _) => big.count = true,
            ("restart", _) => big.restart = true,
            ("fill", _) => big.fill = true,
            (_, Some(keys)) => {
                if big.fill {
                    return Err(LoadError::Usage("only one size of fill in a comparison".into()));
                }
                big.fill = true;
                big.keys = size(keys).map_err(LoadError::Usage)?;
            }
            _ => match name.strip_prefix("watch-") {
                Some(rest) => stages.push(Stage::Watch(WatchWork::parse(rest)?)),
                None => stages.push(Stage::Small(small(name)?)),
            },
        }
    }
    if big.fill || big.count || big.restart {
        stages.push(Stage::Big(big));
    }
    Ok(stages)
}

/// A work that is about what happens when a member goes, if the name is that of one.
fn of_cluster(name: &str) -> Result<Option<Stage>, LoadError> {
    let catch_up = |entries| Stage::CatchUp(CatchUp { entries });
    Ok(match (name, name.strip_prefix("catch-up-")) {
        ("failover-kill", _) => Some(Stage::Failover(Failover { blow: Blow::Kill })),
        ("failover-stop", _) => Some(Stage::Failover(Failover { blow: Blow::Stop })),
        (_, Some(entries)) => Some(catch_up(size(entries).map_err(LoadError::Usage)?.max(1))),
        _ => None,
    })
}

fn small(name: &str) -> Result<SmallWork, LoadError> {
    if name == "pages" {
        return Ok(SmallWork::Pages);
    }
    let unknown = || LoadError::Usage(format!("unknown work {name:?}; see --help"));
    let (kind, number) = name.rsplit_once('-').ok_or_else(unknown)?;
    let clients = usize::try_from(size(number).map_err(LoadError::Usage)?).unwrap_or(usize::MAX);
    if clients == 0 {
        return Err(LoadError::Usage(format!("no clients in {name:?}")));
    }
    match kind {
        "put" => Ok(SmallWork::Put { clients }),
        "get-ser" => Ok(SmallWork::Get { clients, serializable: true }),
        "get-lin" => Ok(SmallWork::Get { clients, serializable: false }),
        "txn" => Ok(SmallWork::Txn { clients }),
        "mixed" => Ok(SmallWork::Mixed { clients }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<Vec<Stage>, LoadError> {
        stages(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), 3)
    }

    #[test]
    fn names_become_stages() {
        let stages = parse(&["put-64", "restart", "get-lin-1k", "fill-100k", "count"]).unwrap();
        assert_eq!(
            stages,
            [
                Stage::Small(SmallWork::Put { clients: 64 }),
                Stage::Small(SmallWork::Get { clients: 1000, serializable: false }),
                Stage::Big(BigStage { keys: 100_000, fill: true, count: true, restart: true }),
            ]
        );
        let stages = parse(&["count"]).unwrap();
        let big = BigStage { keys: BIG_KEYS, fill: false, count: true, restart: false };
        assert_eq!(stages, [Stage::Big(big)]);
    }

    #[test]
    fn works_of_a_cluster_need_one() {
        let names = ["failover-stop".to_owned(), "catch-up-20k".to_owned()];
        let expected = [
            Stage::Failover(Failover { blow: Blow::Stop }),
            Stage::CatchUp(CatchUp { entries: 20_000 }),
        ];
        assert_eq!(stages(&names, 3).unwrap(), expected);
        assert!(stages(&names[..1], 1).is_err());
        assert!(stages(&names[1..], 1).is_err());
    }

    #[test]
    fn a_name_reads_the_same_as_it_is_written() {
        for name in ["put-1", "get-ser-64", "get-lin-256", "txn-64", "mixed-256", "pages"] {
            assert_eq!(small(name).unwrap().name(), name);
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for names in [
            ["put"].as_slice(),
            &["put-0"],
            &["get-64"],
            &["watch-x"],
            &["fill-1m", "fill-2m"],
            &[""],
        ] {
            assert!(parse(names).is_err(), "{names:?}");
        }
    }
}
