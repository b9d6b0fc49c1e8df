//! Detections as they run: what ships, and how rules are operated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod databases;
mod operating;
mod reloads;
mod shipped;
mod state;
