//! Log lines.

mod level;
mod notice;
mod settings;

pub use level::Level;
pub use notice::Notice;
pub use settings::{Format, LogConfig, Output};
