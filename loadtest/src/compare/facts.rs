//! What has to be known about the machine to make sense of the figures.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::contender::Contender;
use super::stage::Bench;

/// The machine, the servers, the command.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    /// The processor's name.
    cpu: String,
    /// Cores this process may use.
    cores: usize,
    /// Memory, KiB.
    memory_kib: u64,
    /// The kernel's version.
    kernel: String,
    /// Type of the file system the data directories were on.
    file_system: String,
    /// Load averages when the comparison began: what else the machine was doing.
    load_before: String,
    /// And at its end.
    load_after: String,
    /// Names and versions of the servers.
    servers: Vec<(String, String)>,
    /// The command line.
    command: String,
}

impl Facts {
    /// Looks around.
    pub(super) fn gather(contenders: &[Contender], bench: &Bench) -> Self {
        let cpu_info = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Self {
            cpu: field(&cpu_info, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            memory_kib: memory.trim_end_matches(" kB").parse().unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts"), &bench.parent),
            load_before: load(),
            load_after: String::new(),
            servers: contenders.iter().map(|c| (c.name.clone(), c.version.clone())).collect(),
            command: command(),
        }
    }

    /// The same, with what is only known at the end.
    pub(super) fn finished(self) -> Self {
        Self { load_after: load(), ..self }
    }

    /// A list of all that.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "- Machine: {}, {} cores, {:.1} GiB, Linux {}, data on {}; load average {} before, \
             {} after",
            self.cpu,
            self.cores,
            self.memory_kib as f64 / f64::from(1 << 20),
            self.kernel,
            self.file_system,
            self.load_before,
            self.load_after
        );
        for (name, version) in &self.servers {
            let _ = writeln!(text, "- {name}: {version}");
        }
        let _ = writeln!(text, "- Command: `{}`", self.command);
        text
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value in a line such as `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next()
}

/// The type of the file system a directory is on: that of the longest mount point above it.
fn file_system(mounts: &str, dir: &Path) -> String {
    let parsed = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    parsed
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "an unknown file system".into(), |(_, kind)| kind.to_owned())
}

/// The load average of the last minute.
fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

/// The command line, with programs by their names alone: where they lie tells a reader nothing.
fn command() -> String {
    let bare = |word: String| match word.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => name.to_owned(),
        _ => word,
    };
    std::env::args().map(bare).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let info = "processor\t: 0\nmodel name\t: A: CPU\nmodel name\t: second\n";
        assert_eq!(field(info, "model name").as_deref(), Some("A: CPU"));
        assert_eq!(field(info, "flags"), None);
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/home")), "ext4");
        assert_eq!(file_system(mounts, Path::new("/tmp/y")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/tmp/x/y")), "xfs");
        assert_eq!(file_system("", Path::new("/")), "an unknown file system");
    }
}
