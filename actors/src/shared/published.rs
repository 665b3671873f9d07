//! A slot through which one actor shows its newest immutable snapshot.

use std::sync::Arc;

use parking_lot::RwLock;

/// The newest immutable snapshot of something, written by its one owner and
/// read by anyone. The lock is held for the copy of a pointer only, so neither
/// side ever waits for work.
#[derive(Debug)]
pub struct Published<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Published<T> {
    /// A slot that shows `first`.
    pub fn new(first: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(first))))
    }

    /// The newest snapshot.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// Shows `next` from now on. The previous snapshot is dropped outside of
    /// the lock, since dropping a large tree takes time.
    pub fn set(&self, next: Arc<T>) {
        let previous = std::mem::replace(&mut *self.0.write(), next);
        drop(previous);
    }
}
