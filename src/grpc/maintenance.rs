//! The Maintenance service.

use std::sync::Arc;
use std::time::Instant;

use castd_actors::{Error, Outcome, View};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::alarm_request::AlarmAction;
use castd_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, StatusRequest, StatusResponse,
};
use tonic::Status;

use super::call::Call;
use super::error::Failure;
use super::kv::mismatch;
use super::quota;
use crate::metrics::RequestKind;

pub(super) async fn alarm(call: Call, request: AlarmRequest) -> Result<AlarmResponse, Failure> {
    // What every member applies must be something every member knows.
    if AlarmAction::try_from(request.action).is_err() {
        return Err(Status::invalid_argument("castd: unknown alarm action").into());
    }
    if AlarmType::try_from(request.alarm).is_err() {
        return Err(Status::invalid_argument("castd: unknown alarm type").into());
    }
    let applied = call.propose(RequestKind::Alarm, Op::Alarm(request)).await?;
    let Outcome::Alarm(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

pub(super) async fn status(call: Call, _request: StatusRequest) -> Result<StatusResponse, Failure> {
    let company = &call.faces.company;
    let (view, raft) = (company.view(), company.raft());
    let mut errors = Vec::new();
    if raft.leader == 0 {
        errors.push(Error::NoLeader.to_string());
    }
    errors.extend(view.cluster().alarms.iter().map(|(alarm, member)| {
        let name = AlarmType::try_from(*alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name());
        format!("memberID:{member} alarm:{name} ")
    }));
    let options = &call.faces.options;
    Ok(StatusResponse {
        header: call.header(view.revision()),
        version: options.version.clone(),
        // Clients divide by it.
        db_size: signed(view.db_size()).max(1),
        leader: raft.leader,
        // raft's account of itself comes a moment after the answers.
        raft_index: raft.committed.max(view.applied_index()),
        raft_term: raft.term,
        raft_applied_index: view.applied_index(),
        errors,
        db_size_in_use: signed(view.db_size_in_use()),
        is_learner: company.is_learner(),
        // The storage follows the cluster: it is what a downgrade could go back to.
        storage_version: view.cluster().version.clone().unwrap_or_default(),
        db_size_quota: quota::effective(options.quota_backend_bytes),
        downgrade_info: Some(DowngradeInfo::default()),
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) async fn defragment(
    call: Call,
    _request: DefragmentRequest,
) -> Result<DefragmentResponse, Failure> {
    tracing::info!("starting defragment");
    call.faces.company.defragment().await?;
    tracing::info!("finished defragment");
    // etcd's answer has no header.
    Ok(DefragmentResponse::default())
}

pub(super) async fn hash(call: Call, _request: HashRequest) -> Result<HashResponse, Failure> {
    let view = call.faces.company.view();
    let revision = view.revision();
    let started = Instant::now();
    let hash = off_the_loop(view, View::hash).await?;
    let figures = &call.faces.metrics.faces;
    figures.hash_seconds.observe(started.elapsed().as_secs_f64());
    Ok(HashResponse { header: call.header(revision), hash })
}

pub(super) async fn hash_kv(call: Call, request: HashKvRequest) -> Result<HashKvResponse, Failure> {
    let view = call.faces.company.view();
    let started = Instant::now();
    let found = off_the_loop(view, move |view| view.hash_kv(request.revision)).await??;
    let figures = &call.faces.metrics.faces;
    figures.hash_revision_seconds.observe(started.elapsed().as_secs_f64());
    Ok(HashKvResponse {
        header: call.header(found.revision),
        hash: found.hash,
        compact_revision: found.compact_revision,
        hash_revision: found.hash_revision,
    })
}

/// Does long work on a view where no other call waits for it.
async fn off_the_loop<T, F>(view: Arc<View>, work: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce(&View) -> T + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || work(&view)).await;
    done.map_err(|error| Status::internal(format!("castd: hashing failed: {error}")))
}

pub(super) async fn move_leader(
    call: Call,
    request: MoveLeaderRequest,
) -> Result<MoveLeaderResponse, Failure> {
    let company = &call.faces.company;
    let member_id = company.identity().member_id;
    if company.raft().leader != member_id {
        return Err(Error::NotLeader.into());
    }
    let view = company.view();
    match view.cluster().members.get(&request.target_id) {
        None => Err(Error::BadLeaderTransferee.into()),
        Some(member) if member.is_learner => Err(Error::BadLeaderTransferee.into()),
        // It leads already. etcd's answer has no header.
        Some(member) if member.id == member_id => Ok(MoveLeaderResponse::default()),
        Some(_) => match call.in_time(company.transfer_leader(request.target_id)).await {
            Ok(()) => Ok(MoveLeaderResponse::default()),
            Err(Error::Timeout) => Err(Error::TimeoutLeaderTransfer.into()),
            Err(error) => Err(error.into()),
        },
    }
}
