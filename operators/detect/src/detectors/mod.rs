//! Stateful detectors: what Sigma cannot say, because it needs a place, a baseline or a memory.
//!
//! Each takes events in any order within its window: what it finds does not depend on which of two
//! events arrived first, unless its own file says so. State expires by event time.

use companyos_stream::{KeyedState, SnapshotKind, StateBatch, StreamError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    EvidenceRef,
    event::Event,
    finding::{FindingKind, RuleMeta, Severity},
};

mod brute_force;
mod config_change;
mod denial_spike;
mod first_seen;
mod impossible_travel;
mod mfa;
mod session_reuse;
mod streak;
mod supply_chain;

pub use brute_force::{BruteForce, BruteForceConfig};
pub use config_change::{ChangeWindow, ConfigChange, ConfigChangeConfig};
pub use denial_spike::{DenialSpike, DenialSpikeConfig};
pub use first_seen::{FirstSeen, FirstSeenConfig};
pub use impossible_travel::{ImpossibleTravel, ImpossibleTravelConfig};
pub use mfa::{Mfa, MfaConfig};
pub use session_reuse::{SessionReuse, SessionReuseConfig};
pub use supply_chain::{SupplyChain, SupplyChainConfig};

/// What a detector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Rule id, one of the detector's [`Detector::rules`].
    pub rule: &'static str,
    /// What `entity` is.
    pub entity_type: &'static str,
    /// Whom it is about.
    pub entity: String,
    /// First and last event, in microseconds.
    pub window: (i64, i64),
    /// What was seen.
    pub summary: String,
    /// The events.
    pub evidence: Vec<EvidenceRef>,
}

/// A stateful detector.
pub trait Detector: Send + Sync {
    /// The rules it may name in hits.
    fn rules(&self) -> Vec<RuleMeta>;

    /// Takes an event in.
    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>);

    /// What it remembers; none by default.
    fn memories(&self) -> Vec<&dyn Memory> {
        Vec::new()
    }

    /// The same, to be changed.
    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        Vec::new()
    }

    /// Forgets what has expired at this event time.
    fn expire(&mut self, watermark: i64) {
        self.memories_mut().into_iter().for_each(|memory| memory.forget(watermark));
    }

    /// Its state.
    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        self.memories_mut().into_iter().map(|memory| memory.save(kind)).collect()
    }

    /// Takes state back.
    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.memories_mut().into_iter().try_for_each(|memory| memory.load(state))
    }

    /// Keys and bytes held.
    fn size(&self) -> (u64, u64) {
        self.memories().into_iter().map(Memory::size).fold((0, 0), |(keys, bytes), (k, b)| (keys + k, bytes + b))
    }
}

/// Keyed state of any type of value, as far as keeping it goes.
pub trait Memory {
    /// Forgets what has expired at this event time.
    fn forget(&mut self, watermark: i64);

    /// All of it, or what changed.
    fn save(&mut self, kind: SnapshotKind) -> Result<StateBatch, StreamError>;

    /// Takes back what was saved.
    fn load(&mut self, state: &[StateBatch]) -> Result<(), StreamError>;

    /// Keys and bytes held.
    fn size(&self) -> (u64, u64);
}

impl<V: Serialize + DeserializeOwned> Memory for KeyedState<V> {
    fn forget(&mut self, watermark: i64) {
        self.expire(watermark);
    }

    fn save(&mut self, kind: SnapshotKind) -> Result<StateBatch, StreamError> {
        self.snapshot(kind)
    }

    fn load(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.restore(state)
    }

    fn size(&self) -> (u64, u64) {
        (self.len() as u64, self.bytes())
    }
}

/// All detectors' configuration. A detector set to `null` is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorsConfig {
    /// Logins too far apart.
    pub impossible_travel: Option<ImpossibleTravelConfig>,
    /// Second-factor fatigue and bypass.
    pub mfa: Option<MfaConfig>,
    /// A session in two networks.
    pub session_reuse: Option<SessionReuseConfig>,
    /// Many failures, then a success.
    pub brute_force: Option<BruteForceConfig>,
    /// Many policy denials.
    pub denial_spike: Option<DenialSpikeConfig>,
    /// Someone does something for the first time.
    pub first_seen: Option<FirstSeenConfig>,
    /// Sensitive configuration changed at the wrong time.
    pub config_change: Option<ConfigChangeConfig>,
    /// Builds and dependencies that are not as they should be.
    pub supply_chain: Option<SupplyChainConfig>,
}

impl Default for DetectorsConfig {
    fn default() -> Self {
        Self {
            impossible_travel: Some(Default::default()),
            mfa: Some(Default::default()),
            session_reuse: Some(Default::default()),
            brute_force: Some(Default::default()),
            denial_spike: Some(Default::default()),
            first_seen: Some(Default::default()),
            config_change: Some(Default::default()),
            supply_chain: Some(Default::default()),
        }
    }
}

impl DetectorsConfig {
    /// The detectors that are on.
    pub fn build(&self) -> Result<Vec<Box<dyn Detector>>, PatternError> {
        let mut all: Vec<Box<dyn Detector>> = Vec::new();
        if let Some(config) = &self.impossible_travel {
            all.push(Box::new(ImpossibleTravel::new(config.clone())));
        }
        if let Some(config) = &self.mfa {
            all.push(Box::new(Mfa::new(config.clone())));
        }
        if let Some(config) = &self.session_reuse {
            all.push(Box::new(SessionReuse::new(config.clone())));
        }
        if let Some(config) = &self.brute_force {
            all.push(Box::new(BruteForce::new(config.clone())));
        }
        if let Some(config) = &self.denial_spike {
            all.push(Box::new(DenialSpike::new(config.clone())));
        }
        if let Some(config) = &self.first_seen {
            all.push(Box::new(FirstSeen::new(config.clone())?));
        }
        if let Some(config) = &self.config_change {
            all.push(Box::new(ConfigChange::new(config.clone())?));
        }
        if let Some(config) = &self.supply_chain {
            all.push(Box::new(SupplyChain::new(config.clone())?));
        }
        Ok(all)
    }
}

/// A pattern of a detector's configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("detectors.{field}: pattern {pattern:?}: {source}")]
pub struct PatternError {
    field: &'static str,
    pattern: String,
    source: glob::PatternError,
}

fn patterns(field: &'static str, globs: &[String]) -> Result<Vec<glob::Pattern>, PatternError> {
    let compile =
        |p: &String| glob::Pattern::new(p).map_err(|source| PatternError { field, pattern: p.clone(), source });
    globs.iter().map(compile).collect()
}

/// Version of the detectors' logic; raised when what they find changes.
const VERSION: &str = "1";

fn meta(id: &str, title: &str, severity: Severity, tags: &[&str]) -> RuleMeta {
    RuleMeta {
        id: id.to_owned(),
        title: title.to_owned(),
        version: VERSION.to_owned(),
        kind: FindingKind::Stateful,
        severity,
        tags: tags.iter().map(|t| format!("attack.{t}")).collect(),
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// Expiry is by the latest event of a key, so an older event must not bring it forward.
fn later(latest: impl IntoIterator<Item = i64>, ttl: i64) -> i64 {
    latest.into_iter().max().unwrap_or_default().saturating_add(ttl)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::event::Action;

    pub const SECOND: i64 = 1_000_000;
    pub const HOUR: i64 = 3600 * SECOND;
    /// 2024-01-01T00:00:00Z, a Monday.
    pub const MONDAY: i64 = 1_704_067_200 * SECOND;

    pub fn event(user: &str, at: i64, action: Action) -> Event {
        Event {
            tenant: "acme".into(),
            env: "prod".into(),
            region: "eu".into(),
            user: user.into(),
            at,
            action,
            evidence: EvidenceRef {
                topic: "t".into(),
                offset: at,
                event_id: format!("{user}@{at}"),
                ..Default::default()
            },
            ..Event::default()
        }
    }

    pub fn run(detector: &mut dyn Detector, events: &[Event]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for event in events {
            detector.on_event(event, &mut hits);
        }
        hits
    }

    pub fn evidence(hit: &Hit) -> Vec<&str> {
        hit.evidence.iter().map(|e| e.event_id.as_str()).collect()
    }

    /// State that went through a snapshot is the state.
    pub fn reborn<D: Detector>(mut old: D, mut new: D) -> D {
        new.restore(&old.snapshot(SnapshotKind::Full).unwrap()).unwrap();
        assert_eq!(old.size(), new.size());
        new
    }
}
