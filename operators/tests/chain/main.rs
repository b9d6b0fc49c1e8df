//! The chain as its callers see it: records in, rows and quarantine out.

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
