//! How a member without data comes to its cluster: as one of the first, or as
//! one that was added. Decides from the configuration and from what other
//! members say; touches no disk.

use std::collections::BTreeMap;
use std::time::Duration;

use castd_actors::Identity;
use castd_actors::cluster::{ClusterState, MemberInfo, cluster_id, member_id};

use super::remote::{self, Patience, RemoteCluster};
use super::resolve::Addresses;
use super::version::{OLDEST, Version};
use super::{discovery, srv};
use crate::config::{self, Config, Discovery, ETCD_VERSION, InitialCluster, Url, same_urls};

/// How long another member may take to say who is in the cluster.
const JOIN_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(10) };

/// The same, when it only might be there. Who listens and says nothing reads what it has on
/// its disk; who is as new as this member turns callers away.
const BOOTSTRAP_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(1), answer: Duration::from_secs(10) };

/// A member's way to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is one of those who begin a cluster.
    Bootstrap(Identity, ClusterState),
    /// It was added to a cluster that runs, whose members are these.
    Join(Identity, ClusterState),
}

/// Finds a new member's way.
///
/// # Errors
/// Why there is none, in etcd's words.
pub(super) async fn way(config: &Config) -> Result<Way, String> {
    let mut config = config.clone();
    if let Discovery::Srv { domain, suffix } = &config.discovery {
        config.initial_cluster = srv::cluster(&config, domain, suffix).await?;
    }
    match config.initial_cluster_state {
        config::ClusterState::New => bootstrap_way(&config).await,
        config::ClusterState::Existing => join_way(&config).await,
    }
}

async fn bootstrap_way(config: &Config) -> Result<Way, String> {
    let addresses = Addresses::find(config.bootstrap_urls()).await;
    config.check_bootstrap(&|url| addresses.of(url))?;
    let (mut identity, mut cluster) = bootstrap(config, &config.initial_cluster)?;
    if is_bootstrapped(config, identity.member_id).await {
        return Err(format!("member {:x} has already been bootstrapped", identity.member_id));
    }
    if let Discovery::V3(service) = &config.discovery {
        let text = discovery::join(service, identity.member_id, &config.initial_cluster).await?;
        let found = InitialCluster::parse(&text)?;
        found.check_distinct("discovery cluster")?;
        let own = identity.member_id;
        (identity, cluster) = bootstrap(config, &found)?;
        identity.member_id = own;
    }
    Ok(Way::Bootstrap(identity, cluster))
}

/// Who this member is and who is in the cluster, when it begins now.
///
/// # Errors
/// When two members would have one id.
fn bootstrap(
    config: &Config,
    members: &InitialCluster,
) -> Result<(Identity, ClusterState), String> {
    let token = &config.initial_cluster_token;
    let mut state = ClusterState::default();
    let mut own = 0;
    for (name, urls) in members.members() {
        let peer_urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
        let id = member_id(peer_urls.iter().map(String::as_str), token);
        if *name == config.name {
            own = id;
        }
        let member = MemberInfo { id, name: name.clone(), peer_urls, ..MemberInfo::default() };
        if state.members.insert(id, member).is_some() {
            return Err(format!("member exists with identical ID {id:x}"));
        }
    }
    let cluster_id = cluster_id(state.members.keys().copied());
    Ok((Identity { cluster_id, member_id: own }, state))
}

/// Whether the others know this member as one that runs already: its data must
/// have been lost, and with it what it promised them.
async fn is_bootstrapped(config: &Config, own: u64) -> bool {
    let urls = others(config);
    // Mostly nobody answers: the others begin as well.
    let asked = urls.iter().map(|url| remote::cluster_at(url, BOOTSTRAP_PATIENCE));
    let answers = futures::future::join_all(asked).await;
    let mut members = answers.iter().flatten().flat_map(|cluster| &cluster.members);
    members.any(|member| member.id == own && !member.client_urls.is_empty())
}

/// The peer URLs of all but this member, sorted.
fn others(config: &Config) -> Vec<Url> {
    let members = config.initial_cluster.members().iter();
    let mut urls: Vec<Url> = members
        .filter(|(name, _)| **name != config.name)
        .flat_map(|(_, urls)| urls.clone())
        .collect();
    urls.sort();
    urls
}

async fn join_way(config: &Config) -> Result<Way, String> {
    config.check_join()?;
    let running = remote::cluster(&others(config), JOIN_PATIENCE)
        .await
        .map_err(|error| format!("cannot fetch cluster info from peer urls: {error}"))?;
    if !running.castd {
        let text = "the running cluster is etcd's, which castd cannot become a member of";
        return Err(text.to_owned());
    }
    let own = match_members(&running, &config.initial_cluster)
        .await
        .map_err(|error| format!("error validating peerURLs {}: {error}", shown(&running)))?
        .get(&config.name)
        .copied()
        .unwrap_or_default();
    let timeout = config.request_timeout();
    check_versions(&running, own, Patience { connect: timeout, answer: timeout }).await?;
    let learners = running.members.iter().filter(|member| member.is_learner).count();
    if learners > usize::try_from(config.max_learners).unwrap_or(usize::MAX) {
        return Err("membership: too many learner members in cluster".to_owned());
    }
    let identity = Identity { cluster_id: running.id, member_id: own };
    let members = running.members.into_iter().map(|member| (member.id, member)).collect();
    Ok(Way::Join(identity, ClusterState { members, ..ClusterState::default() }))
}

/// Finds each configured member among those of the running cluster, by where it
/// is reached; gives the ids by name. Names are looked up for those alone whose URLs
/// are written differently.
async fn match_members(
    running: &RemoteCluster,
    configured: &InitialCluster,
) -> Result<BTreeMap<String, u64>, String> {
    if running.members.len() != configured.members().len() {
        return Err("member count is unequal".to_owned());
    }
    let mut missing: BTreeMap<&str, &[Url]> =
        configured.members().iter().map(|(name, urls)| (name.as_str(), urls.as_slice())).collect();
    let mut ids = BTreeMap::new();
    let mut unknown = Vec::new();
    for member in &running.members {
        let mut urls: Vec<Url> = member.peer_urls.iter().flat_map(|url| Url::parse(url)).collect();
        urls.sort();
        let written = missing.iter().find(|(_, theirs)| **theirs == urls);
        match written.map(|(name, _)| *name) {
            Some(name) => {
                missing.remove(name);
                ids.insert(name.to_owned(), member.id);
            }
            None => unknown.push((member, urls)),
        }
    }
    // There are as many on either side: nobody is missing when nobody is unknown.
    let unclear = unknown.iter().flat_map(|(_, urls)| urls);
    let addresses = Addresses::find(unclear.chain(missing.values().copied().flatten())).await;
    for (member, urls) in unknown {
        let name = find_by_address(member, &urls, &missing, &addresses)?;
        ids.insert(name.to_owned(), member.id);
    }
    Ok(ids)
}

/// The name of the member that is reached where this one of the running cluster is.
fn find_by_address<'a>(
    member: &MemberInfo,
    urls: &[Url],
    configured: &BTreeMap<&'a str, &[Url]>,
    addresses: &Addresses,
) -> Result<&'a str, String> {
    let mut last = String::new();
    let address = |url: &Url| addresses.of(url);
    let found = configured
        .iter()
        .find(|(_, theirs)| same_urls(urls, theirs, &address).map_err(|e| last = e).is_ok());
    let name = found.map(|(name, _)| *name);
    name.ok_or_else(|| {
        format!(
            "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error ({last})",
            member.id,
            member.peer_urls.join(" ")
        )
    })
}

/// A cluster as etcd prints one.
fn shown(cluster: &RemoteCluster) -> String {
    let member = |m: &MemberInfo| {
        let (peers, clients) = (m.peer_urls.join(" "), m.client_urls.join(" "));
        let (id, name, learner) = (m.id, &m.name, m.is_learner);
        format!(
            "&{{ID:{id:x} RaftAttributes:{{PeerURLs:[{peers}] IsLearner:{learner}}} \
             Attributes:{{Name:{name} ClientURLs:[{clients}]}}}}"
        )
    };
    let members: Vec<String> = cluster.members.iter().map(member).collect();
    let (id, members) = (cluster.id, members.join(" "));
    format!("{{ClusterID:{id:x} Members:[{members}] RemovedMemberIDs:[]}}")
}

/// At least one other member must speak a version that this one can serve, and
/// none another.
async fn check_versions(
    running: &RemoteCluster,
    own: u64,
    patience: Patience,
) -> Result<(), String> {
    let newest = Version::parse(ETCD_VERSION).map(Version::without_patch);
    let others = running.members.iter().filter(|member| member.id != own);
    let asked = others.map(|member| remote::versions(&member.peer_urls, patience));
    let mut served = false;
    for versions in futures::future::join_all(asked).await.into_iter().flatten() {
        let Some(cluster) = Version::parse(&versions.cluster) else { continue };
        if cluster < OLDEST || Some(cluster) > newest {
            tracing::warn!(
                { "remote-member-cluster-version" = %cluster },
                "cluster version of remote member is not compatible"
            );
            return Err("incompatible with current running cluster".to_owned());
        }
        served = true;
    }
    if served { Ok(()) } else { Err("incompatible with current running cluster".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(members: &[(u64, &[&str])]) -> RemoteCluster {
        let member = |(id, urls): &(u64, &[&str])| MemberInfo {
            id: *id,
            peer_urls: urls.iter().map(ToString::to_string).collect(),
            ..MemberInfo::default()
        };
        RemoteCluster { id: 0xc, members: members.iter().map(member).collect(), castd: true }
    }

    #[tokio::test]
    async fn members_are_found_by_where_they_are_reached() {
        let cluster = running(&[(7, &["http://127.0.0.1:1"]), (8, &["http://127.0.0.1:2"])]);
        let configured =
            InitialCluster::parse("b=http://127.0.0.1:2,a=http://127.0.0.1:1").unwrap();
        let ids = match_members(&cluster, &configured).await.unwrap();
        assert_eq!(ids, [("a".to_owned(), 7), ("b".to_owned(), 8)].into());
        let fewer = InitialCluster::parse("a=http://127.0.0.1:1").unwrap();
        assert_eq!(match_members(&cluster, &fewer).await.unwrap_err(), "member count is unequal");
        let other = InitialCluster::parse("a=http://127.0.0.1:1,b=http://127.0.0.1:3").unwrap();
        assert_eq!(
            match_members(&cluster, &other).await.unwrap_err(),
            "PeerURLs: no match found for existing member (8, [http://127.0.0.1:2]), last \
             resolver error (resolved urls: \"http://127.0.0.1:2\" != \"http://127.0.0.1:3\")"
        );
    }

    /// Names that nobody knows do no harm where they are written alike, and cost no time.
    #[tokio::test]
    async fn what_is_written_alike_is_not_looked_up() {
        let cluster = running(&[
            (7, &["http://b.invalid:1", "http://a.invalid:1"]),
            (8, &["http://[::1]:2"]),
        ]);
        let text = "a=http://a.invalid:1,a=http://b.invalid:1,b=http://[0:0::1]:2";
        let configured = InitialCluster::parse(text).unwrap();
        let matched = match_members(&cluster, &configured);
        let ids = tokio::time::timeout(Duration::from_secs(5), matched).await.unwrap().unwrap();
        assert_eq!(ids, [("a".to_owned(), 7), ("b".to_owned(), 8)].into());
    }

    #[test]
    fn a_cluster_is_shown_as_etcd_shows_it() {
        let cluster = running(&[(0x7a, &["http://a:1", "http://a:2"])]);
        assert_eq!(
            shown(&cluster),
            "{ClusterID:c Members:[&{ID:7a RaftAttributes:{PeerURLs:[http://a:1 http://a:2] \
             IsLearner:false} Attributes:{Name: ClientURLs:[]}}] RemovedMemberIDs:[]}"
        );
    }
}
