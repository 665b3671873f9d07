//! The Cluster service, as far as one member can serve it.

use castd_actors::MemberInfo;
use castd_proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};

use super::call::Call;
use super::error::Failure;

pub(super) async fn member_list(
    call: Call,
    request: MemberListRequest,
) -> Result<MemberListResponse, Failure> {
    if request.linearizable {
        call.read_index().await?;
    }
    let view = call.faces.company.view();
    let members = view.cluster().members.values().map(member).collect();
    // The header of this service has no revision.
    Ok(MemberListResponse { header: call.header(0), members })
}

fn member(info: &MemberInfo) -> Member {
    Member {
        id: info.id,
        name: info.name.clone(),
        peer_urls: info.peer_urls.clone(),
        client_urls: info.client_urls.clone(),
        is_learner: info.is_learner,
    }
}
