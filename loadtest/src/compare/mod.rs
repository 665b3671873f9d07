//! Starts servers in turns.
pub(crate) fn run(_: &crate::cli::CompareArgs) -> Result<bool, crate::error::LoadError> { Ok(true) }
