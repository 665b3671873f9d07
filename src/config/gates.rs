//! Feature gates: `--feature-gates Name=true,...`.
//!
//! Owns: which gates etcd 3.6 and 3.7 know, and their defaults. Never: their effects.

use super::Feature;
use super::go;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// A gate etcd knows.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Its name in `--feature-gates`.
    pub(crate) name: &'static str,
    stage: Stage,
    /// Whether it is on when nobody says.
    pub(crate) default: bool,
    /// Why castd does not take another value.
    pub(crate) reason: &'static str,
}

const fn alpha(name: &'static str, reason: &'static str) -> Gate {
    Gate { name, stage: Stage::Alpha, default: false, reason }
}

const fn beta(name: &'static str, reason: &'static str) -> Gate {
    Gate { name, stage: Stage::Beta, default: true, reason }
}

/// Every gate of etcd 3.6 and 3.7.
pub(crate) const GATES: [Gate; 9] = [
    alpha("CompactHashCheck", "comparing compaction hashes needs several members"),
    beta("FastLeaseKeepAlive", "lease renewal never waits for the applied index here"),
    alpha("InitialCorruptCheck", "comparing hashes at boot needs several members"),
    alpha("LeaseCheckpoint", "lease checkpoints need several members"),
    alpha("LeaseCheckpointPersist", "lease checkpoints need several members"),
    alpha("PriorityRequest", "there is one queue for proposals so far"),
    alpha("SetMemberLocalAddr", "binding the source address of peer traffic needs peers"),
    alpha("StopGRPCServiceOnDefrag", "defragmentation does not stop the service"),
    beta("TxnModeWriteWithSharedBuffer", "there is no other transaction mode"),
];

/// Reads a gate list. Errors have etcd's words.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<&'static str, bool>, String> {
    resolve(&read(text)?)
}

/// What a gate list says, name by name.
fn read(text: &str) -> Result<BTreeMap<String, bool>, String> {
    let mut given = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("missing bool value for {}", part.trim()));
        };
        let (name, value) = (name.trim(), value.trim());
        let parsed = go::parse_bool(value).map_err(|_| {
            format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {}: invalid syntax",
                go::quote(value)
            )
        })?;
        given.insert(name.to_owned(), parsed);
    }
    Ok(given)
}

/// Each gate's value: what was given for it, else for all of its stage, else its default.
fn resolve(given: &BTreeMap<String, bool>) -> Result<BTreeMap<&'static str, bool>, String> {
    let known = |name: &str| {
        matches!(name, "AllAlpha" | "AllBeta") || GATES.iter().any(|gate| gate.name == name)
    };
    if let Some(name) = given.keys().find(|name| !known(name)) {
        return Err(format!("unrecognized feature gate: {name}"));
    }
    let of_stage = |stage| match stage {
        Stage::Alpha => given.get("AllAlpha"),
        Stage::Beta => given.get("AllBeta"),
    };
    let value = |gate: &Gate| {
        *given.get(gate.name).or_else(|| of_stage(gate.stage)).unwrap_or(&gate.default)
    };
    Ok(GATES.iter().map(|gate| (gate.name, value(gate))).collect())
}

/// The values that a gate list gives, those of the stages as a whole included.
pub(crate) fn features(text: &str) -> Result<Vec<Feature>, String> {
    let given = read(text)?;
    let values = resolve(&given)?;
    let all = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)].map(|(name, stage)| {
        let enabled = given.get(name).copied().unwrap_or(false);
        Feature { name, stage: stage.label(), enabled }
    });
    let gates = GATES.iter().map(|gate| {
        let enabled = values.get(gate.name).copied().unwrap_or(gate.default);
        Feature { name: gate.name, stage: gate.stage.label(), enabled }
    });
    Ok(all.into_iter().chain(gates).collect())
}

/// How a gate is shown in the help text.
pub(crate) fn describe(gate: &Gate) -> String {
    let stage = gate.stage.label();
    format!("{}=true|false ({stage} - default={})", gate.name, gate.default)
}
