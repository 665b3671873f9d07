//! castd, the member: reads its configuration, starts, and serves until it is
//! told to stop.

use std::process::ExitCode;

use castd::config::{self, Config, Exit, Outcome};
use castd::logging::{self, FATAL};
use castd::node::{self, Ended};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args();
    if args.nth(1).as_deref() == Some("health") {
        return health(&args.next().unwrap_or_else(|| "http://127.0.0.1:2379".to_owned()));
    }
    match config::load(std::env::args_os(), std::env::vars_os()) {
        Outcome::Run(config) => serve(*config),
        Outcome::Exit(exit) => leave(&exit),
    }
}

fn health(url: &str) -> ExitCode {
    match node::probe(url) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{url} is unhealthy: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn leave(exit: &Exit) -> ExitCode {
    print!("{}", exit.stdout);
    eprint!("{}", exit.stderr);
    if !exit.notices.is_empty()
        && let Ok(logger) = logging::init(&exit.log)
    {
        exit.notices.iter().for_each(|notice| logger.write(notice));
    }
    ExitCode::from(exit.code)
}

fn serve(config: Config) -> ExitCode {
    let logger = match logging::init(&config.log) {
        Ok(logger) => logger,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    config.notices.iter().for_each(|notice| logger.write(notice));
    match actix::System::new().block_on(node::run(config)) {
        Ok(Ended::Signal(signal)) => end_by(signal),
        Ok(Ended::Removed) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: FATAL, %error, "castd failed");
            ExitCode::FAILURE
        }
    }
}

/// Ends as the signal would have ended us, so that whoever started us sees it.
fn end_by(signal: i32) -> ExitCode {
    // The first process of a container cannot end itself by a signal: it has no default then.
    // etcd ends with 0 there. Everything has been closed; what may go on is the system's
    // lookup of a name, and returning would wait for it.
    if std::process::id() == 1 {
        std::process::exit(0);
    }
    // Reached only where the system has no such default.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::FAILURE
}
