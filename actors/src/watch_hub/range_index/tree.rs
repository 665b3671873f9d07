//! An interval tree: an AVL tree in one vector.

use std::cmp::Ordering;

/// A node's place in the vector; [`NIL`] for none.
type Link = u32;

const NIL: Link = u32::MAX;

/// Where a range ends. The open end is behind all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End<'a> {
    /// In front of this key.
    Before(&'a [u8]),
    /// Nowhere.
    Open,
}

impl End<'_> {
    fn is_behind(self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end,
            Self::Open => true,
        }
    }
}

/// A range, ordered by where it starts, then by where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bounds<'a> {
    start: &'a [u8],
    end: End<'a>,
}

impl<'a> Bounds<'a> {
    /// The keys from `start` on, to `end` exclusively or without an end.
    pub(super) fn new(start: &'a [u8], end: Option<&'a [u8]>) -> Self {
        Self { start, end: end.map_or(End::Open, End::Before) }
    }
}

#[derive(Debug)]
struct Node {
    /// The range's start and, behind it, its end.
    bounds: Box<[u8]>,
    start_len: u32,
    /// The child with smaller ranges. In a free node: the next free one.
    left: Link,
    /// The child with greater ranges.
    right: Link,
    /// The node of this branch whose end reaches furthest.
    furthest: Link,
    number: u32,
    /// Nodes on the longest way down, this one included.
    height: u8,
    is_open: bool,
}

impl Node {
    fn new(bounds: Bounds<'_>, number: u32) -> Self {
        let (end, is_open): (&[u8], bool) = match bounds.end {
            End::Before(end) => (end, false),
            End::Open => (&[], true),
        };
        Self {
            bounds: [bounds.start, end].concat().into_boxed_slice(),
            start_len: u32::try_from(bounds.start.len()).expect("a key is far below 4 GiB"),
            left: NIL,
            right: NIL,
            furthest: NIL,
            number,
            height: 1,
            is_open,
        }
    }

    fn start(&self) -> &[u8] {
        &self.bounds[..self.start_len as usize]
    }

    fn end(&self) -> End<'_> {
        match self.is_open {
            true => End::Open,
            false => End::Before(&self.bounds[self.start_len as usize..]),
        }
    }

    fn bounds(&self) -> Bounds<'_> {
        Bounds { start: self.start(), end: self.end() }
    }
}

/// Ranges and their numbers; see the module's text.
#[derive(Debug)]
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    root: Link,
    /// The first free node.
    free: Link,
    len: usize,
}

impl Default for IntervalTree {
    fn default() -> Self {
        Self { nodes: Vec::new(), root: NIL, free: NIL, len: 0 }
    }
}

impl IntervalTree {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of exactly this range.
    pub(super) fn get(&self, bounds: Bounds<'_>) -> Option<u32> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match bounds.cmp(&node.bounds()) {
                Ordering::Less => node.left,
                Ordering::Equal => return Some(node.number),
                Ordering::Greater => node.right,
            };
        }
        None
    }

    /// Adds a range; when it is there already, gives its number and changes nothing.
    pub(super) fn insert(&mut self, bounds: Bounds<'_>, number: u32) -> Option<u32> {
        let before = self.get(bounds);
        if before.is_none() {
            let new = self.allocate(Node::new(bounds, number));
            self.root = self.link(self.root, new);
            self.len += 1;
        }
        before
    }

    /// Takes a range out and gives its number.
    pub(super) fn remove(&mut self, bounds: Bounds<'_>) -> Option<u32> {
        let number = self.get(bounds)?;
        self.root = self.unlink(self.root, bounds);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        Some(number)
    }

    /// Calls `found` with the number of every range that contains `key`, in order.
    pub(super) fn each(&self, key: &[u8], found: &mut impl FnMut(u32)) {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            if key < node.start() {
                at = node.left;
                continue;
            }
            self.each_started(node.left, key, found);
            if node.end().is_behind(key) {
                found(node.number);
            }
            at = node.right;
        }
    }

    /// The same in the branch at `at`, of which all ranges start at or in front
    /// of `key`: it is entered only if one of them contains the key.
    fn each_started(&self, at: Link, key: &[u8], found: &mut impl FnMut(u32)) {
        if at == NIL {
            return;
        }
        let node = self.node(at);
        if !self.node(node.furthest).end().is_behind(key) {
            return;
        }
        self.each_started(node.left, key, found);
        if node.end().is_behind(key) {
            found(node.number);
        }
        self.each_started(node.right, key, found);
    }

    /// Hangs `new` into the branch at `at`; gives the branch's new top.
    fn link(&mut self, at: Link, new: Link) -> Link {
        if at == NIL {
            self.refresh(new);
            return new;
        }
        if self.node(new).bounds() < self.node(at).bounds() {
            let left = self.link(self.node(at).left, new);
            self.node_mut(at).left = left;
        } else {
            let right = self.link(self.node(at).right, new);
            self.node_mut(at).right = right;
        }
        self.balanced(at)
    }

    /// Takes the node of `bounds`, which is in the branch at `at`, out of it and
    /// frees it; gives the branch's new top.
    fn unlink(&mut self, at: Link, bounds: Bounds<'_>) -> Link {
        let node = self.node(at);
        let (left, right) = (node.left, node.right);
        match bounds.cmp(&node.bounds()) {
            Ordering::Less => {
                let left = self.unlink(left, bounds);
                self.node_mut(at).left = left;
                self.balanced(at)
            }
            Ordering::Greater => {
                let right = self.unlink(right, bounds);
                self.node_mut(at).right = right;
                self.balanced(at)
            }
            Ordering::Equal => {
                self.release(at);
                self.join(left, right)
            }
        }
    }

    /// One branch of two that had a node between them.
    fn join(&mut self, left: Link, right: Link) -> Link {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        let (first, rest) = self.split_first(right);
        let top = self.node_mut(first);
        (top.left, top.right) = (left, rest);
        self.balanced(first)
    }

    /// Parts the first node of the branch at `at` from the rest.
    fn split_first(&mut self, at: Link) -> (Link, Link) {
        let node = self.node(at);
        if node.left == NIL {
            return (at, node.right);
        }
        let (first, rest) = self.split_first(node.left);
        self.node_mut(at).left = rest;
        (first, self.balanced(at))
    }

    /// Makes the branch at `at`, of which one side may be two nodes higher than
    /// the other, right again; gives its new top.
    fn balanced(&mut self, at: Link) -> Link {
        let (left, right) = (self.node(at).left, self.node(at).right);
        if self.height(left) > self.height(right) + 1 {
            if self.height(self.node(left).left) < self.height(self.node(left).right) {
                let top = self.rotate_left(left);
                self.node_mut(at).left = top;
            }
            return self.rotate_right(at);
        }
        if self.height(right) > self.height(left) + 1 {
            if self.height(self.node(right).right) < self.height(self.node(right).left) {
                let top = self.rotate_right(right);
                self.node_mut(at).right = top;
            }
            return self.rotate_left(at);
        }
        self.refresh(at);
        at
    }

    fn rotate_left(&mut self, at: Link) -> Link {
        let top = self.node(at).right;
        self.node_mut(at).right = self.node(top).left;
        self.node_mut(top).left = at;
        self.refresh(at);
        self.refresh(top);
        top
    }

    fn rotate_right(&mut self, at: Link) -> Link {
        let top = self.node(at).left;
        self.node_mut(at).left = self.node(top).right;
        self.node_mut(top).right = at;
        self.refresh(at);
        self.refresh(top);
        top
    }

    /// Counts anew what `at` knows of the branch below it.
    fn refresh(&mut self, at: Link) {
        let (left, right) = (self.node(at).left, self.node(at).right);
        let mut furthest = at;
        for child in [left, right] {
            if child != NIL {
                let candidate = self.node(child).furthest;
                if self.node(candidate).end() > self.node(furthest).end() {
                    furthest = candidate;
                }
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = self.node_mut(at);
        (node.height, node.furthest) = (height, furthest);
    }

    fn height(&self, at: Link) -> u8 {
        if at == NIL { 0 } else { self.node(at).height }
    }

    fn allocate(&mut self, node: Node) -> Link {
        if self.free != NIL {
            let at = self.free;
            self.free = self.node(at).left;
            *self.node_mut(at) = node;
            return at;
        }
        let at = Link::try_from(self.nodes.len()).ok().filter(|at| *at != NIL);
        self.nodes.push(node);
        at.expect("there are fewer than 2^32 - 1 ranges")
    }

    /// Frees a node that nothing leads to any more, with the keys it holds.
    fn release(&mut self, at: Link) {
        let free = self.free;
        let node = self.node_mut(at);
        node.bounds = Box::default();
        node.left = free;
        self.free = at;
    }

    fn node(&self, at: Link) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: Link) -> &mut Node {
        &mut self.nodes[at as usize]
    }
}

#[cfg(test)]
impl IntervalTree {
    /// Checks everything that must hold of the tree's shape; gives the ranges
    /// in order.
    pub(super) fn check(&self) -> Vec<Bounds<'_>> {
        let mut ranges = Vec::new();
        self.check_branch(self.root, &mut ranges);
        assert!(ranges.is_sorted_by(|one, next| one < next));
        assert_eq!(ranges.len(), self.len);
        let (mut free, mut at) = (0, self.free);
        while at != NIL {
            assert!(self.node(at).bounds.is_empty());
            (free, at) = (free + 1, self.node(at).left);
        }
        assert_eq!(self.len + free, self.nodes.len());
        ranges
    }

    /// Gives the height of the branch and the end that reaches furthest.
    fn check_branch<'a>(&'a self, at: Link, ranges: &mut Vec<Bounds<'a>>) -> (u8, Option<End<'a>>) {
        if at == NIL {
            return (0, None);
        }
        let node = self.node(at);
        let (left, left_end) = self.check_branch(node.left, ranges);
        ranges.push(node.bounds());
        let (right, right_end) = self.check_branch(node.right, ranges);
        assert!(left.abs_diff(right) <= 1);
        assert_eq!(node.height, 1 + left.max(right));
        let end = Some(node.end()).max(left_end).max(right_end);
        assert_eq!(Some(self.node(node.furthest).end()), end);
        (node.height, end)
    }
}
