//! The bound on what all requests together may hold: nothing waits, what does not fit is told to
//! come back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::telemetry;

/// Requests and body bytes under way, and how many there may be.
#[derive(Debug)]
pub struct Admission {
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// One request's share; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    pub fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { max_requests, max_bytes, requests: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Takes a request in, or none if there are as many as may be.
    pub fn enter(self: &Arc<Self>) -> Option<Admitted> {
        take(&self.requests, 1, self.max_requests).then(|| {
            telemetry::in_flight_requests(1.0);
            Admitted { admission: self.clone(), bytes: 0 }
        })
    }

    /// Requests under way.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

impl Admitted {
    /// Counts `more` bytes for this request, or says that there is no room for them.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let fits = take(&self.admission.bytes, more, self.admission.max_bytes);
        if fits {
            self.bytes += more;
            telemetry::in_flight_bytes(more as f64);
        }
        fits
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.admission.requests.fetch_sub(1, Ordering::AcqRel);
        telemetry::in_flight_bytes(-(self.bytes as f64));
        telemetry::in_flight_requests(-1.0);
    }
}

fn take(used: &AtomicUsize, more: usize, max: usize) -> bool {
    let step = |now: usize| now.checked_add(more).filter(|sum| *sum <= max);
    used.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_leaves_makes_room() {
        let admission = Arc::new(Admission::new(2, 100));
        let mut first = admission.enter().unwrap();
        let mut second = admission.enter().unwrap();
        assert!(admission.enter().is_none());
        assert!(first.grow(60) && !second.grow(41) && second.grow(40));
        drop(first);
        assert!(second.grow(60));
        assert!(admission.enter().is_some());
        drop(second);
        assert_eq!((admission.requests(), admission.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
