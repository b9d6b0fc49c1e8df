//! Which nonces a source has used lately, in bounded memory.
//!
//! A nonce is remembered by 128 bits of its hash until the window has passed since the event's own
//! time. An event whose time is already outside the window cannot be told from a replay and is not
//! admitted, which is what makes forgetting safe. When memory is full, the oldest are forgotten and
//! the floor rises to the newest forgotten one: authentic events at or below it are refused, so a
//! flood can cost events but never lets a replay through.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Nonces {
    seen: HashSet<u128>,
    /// The same, by the time of the event.
    by_time: BTreeSet<(i64, u128)>,
    /// Events of this time or before are too old to tell.
    floor: Option<i64>,
}

/// Whether a nonce may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Never there before.
    New,
    /// There before.
    Seen,
    /// Too old to tell.
    TooOld,
}

impl Nonces {
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// Remembers a nonce that is new. `occurred_at` is the signed time
    /// of the event, `at` the time of its record, `window` what lies between at most.
    pub(super) fn admit(&mut self, nonce: &str, occurred_at: i64, at: i64, window: i64, most: usize) -> Admission {
        // Time does not run back: a record that claims an earlier ingestion reopens nothing.
        let horizon = at.saturating_sub(window).saturating_sub(1);
        self.raise(horizon);
        let id = id(nonce);
        if self.seen.contains(&id) {
            return Admission::Seen;
        }
        if self.floor.is_some_and(|floor| occurred_at <= floor) {
            return Admission::TooOld;
        }
        self.seen.insert(id);
        self.by_time.insert((occurred_at, id));
        while self.seen.len() > most {
            let Some(&(oldest, _)) = self.by_time.first() else { break };
            self.raise(oldest);
        }
        Admission::New
    }

    fn raise(&mut self, floor: i64) {
        if self.floor.is_some_and(|f| f >= floor) {
            return;
        }
        self.floor = Some(floor);
        while let Some(&(at, id)) = self.by_time.first()
            && at <= floor
        {
            self.by_time.pop_first();
            self.seen.remove(&id);
        }
    }
}

fn id(nonce: &str) -> u128 {
    let digest = Sha256::digest(nonce.as_bytes());
    digest.iter().take(16).fold(0, |id, &byte| (id << 8) | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use super::{Admission::*, *};
    use proptest::prelude::*;

    #[test]
    fn edges_of_the_window() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.admit("a", 1000, 1000, 100, 10), New);
        assert_eq!(nonces.admit("a", 1000, 1000, 100, 10), Seen, "at once");
        assert_eq!(nonces.admit("a", 1000, 1100, 100, 10), Seen, "at the last moment of the window");
        assert_eq!(nonces.len(), 1);
        assert_eq!(nonces.admit("a", 1000, 1101, 100, 10), TooOld, "after the window it is too old");
        assert_eq!(nonces.len(), 0, "and forgotten");
        assert_eq!(nonces.admit("b", 1001, 1101, 100, 10), New, "as old as may be");
        assert_eq!(nonces.admit("a", 1000, 1000, 100, 10), TooOld, "a record's time that runs back reopens nothing");
    }

    #[test]
    fn a_flood_lets_no_replay_through() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.admit("victim", 1000, 1000, 100, 10), New);
        for n in 0..50 {
            nonces.admit(&format!("flood{n}"), 1001 + n, 1040, 100, 10);
        }
        assert!(nonces.len() <= 10);
        assert_eq!(nonces.admit("victim", 1000, 1050, 100, 10), TooOld);
    }

    proptest! {
        /// Whatever the order and the clocks, no pair of nonce and event time passes twice.
        #[test]
        fn nothing_passes_twice(
            events in prop::collection::vec((0u8..20, 0i64..300, 0i64..300), 1..200),
            most in 1usize..30,
        ) {
            let mut nonces = Nonces::default();
            let mut passed = HashSet::new();
            for (nonce, occurred_at, at) in events {
                if nonces.admit(&nonce.to_string(), occurred_at, at, 50, most) == New {
                    prop_assert!(passed.insert((nonce, occurred_at)), "{nonce} at {occurred_at}");
                }
                prop_assert!(nonces.len() <= most);
                prop_assert_eq!(nonces.seen.len(), nonces.by_time.len());
            }
        }
    }
}
