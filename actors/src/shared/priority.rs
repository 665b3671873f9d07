//! Threads that yield to the others.

/// Adds to the nice value of this thread; the threads that it starts inherit it. On Linux
/// a nice value belongs to the thread.
#[cfg(target_os = "linux")]
pub(crate) fn lower_priority(nice: i32) {
    if let Err(error) = rustix::process::nice(nice) {
        let thread = std::thread::current();
        tracing::warn!(thread = thread.name(), %error, "a thread runs at normal priority");
    }
}

/// Elsewhere it belongs to the process, which must not be slowed.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower_priority(_nice: i32) {}
