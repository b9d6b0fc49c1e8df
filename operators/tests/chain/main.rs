//! The chain as its callers see it: records in, rows and quarantine out.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cloud_events;
mod conservation;
mod differential;
mod duplicates;
mod golden;
mod lineage;
mod poison;
mod reference;
mod residency;

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
