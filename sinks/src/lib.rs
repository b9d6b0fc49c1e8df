//! Where rows end up: Delta tables, committed together with their source positions, and Kafka
//! topics for quarantine and alerts, webhooks, and operators' checkpoints.

pub mod checkpoint;
pub mod delta;
pub mod kafka;
pub mod storage;
pub mod webhook;
