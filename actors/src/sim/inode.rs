//! One file of a simulated disk.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

const SECTOR: usize = 512;

/// What a reader sees, what is durable, and for each changed sector every content that it has
/// had since the last sync. The two contents differ in changed sectors only, and in the length.
#[derive(Default)]
pub(super) struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeMap<usize, Vec<Box<[u8]>>>,
    /// How often it is open.
    opened: u32,
}

/// A sector of a content, as far as that reaches.
fn sector(content: &[u8], number: usize) -> &[u8] {
    let start = (number * SECTOR).min(content.len());
    &content[start..(start + SECTOR).min(content.len())]
}

impl Inode {
    pub(super) fn open(&mut self) {
        self.opened += 1;
    }

    pub(super) fn close(&mut self) {
        self.opened -= 1;
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened > 0
    }

    /// The same content, and nobody has it open.
    pub(super) fn copy(&self) -> Self {
        let Self { seen, durable, dirty, .. } = self;
        let (seen, durable, dirty) = (seen.clone(), durable.clone(), dirty.clone());
        Self { seen, durable, dirty, opened: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.seen
    }

    /// Replaces the content, durably.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.durable.clone_from(&bytes);
        self.seen = bytes;
        self.dirty.clear();
    }

    /// Writes, and gives by how many bytes the file grew.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) -> u64 {
        let (before, end) = (self.seen.len(), offset + bytes.len());
        if before < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset..end].copy_from_slice(bytes);
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            let now = sector(&self.seen, number);
            let versions = self.dirty.entry(number).or_default();
            if versions.last().is_none_or(|last| **last != *now) {
                versions.push(now.into());
            }
        }
        (self.seen.len() - before) as u64
    }

    /// Makes everything durable, at the cost of what was written since the last time.
    pub(super) fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for number in std::mem::take(&mut self.dirty).into_keys() {
            let now = sector(&self.seen, number);
            let start = number * SECTOR;
            self.durable[start..start + now.len()].copy_from_slice(now);
        }
    }

    /// Each changed sector ends as it was, or as any of the writes since left it.
    pub(super) fn crash(&mut self, chance: &mut StdRng) {
        let dirty = std::mem::take(&mut self.dirty);
        for (number, versions) in &dirty {
            let pick = chance.random_range(0..=versions.len());
            let Some(content) = pick.checked_sub(1).map(|i| &versions[i]) else { continue };
            let start = number * SECTOR;
            let end = start + content.len();
            if self.durable.len() < end {
                self.durable.resize(end, 0);
            }
            self.durable[start..end].copy_from_slice(content);
        }
        self.seen.truncate(self.durable.len());
        for number in dirty.into_keys() {
            let left = sector(&self.durable, number);
            let start = (number * SECTOR).min(self.seen.len());
            self.seen[start..start + left.len()].copy_from_slice(left);
        }
    }

    /// Flips a bit of a file that is not empty; gives the byte's offset and the bit.
    pub(super) fn flip_bit(&mut self, chance: &mut StdRng) -> (usize, u32) {
        let from = chance.random_range(0..self.seen.len());
        let bit = chance.random_range(0..8);
        let full = |offset: &usize| self.seen[*offset] != 0;
        let next = (from..self.seen.len()).chain(0..from).find(full);
        let offset = if chance.random_ratio(3, 4) { next.unwrap_or(from) } else { from };
        for content in [&mut self.seen, &mut self.durable] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= 1 << bit;
            }
        }
        (offset, bit)
    }
}
