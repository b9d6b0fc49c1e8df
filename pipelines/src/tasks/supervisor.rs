//! Keeps one job running.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{JobContext, JobFactory};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A job that ran for this long was well, whatever it met then.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Runs a job until `stop`, starting it again whenever it ends before.
pub(super) async fn supervise(name: String, factory: JobFactory, context: JobContext, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let started = tokio::time::Instant::now();
        let run = async { factory(&context).run(context.clone(), stop.clone()).await };
        let problem = match AssertUnwindSafe(run).catch_unwind().await {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => "ended by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panicked".to_owned(),
        };
        if started.elapsed() > WELL_AFTER {
            pause = FIRST_PAUSE;
        }
        let (region, shard) = (&context.region, context.shard.index);
        error!(job = name, %region, shard, problem, ?pause, "job stopped; starting it again");
        metrics::counter!("companyos_task_restarts_total", "job" => name.clone()).increment(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;
    use companyos_sinks::storage::Storage;

    use super::*;
    use crate::{
        tasks::{ShardJob, TaskError},
        views::Shard,
    };

    struct Troubled(usize);

    #[async_trait]
    impl ShardJob for Troubled {
        async fn run(&mut self, _: JobContext, stop: CancellationToken) -> Result<(), TaskError> {
            match self.0 {
                0 => panic!("as planned"),
                1 => Err(TaskError::Other("as planned".into())),
                _ => {
                    stop.cancelled().await;
                    Ok(())
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_errors_are_survived_and_stop_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(dir.path()).unwrap();
        let storage = Storage::open(&url, &Default::default()).unwrap();
        let shard = Shard { index: 0, of: 1 };
        let context = JobContext { region: Arc::from("eu"), shard, storage: storage.clone(), home: storage };
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let factory: JobFactory = Arc::new(move |_| Box::new(Troubled(counted.fetch_add(1, Ordering::Relaxed))));
        let stop = CancellationToken::new();
        let job = tokio::spawn(supervise("t".into(), factory, context, stop.clone()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        stop.cancel();
        job.await.unwrap();
    }
}
