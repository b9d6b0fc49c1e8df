//! The memory behind the `Idempotency-Key` header: a retry gets the first answer again instead of
//! doing the work twice.
//!
//! Bounded by entries, bytes and age; the oldest answer goes first. It lives in memory only: after
//! a restart, or once an answer is forgotten, a retry is worked on again. That is still safe,
//! because the worker drops events whose `(tenant, event_id)` it has seen.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{answer::Answer, config::IdempotencyLimits};

/// Longest key accepted, in bytes.
pub const MAX_KEY_BYTES: usize = 255;
/// What an entry costs beside its body: digests, map and queue slots.
const ENTRY_OVERHEAD: usize = 256;

type Sha = [u8; 32];

/// Answers by token and key.
#[derive(Debug)]
pub struct IdempotencyCache {
    limits: IdempotencyLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Sha, Entry>,
    /// Finished entries, oldest first.
    order: VecDeque<(Sha, Instant)>,
    bytes: usize,
}

#[derive(Debug)]
enum Entry {
    UnderWay { request: Sha },
    Finished { request: Sha, answer: Answer },
}

/// What a request with a key should do.
#[derive(Debug)]
pub enum Verdict {
    /// Work, and say when done.
    Work(Ticket),
    /// Repeat this answer.
    Replay(Answer),
    /// The key was used for another request.
    OtherRequest,
    /// The same request is being worked on.
    UnderWay,
}

/// The right to work on a key. Dropped without [`Ticket::finish`], the key is free again.
#[derive(Debug)]
pub struct Ticket {
    cache: Arc<IdempotencyCache>,
    key: Option<Sha>,
    request: Sha,
}

/// Digest of everything that makes two requests the same.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Sha {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

impl IdempotencyCache {
    pub fn new(limits: IdempotencyLimits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// Looks the key of a token up for a request with this digest.
    pub fn begin(self: &Arc<Self>, token_id: &str, key: &str, request: Sha, now: Instant) -> Verdict {
        let key = digest([token_id.as_bytes(), key.as_bytes()]);
        let mut inner = self.inner.lock();
        inner.forget_until(now.checked_sub(self.limits.ttl), 0, usize::MAX, usize::MAX);
        match inner.entries.get(&key) {
            Some(Entry::Finished { request: known, answer }) if *known == request => Verdict::Replay(answer.clone()),
            Some(Entry::UnderWay { request: known }) if *known == request => Verdict::UnderWay,
            Some(_) => Verdict::OtherRequest,
            None => {
                inner.entries.insert(key, Entry::UnderWay { request });
                Verdict::Work(Ticket { cache: self.clone(), key: Some(key), request })
            }
        }
    }
}

impl Inner {
    /// Drops answers older than `until`, and then the oldest ones until `incoming` bytes fit.
    fn forget_until(&mut self, until: Option<Instant>, incoming: usize, max_entries: usize, max_bytes: usize) {
        while let Some((key, at)) = self.order.front().copied() {
            let expired = until.is_some_and(|until| at <= until);
            if !expired && self.order.len() < max_entries && self.bytes.saturating_add(incoming) <= max_bytes {
                return;
            }
            self.order.pop_front();
            if let Some(Entry::Finished { answer, .. }) = self.entries.remove(&key) {
                self.bytes -= answer.body.len() + ENTRY_OVERHEAD;
            }
        }
    }
}

impl Ticket {
    /// Keeps the answer for replay, unless it alone is larger than the cache.
    pub fn finish(mut self, answer: &Answer, now: Instant) {
        let limits = &self.cache.limits;
        let bytes = answer.body.len() + ENTRY_OVERHEAD;
        if bytes > limits.max_bytes || limits.ttl == Duration::ZERO {
            return;
        }
        let Some(key) = self.key.take() else { return };
        let mut inner = self.cache.inner.lock();
        inner.forget_until(now.checked_sub(limits.ttl), bytes, limits.max_entries, limits.max_bytes);
        inner.bytes += bytes;
        inner.order.push_back((key, now));
        inner.entries.insert(key, Entry::Finished { request: self.request, answer: answer.clone() });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.cache.inner.lock().entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use bytes::Bytes;

    use super::*;

    fn cache(max_entries: usize, max_bytes: usize) -> Arc<IdempotencyCache> {
        Arc::new(IdempotencyCache::new(IdempotencyLimits { ttl: Duration::from_secs(60), max_entries, max_bytes }))
    }

    fn answer(body: &str) -> Answer {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { status: StatusCode::ACCEPTED, media_type: "application/json", body, headers: vec![] }
    }

    fn work(cache: &Arc<IdempotencyCache>, key: &str, now: Instant) -> Ticket {
        match cache.begin("t", key, [1; 32], now) {
            Verdict::Work(ticket) => ticket,
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn replays_conflicts_and_frees_keys() {
        let (cache, now) = (cache(10, 10_000), Instant::now());
        let ticket = work(&cache, "k", now);
        assert!(matches!(cache.begin("t", "k", [1; 32], now), Verdict::UnderWay));
        assert!(matches!(cache.begin("t", "k", [2; 32], now), Verdict::OtherRequest));
        drop(ticket);
        work(&cache, "k", now).finish(&answer("first"), now);
        assert!(matches!(cache.begin("t", "k", [1; 32], now), Verdict::Replay(a) if a.body == "first"));
        assert!(matches!(cache.begin("t", "k", [2; 32], now), Verdict::OtherRequest));
        assert!(matches!(cache.begin("other token", "k", [1; 32], now), Verdict::Work(_)));
        let later = now + Duration::from_secs(60);
        assert!(matches!(cache.begin("t", "k", [1; 32], later), Verdict::Work(_)));
    }

    #[test]
    fn stays_within_entries_and_bytes() {
        let now = Instant::now();
        for (cache, kept) in [(cache(3, usize::MAX), 3), (cache(100, 4 * (ENTRY_OVERHEAD + 10)), 4)] {
            for i in 0..20 {
                work(&cache, &i.to_string(), now).finish(&answer("0123456789"), now);
            }
            let inner = cache.inner.lock();
            assert_eq!((inner.entries.len(), inner.order.len()), (kept, kept));
            assert_eq!(inner.bytes, kept * (ENTRY_OVERHEAD + 10));
        }
        let tiny = cache(100, ENTRY_OVERHEAD);
        work(&tiny, "k", now).finish(&answer("too large to keep"), now);
        drop(work(&tiny, "k", now));
        assert_eq!(tiny.inner.lock().entries.len(), 0);
    }
}
