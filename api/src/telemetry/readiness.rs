//! Readiness: each role of the process says whether it does its work now.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks of a process; clones share them.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<(&'static str, Check)>>>,
}

impl Readiness {
    /// Adds a role's check. It should answer within a few seconds.
    pub fn add<F>(&self, role: &'static str, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).push((role, check));
    }

    /// Every role with what keeps it from working, none if nothing does.
    pub async fn ask(&self) -> Vec<(&'static str, Option<String>)> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut answers = Vec::with_capacity(checks.len());
        for (role, check) in checks {
            answers.push((role, check().await.err()));
        }
        answers
    }
}
