//! What a configuration and a snapshot say about themselves.

use std::collections::BTreeSet;

use crate::eraftpb::{ConfState, Snapshot};

impl Snapshot {
    /// Whether this snapshot covers no entry, which is raft's way to say "no snapshot".
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}

/// A configuration that is not joint, from its voters and its learners.
impl<V, L> From<(V, L)> for ConfState
where
    V: IntoIterator<Item = u64>,
    L: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (V, L)) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// Whether two states describe one configuration; the order of members does not matter.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    left.auto_leave == right.auto_leave
        && same_members(&left.voters, &right.voters)
        && same_members(&left.learners, &right.learners)
        && same_members(&left.voters_outgoing, &right.voters_outgoing)
        && same_members(&left.learners_next, &right.learners_next)
}

fn same_members(left: &[u64], right: &[u64]) -> bool {
    left == right || left.iter().collect::<BTreeSet<_>>() == right.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eraftpb::SnapshotMetadata;

    #[test]
    fn order_of_members_does_not_matter_but_roles_do() {
        let state = ConfState::from((vec![1, 2, 3], vec![4]));
        assert!(conf_state_eq(&state, &ConfState::from((vec![3, 1, 2], vec![4]))));
        assert!(!conf_state_eq(&state, &ConfState::from((vec![1, 2], vec![3, 4]))));
        assert!(!conf_state_eq(&state, &ConfState { auto_leave: true, ..state.clone() }));
        assert!(!conf_state_eq(&state, &ConfState { voters_outgoing: vec![1], ..state.clone() }));
        assert!(!conf_state_eq(&state, &ConfState { learners_next: vec![1], ..state.clone() }));
    }

    #[test]
    fn a_snapshot_is_empty_until_it_covers_an_entry() {
        assert!(Snapshot::default().is_empty());
        let metadata = SnapshotMetadata { index: 1, ..Default::default() };
        assert!(!Snapshot { metadata: Some(metadata), ..Default::default() }.is_empty());
    }
}
