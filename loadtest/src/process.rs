//! What processes cost: CPU time, memory, bytes written. Linux only, from `/proc` and from the
//! CPU clocks the kernel keeps for every process (nanoseconds, exited threads included).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::error::LoadError;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) rss_bytes: u64,
    /// The most that was ever resident.
    pub(crate) rss_peak_bytes: u64,
    /// Resident now and not backed by a file: the heap, mostly.
    pub(crate) anon_bytes: u64,
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(memories: I) -> Self {
        memories.fold(Self::default(), |sum, memory| Self {
            rss_bytes: sum.rss_bytes + memory.rss_bytes,
            rss_peak_bytes: sum.rss_peak_bytes + memory.rss_peak_bytes,
            anon_bytes: sum.anon_bytes + memory.anon_bytes,
        })
    }
}

/// A reading of the clocks and counters of the generator and of the servers.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    generator_cpu: Duration,
    servers: Vec<ServerUsage>,
}

#[derive(Debug, Clone, Copy)]
struct ServerUsage {
    pid: u32,
    cpu: Duration,
    written_bytes: u64,
    memory: Memory,
}

/// What happened between two readings.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    /// CPU time of the generator, all its threads.
    pub(crate) generator_cpu: Duration,
    /// That of each server whose process was known.
    pub(crate) servers: Vec<ServerCost>,
}

/// What the server's process spent between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerCost {
    /// Process id.
    pub(crate) pid: u32,
    /// CPU time, user and system, of all threads.
    pub(crate) cpu: Duration,
    /// Bytes it caused to be written to storage.
    pub(crate) written_bytes: u64,
    /// Memory at the second reading.
    pub(crate) memory: Memory,
}

impl Usage {
    /// Reads the generator's clock and those of the servers with these process ids.
    ///
    /// # Errors
    /// When a process is gone or belongs to somebody else.
    pub(crate) fn sample(servers: &[u32]) -> Result<Self, LoadError> {
        let servers = servers.iter().copied().map(ServerUsage::sample).collect::<Result<_, _>>()?;
        let generator_cpu = cpu_time(std::process::id())?;
        Ok(Self { generator_cpu, servers })
    }

    /// What was spent since an earlier reading.
    pub(crate) fn since(&self, before: &Self) -> Cost {
        let spent = |(now, then): (&ServerUsage, &ServerUsage)| ServerCost {
            pid: now.pid,
            cpu: now.cpu.saturating_sub(then.cpu),
            written_bytes: now.written_bytes.saturating_sub(then.written_bytes),
            memory: now.memory,
        };
        let servers = self.servers.iter().zip(&before.servers).map(spent).collect();
        let generator_cpu = self.generator_cpu.saturating_sub(before.generator_cpu);
        Cost { generator_cpu, servers }
    }
}

impl ServerUsage {
    fn sample(pid: u32) -> Result<Self, LoadError> {
        Ok(Self {
            pid,
            cpu: cpu_time(pid)?,
            written_bytes: written_bytes(pid)?,
            memory: memory(pid)?,
        })
    }
}

/// CPU time a process has spent, user and system, exited threads included.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, LoadError> {
    let failed = |source| LoadError::Observe { path: format!("CPU clock of {pid}").into(), source };
    let process = libc::pid_t::try_from(pid)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the kernel writes one clock id through a pointer to a local variable.
    let refused = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
    if refused != 0 {
        return Err(failed(io::Error::from_raw_os_error(refused)));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec through a pointer to a local variable.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    Ok(seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Memory of a process.
///
/// # Errors
/// When there is no such process.
pub(crate) fn memory(pid: u32) -> Result<Memory, LoadError> {
    let text = read(pid, "status")?;
    let bytes = |field| kibibytes(&text, field).unwrap_or(0) * 1024;
    Ok(Memory {
        rss_bytes: bytes("VmRSS:"),
        rss_peak_bytes: bytes("VmHWM:"),
        anon_bytes: bytes("RssAnon:"),
    })
}

/// Bytes a process caused to be written to storage.
///
/// # Errors
/// When there is no such process, or it belongs to somebody else.
pub(crate) fn written_bytes(pid: u32) -> Result<u64, LoadError> {
    Ok(number_after(&read(pid, "io")?, "write_bytes:").unwrap_or(0))
}

fn read(pid: u32, file: &str) -> Result<String, LoadError> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    std::fs::read_to_string(&path).map_err(|source| LoadError::Observe { path, source })
}

/// The number in a line such as `VmRSS:     123 kB`.
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with(field) && line.ends_with(" kB"))?;
    number_after(text, field)
}

fn number_after(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcastd\nVmPeak:\t  900 kB\nVmHWM:\t  800 kB\nVmRSS:\t  700 kB\n\
                          RssAnon:\t  600 kB\nThreads:\t9\n";
    const IO: &str = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n\
                      cancelled_write_bytes: 7\n";

    #[test]
    fn proc_files_are_read_by_field() {
        assert_eq!(kibibytes(STATUS, "VmHWM:"), Some(800));
        assert_eq!(kibibytes(STATUS, "RssAnon:"), Some(600));
        assert_eq!(kibibytes(STATUS, "Threads:"), None, "no kibibytes");
        assert_eq!(kibibytes(STATUS, "VmSwap:"), None);
        assert_eq!(number_after(IO, "write_bytes:"), Some(6));
    }

    #[test]
    fn a_busy_loop_costs_cpu_time() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let mut spun = 0_u64;
        while cpu_time(me).unwrap() - before < Duration::from_millis(20) {
            spun += 1;
        }
        assert!(spun > 0);
        assert!(memory(me).unwrap().rss_peak_bytes > 0);
        assert!(written_bytes(me).is_ok());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Usage::sample(&[child.id()]).is_err());
    }
}
