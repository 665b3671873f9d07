//! Virtual time.

/// Nanoseconds since the world began.
pub type Nanos = u64;

/// A microsecond.
pub const US: Nanos = 1_000;
/// A millisecond.
pub const MS: Nanos = 1_000_000;
/// A second.
pub const SECOND: Nanos = 1_000_000_000;

/// A time as people read it, in seconds.
pub(crate) fn seconds(time: Nanos) -> String {
    format!("{}.{:06}", time / SECOND, time % SECOND / US)
}
