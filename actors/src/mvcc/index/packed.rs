//! Keys back to back in one buffer.

/// An ordered list of keys in one allocation, with where each ends.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedKeys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl PackedKeys {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    /// The first place whose key is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The first place whose key is above `key`.
    pub(super) fn upper_bound(&self, key: &[u8]) -> usize {
        let at = self.lower_bound(key);
        at + usize::from(at < self.len() && self.get(at) == key)
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        let old_len = self.bytes.len();
        make_room(&mut self.bytes, key.len(), 128);
        make_room(&mut self.ends, 1, 8);
        self.bytes.resize(old_len + key.len(), 0);
        self.bytes.copy_within(start..old_len, start + key.len());
        self.bytes[start..start + key.len()].copy_from_slice(key);
        self.ends.insert(at, offset(start));
        for end in &mut self.ends[at..] {
            *end += offset(key.len());
        }
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(offset(self.bytes.len()));
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends[at] as usize);
        self.bytes.drain(start..end);
        self.ends.remove(at);
        for later in &mut self.ends[at..] {
            *later -= offset(end - start);
        }
    }

    /// Splits off the keys from `at` on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let right = Self {
            bytes: self.bytes[start..].to_vec(),
            ends: self.ends[at..].iter().map(|end| end - offset(start)).collect(),
        };
        self.bytes.truncate(start);
        self.ends.truncate(at);
        self.bytes.shrink_to_fit();
        right
    }

    pub(super) fn append(&mut self, other: &Self) {
        let base = offset(self.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| base + end));
    }

    fn start(&self, at: usize) -> usize {
        match at {
            0 => 0,
            at => self.ends[at - 1] as usize,
        }
    }
}

/// Makes room for `more` elements, and a few besides. A vector left to itself
/// doubles, and with hundreds of thousands of nodes the unused halves add up.
pub(super) fn make_room<T>(vector: &mut Vec<T>, more: usize, besides: usize) {
    if vector.capacity() - vector.len() < more {
        vector.reserve_exact(more + besides);
    }
}

/// A node holds some dozens of keys, each far below the request limit.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the keys of one node stay below 4 GiB")
}
