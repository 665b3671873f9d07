//! Carries a transcript out and prints it: `transcript FILE`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("transcript FILE")?;
    print!("{}", castd_sim::script::replay(&std::fs::read_to_string(file)?)?);
    Ok(())
}
