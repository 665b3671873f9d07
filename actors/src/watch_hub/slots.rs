//! Things by number, in pages of a fixed size.
//!
//! One vector of a hundred thousand things is moved whenever it has doubled, which
//! takes long, and leaves the memory it was in to the allocator, which keeps it.
//! Pages stay where they are, and are given back when they are empty.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Things in a page.
const PAGE: usize = 1024;

/// See the module's text. The number of a thing that was removed is used again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    pages: Vec<Slab<T>>,
    /// Pages that have space, each once.
    open: Vec<usize>,
    len: usize,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), open: Vec::new(), len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds what `make` makes for the number it is going to have; answers the number.
    pub(super) fn insert_with(&mut self, make: impl FnOnce(u32) -> T) -> u32 {
        let page = self.open_page();
        let things = &mut self.pages[page];
        let entry = things.vacant_entry();
        let number = page * PAGE + entry.key();
        let number = u32::try_from(number).expect("memory ends before four thousand million");
        entry.insert(make(number));
        if things.len() == PAGE {
            self.open.pop();
        }
        self.len += 1;
        number
    }

    /// The page that newcomers go to, which is the last of the open ones.
    fn open_page(&mut self) -> usize {
        if let Some(page) = self.open.last() {
            return *page;
        }
        // Whoever has few things pays for few.
        let capacity = if self.pages.is_empty() { 0 } else { PAGE };
        self.pages.push(Slab::with_capacity(capacity));
        self.open.push(self.pages.len() - 1);
        self.pages.len() - 1
    }

    /// Takes out the thing with this number, which must be there.
    pub(super) fn remove(&mut self, number: u32) -> T {
        let (page, place) = split(number);
        let things = &mut self.pages[page];
        if things.len() == PAGE {
            self.open.push(page);
        }
        let removed = things.remove(place);
        if things.is_empty() {
            *things = Slab::new();
        }
        self.len -= 1;
        removed
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (page, place) = split(number);
        self.pages.get(page)?.get(place)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (page, place) = split(number);
        self.pages.get_mut(page)?.get_mut(place)
    }

    /// All things with their numbers, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = (0..).step_by(PAGE).zip(&self.pages);
        pages.flat_map(|(first, things)| {
            things.iter().map(move |(place, thing)| (first + place as u32, thing))
        })
    }
}

fn split(number: u32) -> (usize, usize) {
    (number as usize / PAGE, number as usize % PAGE)
}

impl<T> Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        let (page, place) = split(number);
        &self.pages[page][place]
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        let (page, place) = split(number);
        &mut self.pages[page][place]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_there_until_it_is_taken_out(
            steps in prop::collection::vec((any::<bool>(), 0usize..1500), 1..20),
        ) {
            let (mut slots, mut model) = (Slots::new(), BTreeMap::new());
            for (adds, count) in steps {
                for _ in 0..count {
                    if adds {
                        let number = slots.insert_with(|number| number * 3);
                        prop_assert_eq!(model.insert(number, number * 3), None);
                    } else if let Some((number, thing)) = model.pop_first() {
                        prop_assert_eq!(slots.get(number), Some(&thing));
                        prop_assert_eq!(slots.remove(number), thing);
                        prop_assert_eq!(slots.get(number), None);
                    }
                }
                let all: Vec<(u32, u32)> = slots.iter().map(|(n, thing)| (n, *thing)).collect();
                prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(slots.is_empty(), model.is_empty());
                let most = model.last_key_value().map_or(0, |(number, _)| *number as usize);
                prop_assert!(slots.pages.iter().all(|page| page.capacity() <= PAGE));
                prop_assert!(slots.pages.iter().skip(most / PAGE + 1).all(|p| p.capacity() == 0));
            }
        }
    }

    #[test]
    fn memory_is_for_what_there_is() {
        let mut slots = Slots::new();
        let numbers: Vec<u32> = (0..10 * PAGE).map(|_| slots.insert_with(|_| 0u8)).collect();
        assert_eq!((slots.pages.len(), slots.open.len()), (10, 0));
        for number in numbers {
            assert_eq!(slots.remove(number), 0);
        }
        assert!(slots.pages.iter().all(|page| page.capacity() == 0));
        let again: Vec<u32> = (0..10 * PAGE).map(|_| slots.insert_with(|_| 0)).collect();
        assert!(again.iter().all(|number| (*number as usize) < 10 * PAGE));
        assert_eq!((slots.pages.len(), slots.open.len()), (10, 0), "they are used again");
    }
}
