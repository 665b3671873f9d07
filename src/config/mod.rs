//! Configuration: every server flag of etcd 3.4 to 3.7, from the command line, from
//! `ETCD_` variables, or from a file.
//!
//! Owns: the table of settings, etcd's rules for them, and the refusal of what castd
//! does not do yet. Receives: arguments, environment, the file's bytes. Sends: a typed
//! [`Config`], or what to print before leaving. Never: exits, prints, or reads the
//! process's own environment.

mod assemble;
mod bootstrap;
mod checks;
mod environment;
mod file;
mod gates;
mod go;
mod help;
mod model;
mod settings;
mod syntax;
mod table;
#[cfg(test)]
mod tests;
mod url;
mod value;

pub use bootstrap::InitialCluster;
pub(crate) use bootstrap::{has_address, same_urls};
pub use go::{GoDuration, parse_duration};
pub(crate) use go::{parse_int, quote};
pub use help::{CASTD_VERSION, ETCD_VERSION, GIT_SHA};
pub use model::{
    AutoCompaction, ClusterState, Config, Discovery, DiscoveryService, Feature, KeepAlive, Listen,
    MetricsDetail,
};
pub use table::{FileKey, Flag, Section, Support, Versions, all as all_flags, find as find_flag};
pub use url::{Scheme, Url};
pub use value::{Kind, Value};

use crate::logging::{LogConfig, Notice, plain_io_error};
use environment::{Fault, Variables};
use settings::Settings;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use syntax::Parsed;

/// What to do after reading the configuration.
#[derive(Debug)]
pub enum Outcome {
    /// Run a member with it.
    Run(Box<Config>),
    /// Print and leave.
    Exit(Exit),
}

/// What to print before leaving.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// The process's exit code.
    pub code: u8,
    /// For standard output, as it is.
    pub stdout: String,
    /// For standard error, as it is.
    pub stderr: String,
    /// Lines for the log, after the two texts.
    pub notices: Vec<Notice>,
    /// The logger to write them with: the configured one where that much was readable.
    pub log: LogConfig,
}

/// What reading a configuration needs from the system.
pub struct Surroundings<'a> {
    /// Reads the configuration file.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The address the machine is reached at, for advertised URLs nobody set.
    pub default_host: &'a dyn Fn() -> io::Result<IpAddr>,
}

/// Reads the configuration. `args` begins with the program's name; `env` holds the
/// environment's pairs.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Outcome {
    let surroundings =
        Surroundings { read_file: &|path| std::fs::read(path), default_host: &default_host };
    load_with(args, env, &surroundings)
}

/// As [`load`], with the system given.
pub fn load_with(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    surroundings: &Surroundings<'_>,
) -> Outcome {
    let mut loader = Loader { notices: Vec::new(), log: LogConfig::early(), surroundings };
    match loader.load(args, env) {
        Ok(mut config) => {
            config.notices = loader.notices;
            Outcome::Run(Box::new(config))
        }
        Err(Stop::Text { code, stdout, stderr }) => {
            Outcome::Exit(Exit { code, stdout, stderr, notices: Vec::new(), log: loader.log })
        }
        Err(Stop::Lines) => Outcome::Exit(Exit {
            code: 1,
            stdout: String::new(),
            stderr: String::new(),
            notices: loader.notices,
            log: loader.log,
        }),
    }
}

/// Why there is no configuration.
enum Stop {
    /// Something to print as it is.
    Text { code: u8, stdout: String, stderr: String },
    /// A fault, told in the loader's notices.
    Lines,
}

impl Stop {
    fn usage(fault: &str) -> Self {
        let stderr = format!("{fault}\n{}\n", help::USAGE);
        Self::Text { code: 2, stdout: String::new(), stderr }
    }
}

struct Loader<'a> {
    notices: Vec<Notice>,
    log: LogConfig,
    surroundings: &'a Surroundings<'a>,
}

impl Loader<'_> {
    fn load(
        &mut self,
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, Stop> {
        let args = texts(args)
            .map_err(|arg| Stop::usage(&format!("argument {arg:?} is not valid UTF-8")))?;
        refuse_other_programs(&args)?;
        let mut settings = Settings::defaults();
        let parsed = syntax::parse(args.get(1..).unwrap_or(&[]), &mut settings)
            .map_err(|fault| Stop::usage(&fault))?;
        let positional = match parsed {
            Parsed::Help => {
                let (stdout, stderr) = (help::help(), format!("{}\n", help::USAGE));
                return Err(Stop::Text { code: 0, stdout, stderr });
            }
            Parsed::Flags { positional } => positional,
        };
        let fault = match positional {
            Some(arg) => format!("{} is not a valid flag", quote(&arg)),
            None if settings.bool("version") => {
                let (stdout, stderr) = (help::version(), String::new());
                return Err(Stop::Text { code: 0, stdout, stderr });
            }
            None => match self.settle(settings, env) {
                Ok(Some(config)) => {
                    self.running(&args);
                    return Ok(config);
                }
                Ok(None) => return Err(Stop::Lines),
                Err(fault) => fault,
            },
        };
        self.running(&args);
        self.notices.push(Notice::warn("failed to verify flags").with("error", fault.as_str()));
        if fault == checks::ADVERTISE_UNSET {
            let notice = Notice::warn("advertise client URLs are not set");
            self.notices.push(notice.with("error", fault));
        }
        Err(Stop::Lines)
    }

    fn running(&mut self, args: &[String]) {
        self.notices.push(Notice::info("Running: ").with("args", args.to_vec()));
    }

    /// From the flags' values to the configuration. `None`: the fault is in the notices.
    fn settle(
        &mut self,
        mut settings: Settings,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<Config>, String> {
        let variables = variables(env)?;
        let file = match settings.text("config-file") {
            "" => environment::get(&variables, "ETCD_CONFIG_FILE").map(str::to_owned),
            path => Some(path.to_owned()),
        };
        match file {
            Some(path) => settings = self.read_file(&path)?,
            None => match environment::apply(&variables, &mut settings, &mut self.notices) {
                Ok(()) => {}
                Err(Fault::BadValue(text)) => return Err(text),
                Err(Fault::Conflict(line)) => {
                    self.notices.push(line);
                    return Ok(None);
                }
            },
        }
        self.notices.extend(settings.resolve_older_names()?);
        self.note_ignored(&settings);
        forget_unwanted_defaults(&mut settings);
        self.raise_raft_timeouts(&mut settings);
        self.log = checks::logging(&settings)?;
        checks::check(&settings, &mut self.notices)?;
        checks::refuse_unsupported(&settings)?;
        let log = self.log.clone();
        assemble::assemble(&mut settings, log, self.surroundings, &mut self.notices).map(Some)
    }

    fn read_file(&mut self, path: &str) -> Result<Settings, String> {
        let bytes = (self.surroundings.read_file)(Path::new(path))
            .map_err(|e| format!("open {path}: {}", plain_io_error(&e)))?;
        let text =
            String::from_utf8(bytes).map_err(|_| format!("{path}: the file is not UTF-8"))?;
        let mut settings = Settings::defaults();
        file::apply(&text, &mut settings, &mut self.notices).map_err(|e| format!("{path}: {e}"))?;
        let text = "loaded server configuration, other configuration command line flags and \
                    environment variables will be ignored if provided";
        self.notices.push(Notice::info(text).with("path", path));
        Ok(settings)
    }

    /// Tells of names that are taken and have no effect.
    fn note_ignored(&mut self, settings: &Settings) {
        for setting in settings.iter().filter(|setting| settings.is_set(setting.flag.name)) {
            let name = setting.flag.name;
            let text = match (name, setting.flag.support) {
                ("max-snapshots", _) => {
                    "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."
                }
                ("v2-deprecation", _) => {
                    "--v2-deprecation is deprecated and scheduled for removal in v3.8. The \
                     default value is enforced, ignoring user input."
                }
                (_, Support::Ignored) => "flag is no longer supported - ignoring",
                _ => continue,
            };
            self.notices.push(Notice::warn(text).with("flag-name", name));
        }
    }

    /// Peers' timeouts have a floor of five seconds.
    fn raise_raft_timeouts(&mut self, settings: &mut Settings) {
        const FLOOR: GoDuration = GoDuration(5_000_000_000);
        for name in ["raft-read-timeout", "raft-write-timeout"] {
            if settings.duration(name) < FLOOR {
                settings.replace(name, Value::Duration(FLOOR));
                let text = format!("{name} increased to minimum value: {FLOOR}");
                self.notices.push(Notice::info(text));
            }
        }
    }
}

/// Clients' listeners without advertised URLs have no default; discovery has no default
/// cluster.
fn forget_unwanted_defaults(settings: &mut Settings) {
    let from_file = |name: &str| settings.get(name).source == settings::Source::File;
    if settings.is_set("listen-client-urls")
        && !from_file("listen-client-urls")
        && !settings.is_set("advertise-client-urls")
    {
        settings.replace("advertise-client-urls", Value::Urls(Vec::new()));
    }
    let discovers = !settings.text("discovery-srv").is_empty()
        || !settings.text("discovery-srv-name").is_empty()
        || !settings.list("discovery-endpoints").is_empty();
    if discovers && !settings.is_set("initial-cluster") {
        settings.replace("initial-cluster", Value::Text(String::new()));
    }
}

/// etcd's two other programs under the same name.
fn refuse_other_programs(args: &[String]) -> Result<(), Stop> {
    match args.get(1).map(String::as_str) {
        Some(name @ ("gateway" | "grpc-proxy")) => {
            let stderr = format!("castd {name} is not built in yet\n");
            Err(Stop::Text { code: 1, stdout: String::new(), stderr })
        }
        _ => Ok(()),
    }
}

fn texts(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, OsString> {
    args.into_iter().map(OsString::into_string).collect()
}

/// The variables as text; those of others may be anything, ours must be UTF-8.
fn variables(env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Variables, String> {
    let mut variables = Variables::new();
    for (key, value) in env {
        let Ok(key) = key.into_string() else { continue };
        if !key.starts_with("ETCD_") {
            continue;
        }
        let value =
            value.into_string().map_err(|v| format!("invalid value {v:?} for {key}: not UTF-8"))?;
        variables.push((key, value));
    }
    Ok(variables)
}

/// The address packets to the world leave from. Nothing is sent.
fn default_host() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(("192.0.2.1", 9))?;
    Ok(socket.local_addr()?.ip())
}
