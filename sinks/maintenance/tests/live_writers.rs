//! Every task at once, beside live appenders and a second maintainer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use companyos_maintenance::{Maintainer, MaintenanceConfig, Report, TableView, Task};
use support::{Appender, TABLE, World, assert_clean, assert_once, day, eager, now, rows_in, rows_of};

const COMMITS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_tasks_beside_live_appenders_keep_every_row_once_and_every_position() {
    let worlds = [World::new("eu"), World::new("us")];
    let mut config = eager();
    config.retention.rules =
        toml::from_str::<MaintenanceConfig>("[[retention.rules]]\nretention_days = 30").unwrap().retention.rules;
    let days: Vec<String> = [0, 1, 5, 12, 40].into_iter().map(day).collect();

    // An early checkpoint, so that log clean-up has something below which entries can go.
    let first_regions = worlds.iter().map(World::region).collect();
    let early = Maintainer::new(config.clone(), first_regions).unwrap().with_clock(now);
    for world in &worlds {
        let mut history = Appender::open(world, "history", 1).await;
        for _ in 0..6 {
            history.append(&[]).await;
        }
    }
    let early = Report { table: TABLE.into(), tasks: early.run_task(Task::Checkpoint, TABLE).await };
    assert_eq!(early.work(Task::Checkpoint).files_added, 2, "one in each region");

    let running = Arc::new(AtomicUsize::new(0));
    let mut appenders = Vec::new();
    for world in &worlds {
        for name in ["orders", "clicks"] {
            let mut appender = Appender::open(world, name, 3).await;
            let (days, running) = (days.clone(), running.clone());
            running.fetch_add(1, Ordering::SeqCst);
            appenders.push(tokio::spawn(async move {
                for _ in 0..COMMITS {
                    appender.append(&days).await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                appender
            }));
        }
    }
    let mut maintainers = Vec::new();
    for _ in 0..2 {
        let regions = worlds.iter().map(World::region).collect();
        let maintainer = Maintainer::new(config.clone(), regions).unwrap().with_clock(now);
        let running = running.clone();
        maintainers.push(tokio::spawn(async move {
            let mut during = Vec::new();
            while running.load(Ordering::SeqCst) > 0 {
                during.push(maintainer.run_once(TABLE).await);
            }
            (maintainer, during)
        }));
    }
    let mut written = Vec::new();
    for appender in appenders {
        written.push(appender.await.unwrap());
    }
    let mut during: Vec<Report> = Vec::new();
    let mut last = None;
    for task in maintainers {
        let (maintainer, reports) = task.await.unwrap();
        during.extend(reports);
        last = Some(maintainer);
    }
    during.iter().for_each(assert_clean);
    assert!(during.len() >= 2, "maintenance ran beside the appenders");
    // So that every task is sure to have had work, clustering before compaction takes it away.
    let maintainer = last.unwrap();
    for appender in &mut written {
        appender.append(&days).await;
    }
    let mut after = Report { table: TABLE.into(), tasks: maintainer.run_task(Task::Cluster, TABLE).await };
    for _ in 0..2 {
        after.tasks.extend(maintainer.run_once(TABLE).await.tasks);
    }
    assert_clean(&after);
    for task in Task::ALL {
        let idle = during.iter().chain([&after]).all(|r| r.work(task).files_removed + r.work(task).files_added == 0);
        assert!(!idle, "{task} had nothing to do: this test proves nothing about it");
    }

    for world in &worlds {
        let mine: Vec<&Appender> =
            written.iter().filter(|a| a.written.keys().any(|id| id.starts_with(world.region))).collect();
        let kept = mine.iter().flat_map(|a| &a.written).filter(|(_, (_, of))| *of != day(40)).map(|(id, _)| id);
        assert_once(&world.rows().await, kept);
        let archived = rows_in(&world.archive.load_table(TABLE).await.unwrap().unwrap()).await;
        assert!(!archived.is_empty() && archived.keys().all(|id| id.contains(&day(12))), "archive holds day 12 alone");

        // Whoever takes a partition over resumes where the appender stood.
        for appender in mine {
            let mut sink = Appender::open(world, "any", 0).await.sink;
            let positions = sink.load_positions(&appender.app_ids()).await.unwrap();
            assert!(positions.iter().all(|p| *p == appender.position()), "{positions:?}");
        }
        // The log begins at a checkpoint now, and any delta-rs reads it.
        let log = world.hot_folder().join("_delta_log");
        assert!(log.join("_last_checkpoint").exists() && !log.join(format!("{:020}.json", 0)).exists());
        let plain = deltalake::open_table(world.hot.table_url(TABLE)).await.unwrap();
        assert_eq!(rows_in(&plain).await, rows_in(&world.hot.load_table(TABLE).await.unwrap().unwrap()).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_hot_and_archive_sees_each_row_once_at_every_moment_of_the_moves() {
    let world = Arc::new(World::new("eu"));
    let mut config = eager();
    // The reader takes its time over each snapshot.
    config.vacuum = Default::default();
    let maintainer = world.maintainer(config);
    let committed = Arc::new(Mutex::new(BTreeSet::new()));
    let done = Arc::new(AtomicBool::new(false));

    let mut appender = Appender::open(&world, "orders", 2).await;
    let days = [day(0), day(12), day(13)];
    appender.append(&days).await;
    committed.lock().unwrap().extend(appender.written.keys().cloned());
    let reader = tokio::spawn({
        let (world, committed, done) = (world.clone(), committed.clone(), done.clone());
        async move {
            let (mut reads, mut with_archive) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                let before: BTreeSet<String> = committed.lock().unwrap().clone();
                let view = TableView::open(&world.hot, Some(&world.archive), TABLE).await.unwrap();
                let rows = rows_of(&view).await;
                let doubled: Vec<_> = rows.iter().filter(|(_, n)| **n > 1).collect();
                assert!(doubled.is_empty(), "read {reads}: doubled {doubled:?}, unsettled {:?}", view.unsettled);
                let lost: Vec<_> = before.iter().filter(|id| !rows.contains_key(*id)).collect();
                assert!(lost.is_empty(), "read {reads}: lost {lost:?}, unsettled {:?}", view.unsettled);
                reads += 1;
                with_archive += usize::from(view.archive.is_some());
            }
            (reads, with_archive)
        }
    });
    for _ in 0..6 {
        // Late rows for archived days: each round moves them after the others.
        appender.append(&days).await;
        committed.lock().unwrap().extend(appender.written.keys().cloned());
        for task in [Task::Archive, Task::Compaction] {
            for report in maintainer.run_task(task, TABLE).await {
                assert!(matches!(report.outcome, companyos_maintenance::Outcome::Done(_)), "{report:?}");
            }
        }
    }
    done.store(true, Ordering::SeqCst);
    let (reads, with_archive) = reader.await.unwrap();
    assert!(reads > 2 && with_archive > 0, "{reads} reads, {with_archive} with an archive");
    assert_once(&world.rows().await, appender.written.keys());
}
