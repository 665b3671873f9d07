//! The version that all members understand, and the watch over it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use castd_actors::{ClusterState, Company};
use castd_proto::castdpb::request::Op;
use castd_proto::castdpb::{ClusterVersion, answer, question};

use crate::config::ETCD_VERSION;

/// How often the leader looks at the members' versions.
const LOOK: Duration = Duration::from_secs(4);

/// How long a member may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(3);

/// The oldest cluster version there is: what a cluster speaks as long as some of
/// its members have not been heard.
pub(super) const OLDEST: Version = Version { major: 3, minor: 0, patch: 0 };

/// A release, `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// Reads one; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    /// The minor release's first: what a cluster's version looks like.
    pub fn without_patch(self) -> Self {
        Self { patch: 0, ..self }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether this member can serve a cluster of that version.
///
/// # Errors
/// In etcd's words, when the cluster is newer.
pub(super) fn check_served(cluster: &ClusterState) -> Result<(), String> {
    let own = Version::parse(ETCD_VERSION);
    let agreed = cluster.version.as_deref().and_then(Version::parse);
    match agreed {
        Some(agreed) if own.is_some_and(|own| own.without_patch() < agreed) => Err(format!(
            "invalid downgrade; server version is lower than determined cluster version: \
             {ETCD_VERSION} < {agreed}"
        )),
        _ => Ok(()),
    }
}

/// As long as this member leads, raises the cluster's version to what all its
/// members understand.
pub(super) async fn watch_over(company: &Company) -> Infallible {
    loop {
        look(company).await;
        wait(company).await;
    }
}

/// One look at the members' versions, if this member leads.
pub(super) async fn look(company: &Company) {
    if !company.raft().is_leader {
        return;
    }
    let Some(next) = next(company).await else { return };
    let version = ClusterVersion { version: next.to_string() };
    if let Err(error) = company.propose(Op::ClusterVersion(version)).await {
        tracing::warn!(%error, "failed to update cluster version");
    }
}

/// Until the next look is due, or this member comes to lead.
async fn wait(company: &Company) {
    const STEP: Duration = Duration::from_millis(100);
    let led = company.raft().is_leader;
    let due = tokio::time::Instant::now() + LOOK;
    while tokio::time::Instant::now() < due {
        tokio::time::sleep(STEP).await;
        if company.raft().is_leader && !led {
            return;
        }
    }
}

/// The version that the cluster is to have, if it is another than it has.
async fn next(company: &Company) -> Option<Version> {
    let members: Vec<u64> = company.view().cluster().members.keys().copied().collect();
    let own = company.identity().member_id;
    let asked = members.iter().filter(|member| **member != own).map(|member| ask(company, *member));
    let mut heard = futures::future::join_all(asked).await;
    heard.push(Version::parse(ETCD_VERSION));
    let view = company.view();
    decide(view.cluster().version.as_deref().and_then(Version::parse), &heard)
}

async fn ask(company: &Company, member: u64) -> Option<Version> {
    let question = question::Question::Info(question::Info {});
    let answer = tokio::time::timeout(PATIENCE, company.ask(member, question)).await;
    match answer {
        Ok(Ok(answer)) => match answer.answer? {
            answer::Answer::Info(info) => Version::parse(&info.version),
            _ => None,
        },
        Ok(Err(error)) => {
            tracing::debug!({ "remote-member-id" = format!("{member:x}"), %error }, "failed to get version");
            None
        }
        Err(_) => None,
    }
}

/// What the cluster's version is to be: the oldest member's, once all are
/// heard. It is never lowered.
fn decide(agreed: Option<Version>, heard: &[Option<Version>]) -> Option<Version> {
    let all: Option<Vec<Version>> = heard.iter().copied().collect();
    let oldest = all.and_then(|all| all.into_iter().min()).map(Version::without_patch);
    match (agreed, oldest) {
        (None, oldest) => Some(oldest.unwrap_or(OLDEST)),
        (Some(agreed), Some(oldest)) if agreed < oldest => Some(oldest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Option<Version> {
        Some(Version::parse(text).unwrap())
    }

    #[test]
    fn the_oldest_member_sets_the_version_once_all_are_heard() {
        let (old, new) = (version("3.6.4"), version("3.7.1"));
        assert_eq!(decide(None, &[new, None]), version("3.0.0"));
        assert_eq!(decide(None, &[new, old]), version("3.6.0"));
        assert_eq!(decide(version("3.0.0"), &[new, None]), None);
        assert_eq!(decide(version("3.0.0"), &[new, old]), version("3.6.0"));
        assert_eq!(decide(version("3.6.0"), &[new, new]), version("3.7.0"));
        assert_eq!(decide(version("3.7.0"), &[new, old]), None);
    }

    #[test]
    fn a_newer_cluster_is_not_served() {
        let cluster = |version: Option<&str>| ClusterState {
            version: version.map(str::to_owned),
            ..ClusterState::default()
        };
        assert_eq!(check_served(&cluster(None)), Ok(()));
        assert_eq!(check_served(&cluster(Some("3.7.0"))), Ok(()));
        let error = check_served(&cluster(Some("3.8.0"))).unwrap_err();
        assert!(error.starts_with("invalid downgrade; server version is lower"), "{error}");
    }

    #[test]
    fn versions_have_three_numbers() {
        assert_eq!(version("3.10.2").unwrap().to_string(), "3.10.2");
        assert!(version("3.10.2") > version("3.9.9"));
        for text in ["3.7", "3.7.x", "not_decided", "3.7.0.1", ""] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
