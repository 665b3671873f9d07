//! Every setting of etcd 3.4 to 3.7: its names, its kind, its default, and whether it
//! works here.
//!
//! Owns: the table all three forms (flags, variables, file) are read by, so that a
//! setting is known in all of them or in none. Never: a value somebody set.

mod clustering;
mod experimental;
mod features;
mod legacy;
mod member;
mod monitoring;
mod security;

use super::value::Kind;

/// One setting.
#[derive(Debug)]
pub struct Flag {
    /// The flag's name without dashes.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// Its default, as one would type it.
    pub default: &'static str,
    /// The releases of etcd that have it.
    pub versions: Versions,
    /// Where it stands in the help text.
    pub section: Section,
    /// Whether it works here.
    pub support: Support,
    /// What it does.
    pub help: &'static str,
    /// Where it stands in a configuration file.
    pub file: FileKey,
}

/// Whether a setting works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what it does in etcd.
    Works,
    /// What it asks for holds here whatever its value; the text says why.
    Holds(&'static str),
    /// Only its default is taken; the text says why.
    NotYet(&'static str),
    /// An older name of another setting.
    AliasOf(&'static str),
    /// An older name of a feature gate.
    GateAlias(&'static str),
    /// etcd takes it and ignores it, and so does castd.
    Ignored,
}

/// A setting's key in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKey {
    /// The flag's name.
    SameName,
    /// A key inside an object.
    Inside(&'static str, &'static str),
    /// A key inside an object, for which there is no flag.
    OnlyInside(&'static str, &'static str),
    /// It has none.
    None,
}

/// The minor releases of etcd, 3.`since` to 3.`until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first one that has it; 4 also stands for any before.
    pub since: u8,
    /// The last one that has it.
    pub until: u8,
}

/// A part of the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The member itself.
    Member,
    /// Its cluster.
    Clustering,
    /// TLS and origins.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// Log lines.
    Logging,
    /// OpenTelemetry.
    Tracing,
    /// What was experimental once.
    Features,
    /// What can lose data.
    Unsafe,
    /// Names of older releases.
    Older,
    /// Not in the help text.
    Hidden,
}

const fn versions(since: u8, until: u8) -> Versions {
    Versions { since, until }
}

const SINCE_3_4: Versions = versions(4, 7);
const SINCE_3_5: Versions = versions(5, 7);
const SINCE_3_6: Versions = versions(6, 7);

impl Flag {
    const fn new(
        section: Section,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        versions: Versions,
        help: &'static str,
    ) -> Self {
        let (support, file) = (Support::Works, FileKey::SameName);
        Self { name, kind, default, versions, section, support, help, file }
    }

    const fn support(self, support: Support) -> Self {
        Self { support, ..self }
    }

    const fn not_yet(self, reason: &'static str) -> Self {
        self.support(Support::NotYet(reason))
    }

    const fn file(self, file: FileKey) -> Self {
        Self { file, ..self }
    }

    /// The environment variable that sets it: `ETCD_` and the name in capitals, dashes
    /// as underscores.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// Whether it is a flag and a variable, not only a key in a file.
    pub fn on_command_line(&self) -> bool {
        !matches!(self.file, FileKey::OnlyInside(..))
    }
}

/// All settings, section by section.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    member::FLAGS
        .iter()
        .chain(clustering::FLAGS)
        .chain(security::FLAGS)
        .chain(monitoring::FLAGS)
        .chain(features::FLAGS)
        .chain(experimental::FLAGS)
        .chain(legacy::FLAGS)
}

/// The flag of that name.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

const TLS: &str = "TLS is not built in yet";
const HASHES: &str = "the members' hashes are not compared yet";
const PEER_LINKS: &str = "links between members have time limits of their own";
const AUTH: &str = "authentication is not built in yet";
const V2_DISCOVERY: &str = "v2 discovery left etcd with 3.7; v3 discovery is there";
const TRACING: &str = "distributed tracing is not built in yet";
const V2: &str = "the v2 API is not built in yet";
const PROXY: &str = "etcd's v2 proxy is not part of castd";
const BBOLT: &str = "it tunes bbolt, which castd does not use";
