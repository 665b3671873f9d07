//! castd, the member.
fn main() {}
