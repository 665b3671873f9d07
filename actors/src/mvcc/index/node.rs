//! Leaves and inner nodes of the tree.

use std::sync::Arc;

use super::Entry;
use super::packed::{PackedKeys, make_room};

/// Entries in a leaf, at most.
pub(super) const LEAF_MAX: usize = 64;
/// Children of an inner node, at most.
pub(super) const INNER_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) keys: PackedKeys,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Inner {
    /// `separators[i]` is not above any key of `children[i + 1]` and above
    /// every key of `children[i]`.
    pub(super) separators: PackedKeys,
    pub(super) children: Vec<Arc<Node>>,
    /// Live keys below each child.
    pub(super) live: Vec<u64>,
}

/// A node that became too large gives its right half, and the key that parts them.
type Split = Option<(Box<[u8]>, Arc<Node>)>;

/// What an update did.
pub(super) struct Updated {
    pub(super) before: Option<Entry>,
    pub(super) after: Entry,
    pub(super) split: Split,
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Leaf::default())
    }
}

impl Node {
    /// The parent of two halves.
    pub(super) fn parent_of(left: Arc<Node>, separator: &[u8], right: Arc<Node>) -> Self {
        let mut separators = PackedKeys::default();
        separators.push(separator);
        let live = vec![left.live(), right.live()];
        Self::Inner(Inner { separators, children: vec![left, right], live })
    }

    pub(super) fn live(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.live_before(leaf.entries.len()),
            Self::Inner(inner) => inner.live.iter().sum(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Entry> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf.find(key).ok().map(|at| leaf.entries[at]),
                Self::Inner(inner) => node = &inner.children[inner.child_of(key)],
            }
        }
    }

    pub(super) fn rank(&self, key: &[u8]) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.live_before(leaf.keys.lower_bound(key)),
            Self::Inner(inner) => {
                let at = inner.child_of(key);
                inner.live[..at].iter().sum::<u64>() + inner.children[at].rank(key)
            }
        }
    }

    pub(super) fn update(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<Entry>) -> Entry,
    ) -> Updated {
        match self {
            Self::Leaf(leaf) => leaf.update(key, make),
            Self::Inner(inner) => inner.update(key, make),
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        match self {
            Self::Leaf(leaf) => leaf.remove(key),
            Self::Inner(inner) => inner.remove(key),
        }
    }

    /// The child of an inner node that has no other.
    pub(super) fn only_child(&self) -> Option<Arc<Node>> {
        match self {
            Self::Inner(inner) if inner.children.len() == 1 => Some(Arc::clone(&inner.children[0])),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.entries.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }
}

impl Leaf {
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let at = self.keys.lower_bound(key);
        match at < self.keys.len() && self.keys.get(at) == key {
            true => Ok(at),
            false => Err(at),
        }
    }

    fn live_before(&self, at: usize) -> u64 {
        self.entries[..at].iter().filter(|entry| entry.is_live()).count() as u64
    }

    fn update(&mut self, key: &[u8], make: impl FnOnce(Option<Entry>) -> Entry) -> Updated {
        let at = match self.find(key) {
            Ok(at) => {
                let before = self.entries[at];
                let after = make(Some(before));
                self.entries[at] = after;
                return Updated { before: Some(before), after, split: None };
            }
            Err(at) => at,
        };
        let after = make(None);
        self.keys.insert(at, key);
        make_room(&mut self.entries, 1, 8);
        self.entries.insert(at, after);
        Updated { before: None, after, split: self.split(at) }
    }

    fn split(&mut self, inserted: usize) -> Split {
        if self.entries.len() <= LEAF_MAX {
            return None;
        }
        // Keys that arrive in order fill the leaf they leave behind.
        let middle = split_point(inserted, self.entries.len());
        let right =
            Leaf { keys: self.keys.split_off(middle), entries: self.entries.split_off(middle) };
        self.entries.shrink_to_fit();
        let separator = right.keys.get(0).into();
        Some((separator, Arc::new(Node::Leaf(right))))
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let at = self.find(key).ok()?;
        self.keys.remove(at);
        Some(self.entries.remove(at))
    }
}

impl Inner {
    /// The child in which `key` lies or would lie.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        self.separators.upper_bound(key)
    }

    fn update(&mut self, key: &[u8], make: impl FnOnce(Option<Entry>) -> Entry) -> Updated {
        let at = self.child_of(key);
        let mut updated = Arc::make_mut(&mut self.children[at]).update(key, make);
        let Some((separator, right)) = updated.split.take() else {
            let was_live = updated.before.is_some_and(|before| before.is_live());
            self.live[at] += u64::from(updated.after.is_live());
            self.live[at] -= u64::from(was_live);
            return updated;
        };
        self.live[at] = self.children[at].live();
        self.separators.insert(at, &separator);
        self.live.insert(at + 1, right.live());
        self.children.insert(at + 1, right);
        updated.split = self.split(at + 1);
        updated
    }

    fn split(&mut self, inserted: usize) -> Split {
        if self.children.len() <= INNER_MAX {
            return None;
        }
        let middle = split_point(inserted, self.children.len());
        let right_separators = self.separators.split_off(middle);
        let separator = self.separators.get(middle - 1).into();
        self.separators.remove(middle - 1);
        let right = Inner {
            separators: right_separators,
            children: self.children.split_off(middle),
            live: self.live.split_off(middle),
        };
        Some((separator, Arc::new(Node::Inner(right))))
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let at = self.child_of(key);
        let before = Arc::make_mut(&mut self.children[at]).remove(key)?;
        self.live[at] -= u64::from(before.is_live());
        self.mend(at);
        Some(before)
    }

    /// Joins a child that became small with a neighbour, if both fit in one node.
    fn mend(&mut self, at: usize) {
        let max = match *self.children[at] {
            Node::Leaf(_) => LEAF_MAX,
            Node::Inner(_) => INNER_MAX,
        };
        if self.children[at].size() >= max / 4 || self.children.len() == 1 {
            return;
        }
        let left = at.min(self.children.len() - 2);
        if self.children[left].size() + self.children[left + 1].size() > max * 3 / 4 {
            return;
        }
        let right = self.children.remove(left + 1);
        let right_live = self.live.remove(left + 1);
        self.live[left] += right_live;
        let separator: Box<[u8]> = self.separators.get(left).into();
        self.separators.remove(left);
        match (Arc::make_mut(&mut self.children[left]), &*right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.keys.append(&right.keys);
                left.entries.extend_from_slice(&right.entries);
            }
            (Node::Inner(left), Node::Inner(right)) => {
                left.separators.push(&separator);
                left.separators.append(&right.separators);
                left.children.extend(right.children.iter().cloned());
                left.live.extend_from_slice(&right.live);
            }
            _ => unreachable!("all children of a node have the same height"),
        }
    }
}

/// Where to part a node of `len` after an insertion at `inserted`: in the
/// middle, or near the end when it was appended to.
fn split_point(inserted: usize, len: usize) -> usize {
    match inserted + 1 == len {
        true => len - 1,
        false => len / 2,
    }
}
