//! Figures of the process as the kernel sees it: `process_*` and etcd's `os_fd_*`.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector;
use prometheus::proto::MetricFamily;

use super::families::Shape;

const USED: Shape = Shape::gauge("os_fd_used", "Open file descriptors.");
const LIMIT: Shape = Shape::gauge("os_fd_limit", "File descriptors the process may open.");

/// Shows what the kernel knows of this process.
pub struct ProcessCollector {
    process: process_collector::ProcessCollector,
    descs: Vec<Desc>,
}

impl ProcessCollector {
    /// For this process.
    ///
    /// # Errors
    /// Never, as long as the names above are well formed.
    pub fn new() -> prometheus::Result<Self> {
        let descs = [USED, LIMIT].iter().map(Shape::desc).collect::<prometheus::Result<_>>()?;
        Ok(Self { process: process_collector::ProcessCollector::for_self(), descs })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.process.desc().into_iter().chain(&self.descs).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.process.collect();
        // Counting descriptors is a walk through a directory: done once, shown twice.
        for (name, shape) in [("process_open_fds", USED), ("process_max_fds", LIMIT)] {
            let value = families
                .iter()
                .find(|family| family.name() == name)
                .and_then(|family| family.get_metric().first())
                .map(|metric| metric.get_gauge().get_value());
            families.extend(value.map(|value| shape.value(value)));
        }
        families
    }
}

/// The number of file descriptors the process may open, where there is a limit.
pub fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// What the process holds in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that is resident.
    pub resident: u64,
    /// The part of it that no file is behind: heap and stacks.
    pub anonymous: u64,
}

impl Memory {
    /// Reads the figures of this process; `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        let status = "Name:\tcastd\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\nThreads:\t7\n";
        let memory = Memory { resident: 2 << 20, anonymous: 512 << 10 };
        assert_eq!(Memory::read(status), Some(memory));
        assert_eq!(Memory::read("VmRSS:\t 1 kB\n"), None);
        let now = Memory::now().unwrap();
        assert!(now.anonymous > 0 && now.resident >= now.anonymous, "{now:?}");
    }

    #[test]
    fn descriptors_are_counted_under_both_names() {
        let families = ProcessCollector::new().unwrap().collect();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).expect(name);
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!(value("os_fd_used"), value("process_open_fds"));
        assert!(value("os_fd_limit") >= value("os_fd_used"));
    }
}
