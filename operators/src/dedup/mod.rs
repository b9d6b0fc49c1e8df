//! Duplicates: an event id is let through once per tenant within the horizon.
//!
//! **Exact.** Ids are kept as 120-bit SipHash-1-3 digests under a random key. SipHash is a
//! pseudo-random function, so without the key nobody can craft two ids that collide, and among
//! 10^9 remembered ids the chance that any two collide by accident is about 4·10^-19.
//!
//! **Bounded.** Digests lie in a hash table in memory; when it is full, all of them move to one
//! sorted file ([`run`]), found again through an in-memory filter.
//!
//! **Forgetting.** Time is cut into panes of an eighth of the horizon. A digest carries its pane's
//! number and is forgotten with it: never before the horizon, at most one pane after it.
//!
//! Only rows that go on are remembered. The state is rebuilt from the tables whenever the chain is,
//! so it is never ahead of what was committed.

mod run;

use std::{
    fs::File,
    hash::Hasher,
    io,
    path::{Path, PathBuf},
};

use hashbrown::{HashTable, hash_table::Entry};
use siphasher::sip128::{Hasher128, SipHasher13};

use self::run::Run;
use crate::{
    config::DedupConfig,
    epoch::{Epoch, Fate, Operator, column},
    error::OperatorError,
};

/// Panes in a horizon.
const PANES: i64 = 8;
/// Runs of about one size before they are merged into one.
const FAN_IN: usize = 8;

/// A digest: the upper 120 bits identify, the lower 8 are the pane's number.
type Digest = u128;
const TAG: u128 = 0xff;

/// Ids seen within the horizon, and the operator that drops what they repeat.
pub(crate) struct Dedup {
    hasher: SipHasher13,
    /// Microseconds in a pane; zero if nothing is remembered.
    width: i64,
    /// The newest pane seen.
    newest: i64,
    recent: HashTable<Digest>,
    max_entries: usize,
    spill_dir: PathBuf,
    runs: Vec<Run>,
    digests: Vec<Digest>,
}

impl Dedup {
    pub fn new(config: &DedupConfig) -> Self {
        let micros = i64::try_from(config.horizon_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Self {
            hasher: SipHasher13::new_with_key(&rand::random()),
            width: if micros == 0 { 0 } else { (micros / PANES).max(1) },
            newest: i64::MIN / 2,
            recent: HashTable::new(),
            max_entries: config.max_entries.max(1),
            spill_dir: config.spill_dir.clone().unwrap_or_else(std::env::temp_dir),
            runs: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// Whether ids are remembered at all.
    pub fn is_on(&self) -> bool {
        self.width != 0
    }

    /// Remembers an id that was seen at `at` (microseconds) and says whether it is new.
    pub fn insert(&mut self, tenant: &str, event_id: &str, at: i64) -> Result<bool, OperatorError> {
        let digest = self.digest(tenant, event_id);
        self.insert_digest(digest, at).map_err(OperatorError::DedupSpill)
    }

    fn digest(&self, tenant: &str, event_id: &str) -> Digest {
        let mut hasher = self.hasher;
        hasher.write(tenant.as_bytes());
        // No UTF-8 text holds this byte, so ("a", "bc") and ("ab", "c") differ.
        hasher.write(&[0xff]);
        hasher.write(event_id.as_bytes());
        hasher.finish128().as_u128() & !TAG
    }

    fn insert_digest(&mut self, digest: Digest, at: i64) -> io::Result<bool> {
        let pane = at.div_euclid(self.width);
        if pane > self.newest {
            self.advance(pane);
        }
        if self.runs.iter().any(|run| run.may_hold(digest)) && self.in_runs(digest)? {
            return Ok(false);
        }
        let new = match self.recent.entry(slot(digest), |seen| seen & !TAG == digest, |seen| slot(*seen)) {
            Entry::Occupied(_) => false,
            // A clock that went back further than the horizon: as good as forgotten already.
            Entry::Vacant(_) if self.newest.saturating_sub(pane) > PANES => true,
            Entry::Vacant(vacant) => {
                vacant.insert(digest | (pane as u128 & TAG));
                true
            }
        };
        if self.recent.len() >= self.max_entries {
            self.spill()?;
        }
        Ok(new)
    }

    /// Forgets everything older than `pane`'s horizon.
    fn advance(&mut self, pane: i64) {
        let step = pane.saturating_sub(self.newest);
        self.newest = pane;
        if step > PANES {
            self.recent.clear();
            self.runs.clear();
            return;
        }
        self.recent.retain(|digest| pane - pane_of(*digest, pane) <= PANES);
        self.runs.retain(|run| pane - run.newest <= PANES);
    }

    #[cold]
    fn in_runs(&self, digest: Digest) -> io::Result<bool> {
        for run in &self.runs {
            if let Some(found) = run.find(digest)?
                && self.newest - pane_of(found, self.newest) <= PANES
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the table's digests to a file; merges files of a size when there are many.
    #[cold]
    fn spill(&mut self) -> io::Result<()> {
        let mut digests: Vec<Digest> = self.recent.drain().collect();
        digests.sort_unstable();
        let newest = digests.iter().map(|digest| pane_of(*digest, self.newest)).max().unwrap_or(self.newest);
        self.runs.push(Run::write(digests.into_iter().map(Ok), newest, 0, self.file()?)?);
        metrics::counter!("companyos_dedup_spills_total").increment(1);
        for level in 0u32.. {
            if self.runs.iter().filter(|run| run.level == level).count() < FAN_IN {
                break;
            }
            let (merged, kept): (Vec<Run>, Vec<Run>) =
                std::mem::take(&mut self.runs).into_iter().partition(|run| run.level == level);
            self.runs = kept;
            let newest = merged.iter().map(|run| run.newest).max().unwrap_or(self.newest);
            let now = self.newest;
            let live = run::merge(&merged)?
                .filter(|digest| digest.as_ref().map_or(true, |digest| now - pane_of(*digest, now) <= PANES));
            self.runs.push(Run::write(live, newest, level + 1, self.file()?)?);
        }
        Ok(())
    }

    fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(Path::new(&self.spill_dir))
    }
}

/// Where a digest goes in the table: bits that no tag shares.
fn slot(digest: Digest) -> u64 {
    (digest >> 64) as u64
}

/// The pane a digest was seen in. Panes that are still remembered span far less than the 256 that a
/// tag tells apart.
fn pane_of(digest: Digest, newest: i64) -> i64 {
    newest - ((newest - (digest & TAG) as i64) & 0xff)
}

impl Operator for Dedup {
    fn apply(&mut self, epoch: &mut Epoch) -> Result<(), OperatorError> {
        if !self.is_on() {
            return Ok(());
        }
        let (tenants, ids) = (epoch.text("tenant")?, epoch.text("event_id")?);
        let seen_at: &arrow::array::TimestampMicrosecondArray =
            column(&epoch.batch, companyos_schemas::arrow_schema::INGESTED_AT)?;
        // All digests first: the table's cache misses then overlap instead of waiting on the hash.
        let mut digests = std::mem::take(&mut self.digests);
        digests.clear();
        digests.extend((0..epoch.batch.num_rows()).map(|row| self.digest(tenants.value(row), ids.value(row))));
        for (row, fate) in epoch.fates.iter_mut().enumerate() {
            if let Fate::Kept { .. } = fate
                && !self.insert_digest(digests[row], seen_at.value(row)).map_err(OperatorError::DedupSpill)?
            {
                *fate = Fate::Duplicate;
                epoch.stats.duplicates += 1;
            }
        }
        self.digests = digests;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn dedup(horizon_seconds: u64, max_entries: usize) -> Dedup {
        Dedup::new(&DedupConfig { horizon_seconds, max_entries, spill_dir: None })
    }

    #[test]
    fn remembers_for_the_horizon_and_no_longer_than_a_pane_more() {
        let mut dedup = dedup(8, 100);
        let second = 1_000_000;
        assert!(dedup.insert("t", "a", 0).unwrap());
        assert!(!dedup.insert("t", "a", 0).unwrap());
        assert!(dedup.insert("t", "b", 0).unwrap());
        assert!(dedup.insert("u", "a", 0).unwrap());
        assert!(!dedup.insert("t", "a", 8 * second).unwrap());
        assert!(dedup.insert("t", "a", 9 * second).unwrap(), "a duplicate does not extend the memory of an id");
        assert!(!dedup.insert("t", "a", 9 * second).unwrap());
        assert!(dedup.insert("t", "a", 9_000 * second).unwrap());
    }

    #[test]
    fn boundaries_between_tenant_and_id_matter() {
        let mut dedup = dedup(8, 100);
        assert!(dedup.insert("ab", "c", 0).unwrap());
        assert!(dedup.insert("a", "bc", 0).unwrap());
    }

    #[test]
    fn memory_stays_bounded_while_nothing_is_forgotten() {
        let mut dedup = dedup(3_600, 100);
        for id in 0..20_000 {
            assert!(dedup.insert("t", &id.to_string(), id).unwrap());
            assert!(dedup.recent.len() < 100);
        }
        assert!(dedup.runs.len() < 3 * FAN_IN, "{} runs", dedup.runs.len());
        for id in 0..20_000 {
            assert!(!dedup.insert("t", &id.to_string(), 20_000).unwrap(), "{id}");
        }
    }

    proptest! {
        /// Against a map of when each id was first seen, through spills, merges, expiry and clocks
        /// that step back.
        #[test]
        fn behaves_like_a_map(
            max_entries in 1usize..40,
            steps in prop::collection::vec((0u8..60, -3i64..5), 1..400),
        ) {
            let mut dedup = dedup(8, max_entries);
            let mut model: HashMap<u8, i64> = HashMap::new();
            let (mut now, mut newest) = (0i64, i64::MIN);
            for (id, step) in steps {
                now += step * 300_000;
                let pane = now.div_euclid(1_000_000);
                newest = newest.max(pane);
                let seen = model.get(&id).is_some_and(|first| newest - first <= PANES);
                prop_assert_eq!(dedup.insert("t", &id.to_string(), now).unwrap(), !seen);
                if !seen {
                    model.insert(id, pane);
                }
                prop_assert!(dedup.recent.len() < max_entries.max(2));
            }
        }
    }
}
