//! Runs some seeds: `seed FROM COUNT SECONDS PROFILE [verbose]`.
use castd_sim::{Profile, SECOND, Settings, run};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args[at].parse::<u64>().expect("a number");
    let profile: Profile = args[3].parse().expect("a profile");
    for seed in number(0)..number(0) + number(1) {
        let begun = std::time::Instant::now();
        let mut settings = Settings::new(seed, profile);
        settings.span = number(2) * SECOND;
        settings.verbose = args.len() > 4;
        let outcome = run(&settings);
        outcome.story.iter().for_each(|line| println!("{line}"));
        println!(
            "seed {seed}: {:?} real, {} s virtual, {} steps, {:?}, digest {:x}, {:?}",
            begun.elapsed(),
            outcome.ended / SECOND,
            outcome.steps,
            (outcome.calls.ok, outcome.calls.failed, outcome.calls.unknown),
            outcome.digest,
            outcome.counts
        );
        for problem in outcome.problems.iter().take(5) {
            println!("  !! {problem}");
        }
    }
}
