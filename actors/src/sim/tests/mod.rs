//! The simulated disk against a naive one, and a member's data on it.

mod disk;
mod member;
