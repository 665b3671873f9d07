//! Which leases there are and which keys each holds. This is state: it changes
//! in log order only. When a lease expires is the lease manager's affair.

use std::collections::{BTreeMap, BTreeSet};

use crate::shared::{Error, Planted, is_planted};

/// A lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Seconds that were granted.
    pub ttl_s: i64,
    /// Seconds left at the last checkpoint of the lease, 0 when there was none.
    pub remaining_s: i64,
    keys: BTreeSet<Box<[u8]>>,
}

/// All leases.
#[derive(Clone, Debug, Default)]
pub struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
}

impl LeaseTable {
    /// Makes a lease without keys.
    ///
    /// # Errors
    /// [`Error::LeaseExists`] when there is one with this id.
    pub fn grant(&mut self, id: i64, ttl_s: i64) -> Result<(), Error> {
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        self.leases.insert(id, Lease { ttl_s, ..Lease::default() });
        Ok(())
    }

    /// Removes a lease and gives the keys it held, in order.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`].
    pub fn revoke(&mut self, id: i64) -> Result<BTreeSet<Box<[u8]>>, Error> {
        Ok(self.leases.remove(&id).ok_or(Error::LeaseNotFound)?.keys)
    }

    /// Whether there is a lease `id`.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The lease `id`.
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// Notes how much time a lease has left, as its leader counted it.
    pub fn checkpoint(&mut self, id: i64, remaining_s: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.remaining_s = remaining_s;
        }
    }

    /// Moves `key` from one lease to another; 0 stands for none.
    pub fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from)
            && !is_planted(Planted::LeaseKeepsKeys)
        {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.into());
        }
    }
}

impl Lease {
    /// The keys it holds, in order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_one_lease_at_most() {
        let mut table = LeaseTable::default();
        table.grant(1, 10).unwrap();
        table.grant(2, 10).unwrap();
        assert_eq!(table.grant(2, 10), Err(Error::LeaseExists));
        table.attach(b"k", 0, 1);
        table.attach(b"k", 1, 2);
        assert_eq!(table.get(1).unwrap().keys().count(), 0);
        assert_eq!(table.revoke(2).unwrap().len(), 1);
        assert_eq!(table.revoke(2), Err(Error::LeaseNotFound));
    }
}
