//! The company of actors.
