//! Membership changes in both of raft's forms, seen as one.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};

/// One step of a membership change: do `change_type` to the member `node_id`.
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: change_type.into(), node_id }
}

/// A membership change in either form: one step ([`ConfChange`]) or several ([`ConfChangeV2`]).
pub trait ConfChangeI {
    /// The change as several steps.
    fn into_v2(self) -> ConfChangeV2;

    /// The change as several steps, borrowed where it already is.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The change as one step, if that is the form it has.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        let step = new_conf_change_single(self.node_id, self.change_type());
        ConfChangeV2 { changes: vec![step], context: self.context, ..Default::default() }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether this change goes through a joint configuration, and if so, whether raft
    /// leaves that configuration by itself.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition() {
            ConfChangeTransition::Explicit => Some(false),
            ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Auto => (self.changes.len() > 1).then_some(true),
        }
    }

    /// Whether this change ends a joint configuration: it asks for nothing. Its context
    /// may still say something to the application.
    pub fn leave_joint(&self) -> bool {
        self.transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(transition: ConfChangeTransition, steps: u64) -> ConfChangeV2 {
        let step = |id| new_conf_change_single(id, ConfChangeType::AddNode);
        ConfChangeV2 {
            transition: transition.into(),
            changes: (1..=steps).map(step).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn one_step_is_simple_and_several_are_joint() {
        assert_eq!(change(ConfChangeTransition::Auto, 1).enter_joint(), None);
        assert_eq!(change(ConfChangeTransition::Auto, 2).enter_joint(), Some(true));
        assert_eq!(change(ConfChangeTransition::Implicit, 1).enter_joint(), Some(true));
        assert_eq!(change(ConfChangeTransition::Explicit, 2).enter_joint(), Some(false));
    }

    #[test]
    fn only_an_empty_automatic_change_leaves_joint() {
        assert!(change(ConfChangeTransition::Auto, 0).leave_joint());
        assert!(!change(ConfChangeTransition::Auto, 1).leave_joint());
        assert!(!change(ConfChangeTransition::Explicit, 0).leave_joint());
    }

    #[test]
    fn the_old_form_turns_into_one_step_and_keeps_its_context() {
        let mut old = ConfChange { id: 9, node_id: 4, context: "ctx".into(), ..Default::default() };
        old.set_change_type(ConfChangeType::AddLearnerNode);
        assert_eq!(old.as_v1(), Some(&old));
        let new = old.as_v2().into_owned();
        let step = new_conf_change_single(4, ConfChangeType::AddLearnerNode);
        assert_eq!(new.changes, vec![step]);
        assert_eq!(new.context, "ctx");
        assert_eq!(new.as_v1(), None);
        assert_eq!(old.into_v2(), new);
    }
}
