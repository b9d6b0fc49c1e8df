//! Whether an event is from whom it says: signatures, replays and clocks, per source.
//!
//! Every row gets a [`Verdict`], and every verdict is counted. What a source has been seen to do
//! (its nonces, its clock) is in a [`SourceMemory`], one per tenant and source, that the caller
//! keeps: it is bounded, and can be written with postcard, so it fits a keyed state.

mod canonical;
mod clock;
mod config;
mod nonces;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use serde::{Deserialize, Serialize};

pub use canonical::canonical_string;
pub use config::{Secret, SourceTrust, TrustConfig, TrustError};

use crate::SignalRow;
use canonical::{SignatureText, Verifier};
use clock::Clock;
use nonces::{Admission, Nonces};

const SECOND: i64 = 1_000_000;

/// Checks events by the policy of their sources.
#[derive(Debug)]
pub struct Authenticator {
    sources: BTreeMap<String, Policy>,
}

#[derive(Debug)]
struct Policy {
    keys: BTreeMap<String, Verifier>,
    mtls: BTreeSet<String>,
    required: bool,
    max_skew: i64,
    skew_threshold: i64,
    replay_window: i64,
    max_nonces: usize,
}

/// What has been seen of one source of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceMemory {
    nonces: Nonces,
    clock: Clock,
}

impl SourceMemory {
    /// How many nonces are remembered.
    pub fn nonces(&self) -> usize {
        self.nonces.len()
    }

    /// How far the source's clock is ahead, in microseconds, once that is known.
    pub fn clock_offset(&self) -> Option<i64> {
        self.clock.offset()
    }
}

/// What was found out about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A valid signature, or a connection by an allowed mTLS identity.
    Trusted,
    /// No signature, and no allowed identity.
    Unsigned,
    /// A signature that does not fit the event, or cannot be read.
    BadSignature,
    /// A signature by a key that the source does not have.
    UnknownKey,
    /// A nonce that was there before, within the window; or one that memory was too full to keep.
    Replayed,
    /// Authentic, but its time is further from the record's than allowed, even after correction;
    /// also what is older than the replay window, which cannot be told from a replay.
    Skewed {
        /// By how much, in microseconds; positive if the event is ahead.
        micros: i64,
    },
}

/// The outcome for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// What was found out.
    pub verdict: Verdict,
    /// The event's time, corrected by the source's clock, in microseconds of Unix time.
    pub corrected_at: i64,
    /// Whether the event may be used. Forged and replayed events never may; unsigned and skewed
    /// ones only if their source is not `required` to be authentic.
    pub accepted: bool,
}

/// How often each verdict was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrustStats {
    /// [`Verdict::Trusted`].
    pub trusted: u64,
    /// [`Verdict::Unsigned`].
    pub unsigned: u64,
    /// [`Verdict::BadSignature`].
    pub bad_signature: u64,
    /// [`Verdict::UnknownKey`].
    pub unknown_key: u64,
    /// [`Verdict::Replayed`].
    pub replayed: u64,
    /// [`Verdict::Skewed`].
    pub skewed: u64,
    /// Events whose time was corrected, whatever their verdict.
    pub corrected: u64,
    /// Events that may not be used, whatever their verdict.
    pub refused: u64,
}

impl AddAssign for TrustStats {
    fn add_assign(&mut self, other: Self) {
        self.trusted += other.trusted;
        self.unsigned += other.unsigned;
        self.bad_signature += other.bad_signature;
        self.unknown_key += other.unknown_key;
        self.replayed += other.replayed;
        self.skewed += other.skewed;
        self.corrected += other.corrected;
        self.refused += other.refused;
    }
}

impl Authenticator {
    /// Reads the policies; a key that cannot be one is an error that names it, never its value.
    pub fn new(config: &TrustConfig) -> Result<Self, TrustError> {
        let mut sources = BTreeMap::new();
        for (name, trust) in &config.sources {
            let mut keys = BTreeMap::new();
            for (id, key) in &trust.ed25519 {
                keys.insert(id.clone(), Verifier::ed25519(name, id, key)?);
            }
            for (id, key) in &trust.hmac {
                if keys.insert(id.clone(), Verifier::hmac(name, id, key)?).is_some() {
                    return Err(TrustError::DuplicateKey { source_name: name.clone(), key_id: id.clone() });
                }
            }
            if trust.required && keys.is_empty() && trust.mtls.is_empty() {
                return Err(TrustError::NothingToTrust { source_name: name.clone() });
            }
            let policy = Policy {
                keys,
                mtls: trust.mtls.iter().cloned().collect(),
                required: trust.required,
                max_skew: i64::from(trust.max_skew_seconds) * SECOND,
                skew_threshold: i64::from(trust.skew_threshold_seconds) * SECOND,
                replay_window: i64::from(trust.replay_window_seconds) * SECOND,
                max_nonces: usize::try_from(trust.max_nonces).unwrap_or(usize::MAX).max(1),
            };
            sources.insert(name.clone(), policy);
        }
        Ok(Self { sources })
    }

    /// Key of the memory that belongs to a row: its tenant and its source.
    pub fn state_key(row: &SignalRow<'_>) -> String {
        let source = row.source.unwrap_or_default();
        format!("{}:{}/{}", row.tenant.len(), row.tenant, source)
    }

    /// When a memory that was used at `now` is of no more use, in microseconds.
    pub fn expires_at(&self, row: &SignalRow<'_>, now: i64) -> i64 {
        let window = self.policy(row).map_or(0, |p| p.replay_window);
        // The clock's estimate is worth a day.
        now.saturating_add(window.max(24 * 3600 * SECOND))
    }

    /// Checks an event. `peer` is the mTLS identity that sent it, if that is known; `now` stands in
    /// for the time of ingestion where the row has none. Only authentic events change what is
    /// remembered, so nobody can burn another's nonces or turn its clock.
    pub fn check(
        &self,
        row: &SignalRow<'_>,
        peer: Option<&str>,
        now: i64,
        memory: &mut SourceMemory,
        stats: &mut TrustStats,
    ) -> Checked {
        let at = row.ingested_at.unwrap_or(now);
        let checked = match self.policy(row) {
            Some(policy) => policy.check(row, peer, at, memory),
            None => Checked { verdict: Verdict::Unsigned, corrected_at: row.occurred_at, accepted: true },
        };
        *match checked.verdict {
            Verdict::Trusted => &mut stats.trusted,
            Verdict::Unsigned => &mut stats.unsigned,
            Verdict::BadSignature => &mut stats.bad_signature,
            Verdict::UnknownKey => &mut stats.unknown_key,
            Verdict::Replayed => &mut stats.replayed,
            Verdict::Skewed { .. } => &mut stats.skewed,
        } += 1;
        stats.corrected += u64::from(checked.corrected_at != row.occurred_at);
        stats.refused += u64::from(!checked.accepted);
        checked
    }

    fn policy(&self, row: &SignalRow<'_>) -> Option<&Policy> {
        self.sources.get(row.source.unwrap_or_default())
    }
}

impl Policy {
    fn check(&self, row: &SignalRow<'_>, peer: Option<&str>, at: i64, memory: &mut SourceMemory) -> Checked {
        let refuse = |verdict| Checked { verdict, corrected_at: row.occurred_at, accepted: false };
        let by_peer = peer.is_some_and(|peer| self.mtls.contains(peer));
        let signed = match row.signature.filter(|s| !s.is_empty()) {
            Some(signature) => match self.verify(row, signature) {
                Ok(()) => true,
                Err(verdict) => return refuse(verdict),
            },
            None => false,
        };
        if !signed && !by_peer {
            // Its time is corrected by what authentic events taught, and teaches nothing itself.
            let corrected_at = memory.clock.correct(row.occurred_at, self.skew_threshold);
            return Checked { verdict: Verdict::Unsigned, corrected_at, accepted: !self.required };
        }
        // A signed event without a nonce is known by its id, which is signed too.
        let nonce = row.nonce.filter(|n| !n.is_empty()).unwrap_or(row.event_id);
        let late = row.occurred_at.saturating_sub(at);
        match memory.nonces.admit(nonce, row.occurred_at, at, self.replay_window, self.max_nonces) {
            Admission::New => {}
            Admission::TooOld if late.saturating_abs() > self.max_skew => {
                // It may be a replay, so it must not turn the clock.
                let corrected_at = memory.clock.correct(row.occurred_at, self.skew_threshold);
                return Checked { verdict: Verdict::Skewed { micros: late }, corrected_at, accepted: !self.required };
            }
            Admission::Seen | Admission::TooOld => return refuse(Verdict::Replayed),
        }
        memory.clock.observe(late);
        let corrected_at = memory.clock.correct(row.occurred_at, self.skew_threshold);
        let micros = corrected_at.saturating_sub(at);
        if micros.saturating_abs() > self.max_skew {
            return Checked { verdict: Verdict::Skewed { micros }, corrected_at, accepted: !self.required };
        }
        Checked { verdict: Verdict::Trusted, corrected_at, accepted: true }
    }

    fn verify(&self, row: &SignalRow<'_>, signature: &str) -> Result<(), Verdict> {
        let signature = SignatureText::parse(signature).ok_or(Verdict::BadSignature)?;
        let key = self.keys.get(signature.key_id).ok_or(Verdict::UnknownKey)?;
        if key.verify(&signature, row) { Ok(()) } else { Err(Verdict::BadSignature) }
    }
}
