//! What goes along with every call between members, and why a call is refused.

use castd_proto::castdpb::answer;
use castd_proto::castdpb::{Answer, Question};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Status};

use super::settings::PeerSettings;
use crate::cluster::ClusterState;
use crate::shared::Error;
use crate::wal_writer::Identity;

const CLUSTER_ID: &str = "castd-cluster-id";
const FROM: &str = "castd-from";
const TO: &str = "castd-to";
const VERSION: &str = "castd-version";
const PEER_URLS: &str = "castd-peer-urls";

/// Why a member does not talk to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The caller is of another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
    /// The call is for another member.
    #[error("member ID mismatch")]
    Member,
    /// The caller was removed from the cluster.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The caller's version is not one to talk to.
    #[error("incompatible version")]
    Version,
    /// The caller does not say who it is.
    #[error("the call does not say who calls")]
    Nameless,
}

impl Refusal {
    const ALL: [Self; 5] =
        [Self::Cluster, Self::Member, Self::Removed, Self::Version, Self::Nameless];

    /// How the caller is told.
    pub(super) fn status(self) -> Status {
        Status::failed_precondition(self.to_string())
    }

    /// What the other side told us with `status`.
    pub(super) fn of(status: &Status) -> Option<Self> {
        if status.code() != Code::FailedPrecondition {
            return None;
        }
        Self::ALL.into_iter().find(|refusal| refusal.to_string() == status.message())
    }
}

/// What this member puts to its calls of one other member.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    cluster_id: AsciiMetadataValue,
    from: AsciiMetadataValue,
    to: AsciiMetadataValue,
    version: AsciiMetadataValue,
    peer_urls: AsciiMetadataValue,
}

impl Caller {
    /// `peer_urls` are where this member is reached, for who does not know it yet.
    pub(super) fn new(settings: &PeerSettings, to: u64, peer_urls: &[String]) -> Self {
        let ascii = |text: String| {
            // Digits and dots; an odd version is sent as an empty one, and refused.
            text.parse().unwrap_or_else(|_| AsciiMetadataValue::from_static(""))
        };
        Self {
            cluster_id: ascii(format!("{:016x}", settings.identity.cluster_id)),
            from: ascii(format!("{:016x}", settings.identity.member_id)),
            to: ascii(format!("{to:016x}")),
            version: ascii(settings.version.clone()),
            peer_urls: ascii(peer_urls.join(",")),
        }
    }

    /// A call with `body`.
    pub(super) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_ID, self.cluster_id.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        metadata.insert(VERSION, self.version.clone());
        metadata.insert(PEER_URLS, self.peer_urls.clone());
        request
    }
}

/// Who a caller says it is, and of which cluster; 0 when it does not.
pub(super) fn caller_of(metadata: &MetadataMap) -> (u64, u64) {
    (id(metadata, FROM).unwrap_or(0), id(metadata, CLUSTER_ID).unwrap_or(0))
}

/// Where a caller says that it is reached.
pub(super) fn peer_urls_of(metadata: &MetadataMap) -> Vec<String> {
    let text = metadata.get(PEER_URLS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// Checks who calls whom; gives the caller's id.
pub(super) fn admit(
    metadata: &MetadataMap,
    identity: Identity,
    version: &str,
    cluster: &ClusterState,
) -> Result<u64, Refusal> {
    let from = id(metadata, FROM).filter(|from| *from != 0).ok_or(Refusal::Nameless)?;
    if id(metadata, CLUSTER_ID) != Some(identity.cluster_id) {
        return Err(Refusal::Cluster);
    }
    if id(metadata, TO) != Some(identity.member_id) || from == identity.member_id {
        return Err(Refusal::Member);
    }
    if cluster.removed.contains(&from) {
        return Err(Refusal::Removed);
    }
    let theirs = metadata.get(VERSION).and_then(|value| value.to_str().ok());
    if theirs.and_then(major) != major(version) {
        return Err(Refusal::Version);
    }
    Ok(from)
}

fn id(metadata: &MetadataMap, name: &str) -> Option<u64> {
    let text = metadata.get(name)?.to_str().ok()?;
    u64::from_str_radix(text, 16).ok()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// An answer's error goes by its text.
pub(super) fn answer_of(outcome: Result<Answer, Error>) -> Answer {
    outcome
        .unwrap_or_else(|error| Answer { answer: Some(answer::Answer::Error(error.to_string())) })
}

/// What another member answered. An error that this version does not know leaves the
/// asker as a timeout does: with no idea of what happened.
pub(super) fn outcome_of(answer: Answer) -> Result<Answer, Error> {
    match &answer.answer {
        Some(answer::Answer::Error(text)) => Err(Error::from_text(text).unwrap_or(Error::Timeout)),
        Some(_) => Ok(answer),
        None => Err(Error::Timeout),
    }
}

/// Whether an answer is one to the question.
pub(super) fn answers(question: &Question, answer: &Answer) -> bool {
    use answer::Answer as A;
    use castd_proto::castdpb::question::Question as Q;
    matches!(
        (&question.question, &answer.answer),
        (_, Some(A::Error(_)))
            | (Some(Q::KeepAlive(_)), Some(A::KeepAlive(_)))
            | (Some(Q::TimeToLive(_)), Some(A::TimeToLive(_)))
            | (Some(Q::Promote(_)), Some(A::Promote(_)))
            | (Some(Q::Info(_)), Some(A::Info(_)))
    )
}
