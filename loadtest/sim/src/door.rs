//! What clients ask of a member, and how it is served: as the network faces serve it.

use castd_actors::company::Company;
use castd_actors::snapshot::Export;
use castd_actors::watch_hub::StreamRequest;
use castd_actors::{Applied, Chunk, Error, WatchHandle};
use castd_proto::castdpb::request::Op;
use castd_proto::castdpb::{Answer, MemberChange};
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use raft::eraftpb::Message;
use tokio::sync::mpsc::Receiver;

/// Tells calls apart.
pub(crate) type CallId = u64;

/// What a client can ask.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// A write.
    Write(Op),
    /// A read.
    Read(RangeRequest),
    /// Keep a lease alive.
    KeepAlive(i64),
    /// Make another member the leader; 0 for any.
    TransferLeader(u64),
    /// Change the members.
    ChangeMembers(MemberChange),
    /// Give a learner a vote; for the leader.
    Promote(u64),
    /// Tell the cluster the member's own name and where clients find it.
    Publish(String, String),
    /// Pack the store anew.
    Defragment,
    /// Open a watch stream and ask these things.
    Watch(Vec<StreamRequest>),
}

/// What a member answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A write was applied.
    Applied(Applied),
    /// What was read, at the revision of the header.
    Range(i64, RangeResponse),
    /// The seconds a lease has, 0 for one there is not.
    Alive(i64),
    /// It is done.
    Done,
    /// The stream is open.
    Stream(WatchHandle, Receiver<Box<Chunk>>),
}

/// Why there is no such answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody was there to ask: nothing happened.
    NotReached,
    /// The member says no.
    Refused(Error),
    /// The connection broke before there was an answer.
    Lost,
    /// No answer came in time.
    TimedOut,
}

impl Failure {
    /// Whether it is certain that nothing happened.
    pub(crate) fn is_certain(self) -> bool {
        match self {
            Self::NotReached => true,
            Self::Lost | Self::TimedOut => false,
            Self::Refused(error) => !matches!(
                error,
                Error::Timeout
                    | Error::TimeoutLeaderFailed
                    | Error::TimeoutConnectionLost
                    | Error::TimeoutWaitAppliedIndex
                    | Error::Stopped
            ),
        }
    }
}

/// Something that faces or links waited for.
pub(crate) enum Done {
    /// A client's call.
    Call(CallId, Result<Reply, Error>),
    /// The state that goes with a snapshot message.
    Export(Box<(Message, Result<Export, Error>)>),
    /// What another member asked.
    Answered { to: u64, question: u64, answer: Result<Answer, Error> },
    /// Nothing that anybody waits for.
    Nothing,
}

/// Serves a call.
///
/// # Errors
/// What a client hears.
pub(crate) async fn serve(company: Company, request: Request) -> Result<Reply, Error> {
    let of_all = match &request {
        Request::Read(range) => range.serializable,
        // No client asks this: the member itself does it when it has started.
        Request::Publish(..) => true,
        _ => false,
    };
    if company.is_learner() && !of_all {
        return Err(Error::NotSupportedForLearner);
    }
    match request {
        Request::Write(op) => company.propose(op).await.map(Reply::Applied),
        Request::Read(range) => {
            if !range.serializable {
                company.read_index().await?;
            }
            let view = company.view();
            view.range(&range).map(|found| Reply::Range(view.revision(), found))
        }
        Request::KeepAlive(id) => company.lease_keep_alive(id).await.map(Reply::Alive),
        Request::TransferLeader(to) => company.transfer_leader(to).await.map(|()| Reply::Done),
        Request::ChangeMembers(change) => {
            company.change_members(&change).await.map(|()| Reply::Done)
        }
        Request::Promote(id) => company.promote_as_leader(id).await.map(|()| Reply::Done),
        Request::Publish(name, url) => company.publish(&name, &[url]).await.map(|()| Reply::Done),
        Request::Defragment => company.defragment().await.map(|()| Reply::Done),
        Request::Watch(requests) => {
            let (handle, chunks) = company.watch().await?;
            if !handle.ask(requests).await {
                return Err(Error::Stopped);
            }
            Ok(Reply::Stream(handle, chunks))
        }
    }
}
