//! What a worker knows of its own health: the source of /readyz and of the checkpoint-age gauge.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shared by all members of a worker.
#[derive(Debug, Default)]
pub struct WorkerHealth {
    members: Mutex<BTreeMap<String, MemberHealth>>,
}

#[derive(Debug, Default, Clone)]
struct MemberHealth {
    polled: Option<Instant>,
    waiting_since: Option<Instant>,
    partitions: usize,
    disconnected_since: Option<Instant>,
}

/// A member that has not polled for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// A broker that restarts is away for a few seconds; longer is worth telling.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(10);

impl WorkerHealth {
    /// Ready when every member polls and none has had an epoch waiting for `max_wait`; otherwise
    /// says what is wrong.
    pub fn ready(&self, max_wait: Duration) -> Result<(), String> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.is_empty() {
            return Err("no pipeline has started".to_owned());
        }
        for (name, member) in members.iter() {
            match member.polled {
                None => return Err(format!("{name}: has not joined its consumer group")),
                Some(at) if at.elapsed() > STUCK_AFTER => return Err(format!("{name}: does not poll")),
                Some(_) => {}
            }
            if member.disconnected_since.is_some_and(|since| since.elapsed() > DISCONNECTED_AFTER) {
                return Err(format!("{name}: no Kafka broker answers"));
            }
            if let Some(since) = member.waiting_since.filter(|since| since.elapsed() > max_wait) {
                return Err(format!("{name}: cannot commit for {} s", since.elapsed().as_secs()));
            }
        }
        Ok(())
    }

    /// Partitions assigned over all members.
    pub fn partitions(&self) -> usize {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).values().map(|m| m.partitions).sum()
    }

    pub(crate) fn joined(&self, member: &str) {
        self.update(member, |_| {});
    }

    pub(crate) fn polled(&self, member: &str, partitions: usize, connected: bool) {
        self.update(member, |m| {
            m.polled = Some(Instant::now());
            m.partitions = partitions;
            m.disconnected_since = (!connected).then(|| m.disconnected_since.unwrap_or_else(Instant::now));
        });
    }

    pub(crate) fn waiting(&self, member: &str, since: Option<Instant>) {
        self.update(member, |m| m.waiting_since = since);
        let age = since.map_or(0.0, |s| s.elapsed().as_secs_f64());
        metrics::gauge!("companyos_checkpoint_age_seconds", "member" => member.to_owned()).set(age);
    }

    fn update(&self, member: &str, change: impl FnOnce(&mut MemberHealth)) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        change(members.entry(member.to_owned()).or_default());
    }
}
