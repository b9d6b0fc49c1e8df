//! Where rows end up: Delta tables, committed together with their source positions, and Kafka
//! topics for quarantine and alerts.

pub mod delta;
pub mod kafka;
pub mod storage;
