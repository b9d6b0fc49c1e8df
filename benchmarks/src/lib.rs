//! What the engine costs: the same events through the engine, through a bare limit (decode and
//! write, nothing else) and through Spark, measured in one run so that the ratios mean something.
//!
//! The engine itself is only ever run as a child process, the way a user runs it.

pub mod bare;
pub mod decode;
pub mod delta_log;
pub mod e2e;
pub mod engine;
pub mod fill;
pub mod freshness;
pub mod generator;
pub mod kafka;
pub mod nexmark;
pub mod process_tree;
pub mod python_job;
pub mod report;
pub mod spark;
pub mod suite;
