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

/// Bytes of memory the process holds, where the kernel says so.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_running_process_holds_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 16));
    }
}
