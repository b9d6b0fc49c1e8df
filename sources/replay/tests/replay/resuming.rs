//! Limits, interruptions and resumption: together the runs send every row once.

use std::time::Instant;

use companyos_source_replay::{CheckpointError, Outcome, ReplayError, Speed, replay};
use tokio_util::sync::CancellationToken;

use crate::harness::{DEADLINE, World, ids, ndjson, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_replay_goes_on_where_it_ended() {
    let world = World::start().await;
    let file = world.write("a.ndjson.zst", zstd::encode_all(ndjson(0..700).as_bytes(), 3).unwrap());
    let mut options = world.options(&file);
    options.limit = Some(300);
    let summary = run(options.clone()).await.unwrap();
    assert_eq!((summary.outcome, summary.counts.mapped), (Outcome::LimitReached, 300));
    assert_eq!(world.event_ids().await, ids(0..300));

    options.resume = true;
    let summary = run(options.clone()).await.unwrap();
    assert_eq!((summary.resumed_after, summary.counts.mapped, summary.total.mapped), (300, 300, 600));
    options.limit = None;
    let summary = run(options.clone()).await.unwrap();
    assert_eq!((summary.outcome, summary.counts.mapped, summary.total.mapped), (Outcome::Complete, 100, 700));
    assert_eq!(world.event_ids().await, ids(0..700), "each row once");

    let again = run(options.clone()).await.unwrap();
    assert_eq!((again.outcome, again.counts.rows(), again.total.mapped), (Outcome::Complete, 0, 700));
    assert_eq!(world.event_ids().await.len(), 700, "a finished file is not sent again");
    options.resume = false;
    assert_eq!(run(options).await.unwrap().counts.mapped, 700);
    assert_eq!(world.event_ids().await.len(), 1_400, "without resume it starts over, with the same ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_loses_nothing_and_repeats_nothing() {
    let world = World::start().await;
    // Between the two hundreds lie thirty years of events, so that the interruption finds it waiting.
    let later = ndjson(0..100).replace("r-", "s-").replace(":17000000", ":27000000");
    let file = world.write("a.ndjson", ndjson(0..100) + later.as_str());
    let mut options = world.options(&file);
    options.speed = Speed::Times(100_000.0);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(replay(options.clone(), shutdown.clone()));
    let started = Instant::now();
    while world.records("product_events").await.len() < 100 {
        assert!(started.elapsed() < DEADLINE, "the first hundred never came");
    }
    shutdown.cancel();
    let summary = tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.outcome, summary.counts.mapped), (Outcome::Interrupted, 100));
    (options.resume, options.speed) = (true, Speed::Max);
    let summary = run(options).await.unwrap();
    assert_eq!((summary.resumed_after, summary.counts.mapped, summary.total.mapped), (100, 100, 200));
    let all = world.event_ids().await;
    assert_eq!(all.len(), 200);
    assert_eq!(all[..100], ids(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_file_is_not_resumed_from() {
    let world = World::start().await;
    let file = world.write("a.ndjson", ndjson(0..3));
    let mut options = world.options(&file);
    run(options.clone()).await.unwrap();
    world.write("a.ndjson", ndjson(1..4));
    options.resume = true;
    let error = run(options).await.unwrap_err();
    assert!(
        matches!(&error, ReplayError::Checkpoint(CheckpointError::Mismatch { changed: "the file", .. })),
        "{error}"
    );
    assert_eq!(world.event_ids().await, ids(0..3));
}
