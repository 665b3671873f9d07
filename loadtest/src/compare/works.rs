//! The names of works, and the stages they make.

use super::stage::{BigStage, SmallWork, Stage};
use crate::cli::size;
use crate::error::LoadError;

/// Keys of the large works, when `fill` does not say.
const BIG_KEYS: u64 = 1_000_000;

/// Reads the names of works. Those on many keys become one stage, for filling takes long.
///
/// # Errors
/// When a name is unknown, or there are two sizes of fill.
pub(super) fn stages(names: &[String]) -> Result<Vec<Stage>, LoadError> {
    let mut stages = Vec::new();
    let mut big = BigStage { keys: BIG_KEYS, fill: false, count: false, restart: false };
    for name in names {
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
            _ => stages.push(Stage::Small(small(name)?)),
        }
    }
    if big.fill || big.count || big.restart {
        stages.push(Stage::Big(big));
    }
    Ok(stages)
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
        "watch" => Ok(SmallWork::Watch { watchers: clients }),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Result<Vec<Stage>, LoadError> {
        stages(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
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
    fn a_name_reads_the_same_as_it_is_written() {
        for name in
            ["put-1", "get-ser-64", "get-lin-256", "txn-64", "mixed-256", "pages", "watch-9"]
        {
            assert_eq!(small(name).unwrap().name(), name);
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for names in [["put"].as_slice(), &["put-0"], &["get-64"], &["fill-1m", "fill-2m"], &[""]] {
            assert!(parse(names).is_err(), "{names:?}");
        }
    }
}
