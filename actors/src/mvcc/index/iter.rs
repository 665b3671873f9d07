//! Walking the tree in key order.

use super::Entry;
use super::node::{Inner, Leaf, Node};

/// The keys from some start on, in order.
#[derive(Debug)]
pub struct Iter<'a> {
    /// The inner nodes above the leaf, each with the child to visit next.
    above: Vec<(&'a Inner, usize)>,
    leaf: Option<(&'a Leaf, usize)>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(root: &'a Node, start: &[u8]) -> Self {
        let mut iter = Self { above: Vec::new(), leaf: None };
        let mut node = root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    iter.leaf = Some((leaf, leaf.keys.lower_bound(start)));
                    return iter;
                }
                Node::Inner(inner) => {
                    let at = inner.child_of(start);
                    iter.above.push((inner, at + 1));
                    node = &inner.children[at];
                }
            }
        }
    }

    /// Goes to the first key of the next leaf.
    fn next_leaf(&mut self) -> Option<()> {
        let mut node = loop {
            let (inner, next) = self.above.last_mut()?;
            match inner.children.get(*next) {
                Some(child) => {
                    *next += 1;
                    break child;
                }
                None => self.above.pop(),
            };
        };
        loop {
            match &**node {
                Node::Leaf(leaf) => {
                    self.leaf = Some((leaf, 0));
                    return Some(());
                }
                Node::Inner(inner) => {
                    self.above.push((inner, 1));
                    node = &inner.children[0];
                }
            }
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (leaf, at) = self.leaf?;
            if at < leaf.entries.len() {
                self.leaf = Some((leaf, at + 1));
                return Some((leaf.keys.get(at), leaf.entries[at]));
            }
            if self.next_leaf().is_none() {
                self.leaf = None;
            }
        }
    }
}
