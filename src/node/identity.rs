//! Ids of members and clusters, derived as etcd derives them, so that a cluster
//! written down in a configuration has the same ids whoever runs it.

use castd_actors::cluster::{ClusterState, MemberInfo};
use castd_actors::wal_writer::Identity;
use sha1::{Digest, Sha1};

use crate::config::Config;

/// A member's id: the head of the SHA-1 of its peer URLs, sorted, and the
/// cluster's token.
pub fn member_id<'a>(peer_urls: impl IntoIterator<Item = &'a str>, token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.into_iter().collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    urls.iter().for_each(|url| hash.update(url));
    hash.update(token);
    head(hash)
}

/// A cluster's id: the head of the SHA-1 of its members' ids, sorted.
fn cluster_id(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut ids: Vec<u64> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    ids.iter().for_each(|id| hash.update(id.to_be_bytes()));
    head(hash)
}

fn head(hash: Sha1) -> u64 {
    let digest: [u8; 20] = hash.finalize().into();
    let (head, _) = digest.split_first_chunk::<8>().expect("20 bytes have a head of 8");
    u64::from_be_bytes(*head)
}

/// Who this member is and who is in the cluster, when nothing is on disk yet.
pub fn bootstrap(config: &Config) -> (Identity, ClusterState) {
    let token = &config.initial_cluster_token;
    let mut state = ClusterState::default();
    let mut own = 0;
    for (name, urls) in config.initial_cluster.members() {
        let peer_urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
        let id = member_id(peer_urls.iter().map(String::as_str), token);
        if *name == config.name {
            own = id;
        }
        // Its name becomes known when it has started.
        let member = MemberInfo { id, peer_urls, ..MemberInfo::default() };
        state.members.insert(id, member);
    }
    let identity =
        Identity { cluster_id: cluster_id(state.members.keys().copied()), member_id: own };
    (identity, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd prints for a member with its defaults.
    #[test]
    fn the_default_member_has_etcds_ids() {
        let id = member_id(["http://localhost:2380"], "etcd-cluster");
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id([id])), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let one = member_id(["http://a:1", "http://b:2"], "t");
        assert_eq!(one, member_id(["http://b:2", "http://a:1"], "t"));
        assert_ne!(one, member_id(["http://a:1", "http://b:2"], "u"));
    }
}
