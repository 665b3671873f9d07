//! The Cluster service: who is in the cluster, and who comes and goes.

use std::time::{SystemTime, UNIX_EPOCH};

use castd_actors::cluster::member_id;
use castd_actors::{Error, MemberInfo};
use castd_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use super::call::Call;
use super::error::Failure;
use crate::config::Url;

pub(super) async fn member_list(
    call: Call,
    request: MemberListRequest,
) -> Result<MemberListResponse, Failure> {
    if request.linearizable {
        call.read_index().await?;
    }
    // The header of this service has no revision.
    Ok(MemberListResponse { header: call.header(0), members: members(&call) })
}

pub(super) async fn member_add(
    call: Call,
    request: MemberAddRequest,
) -> Result<MemberAddResponse, Failure> {
    let mut peer_urls = peer_urls(&request.peer_urls)?;
    // etcd keeps those of a new member sorted, and changed ones as they are given.
    peer_urls.sort();
    let is_learner = request.is_learner;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let id = member_id(peer_urls.iter().map(String::as_str), &now.to_string());
    let company = &call.faces.company;
    call.in_time(company.add_member(id, peer_urls.clone(), is_learner)).await?;
    let member = Member { id, peer_urls, is_learner, ..Member::default() };
    Ok(MemberAddResponse { header: call.header(0), member: Some(member), members: members(&call) })
}

pub(super) async fn member_remove(
    call: Call,
    request: MemberRemoveRequest,
) -> Result<MemberRemoveResponse, Failure> {
    call.in_time(call.faces.company.remove_member(request.id)).await?;
    Ok(MemberRemoveResponse { header: call.header(0), members: members(&call) })
}

pub(super) async fn member_update(
    call: Call,
    request: MemberUpdateRequest,
) -> Result<MemberUpdateResponse, Failure> {
    // etcd leaves this to its clients; a URL that is none would be replicated.
    let peer_urls = peer_urls(&request.peer_urls)?;
    call.in_time(call.faces.company.update_member(request.id, peer_urls)).await?;
    Ok(MemberUpdateResponse { header: call.header(0), members: members(&call) })
}

pub(super) async fn member_promote(
    call: Call,
    request: MemberPromoteRequest,
) -> Result<MemberPromoteResponse, Failure> {
    let promoted = call.in_time(call.faces.company.promote_member(request.id)).await;
    let promoted = match promoted {
        Err(Error::Timeout) if call.faces.company.raft().leader == 0 => Err(Error::NoLeader),
        promoted => promoted,
    };
    promoted?;
    Ok(MemberPromoteResponse { header: call.header(0), members: members(&call) })
}

/// Reads peer URLs as etcd does: each with a scheme and a place.
fn peer_urls(texts: &[String]) -> Result<Vec<String>, Error> {
    if texts.is_empty() {
        return Err(Error::MemberBadUrls);
    }
    let urls = texts.iter().map(|text| Url::parse(text).map(|url| url.to_string()));
    urls.collect::<Result<_, _>>().map_err(|_| Error::MemberBadUrls)
}

fn members(call: &Call) -> Vec<Member> {
    let company = &call.faces.company;
    let view = company.view();
    let gone = company.is_removed().then_some(company.identity().member_id);
    view.cluster().members.values().filter(|info| Some(info.id) != gone).map(member).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_read() {
        let urls = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            peer_urls(&texts)
        };
        assert_eq!(urls(&["http://b:1", " http://a:1"]).unwrap(), ["http://b:1", "http://a:1"]);
        for bad in [&[][..], &["a:1"], &["http://a"], &["http://a:1/path"], &["ftp://a:1"]] {
            assert_eq!(urls(bad), Err(Error::MemberBadUrls), "{bad:?}");
        }
    }
}
