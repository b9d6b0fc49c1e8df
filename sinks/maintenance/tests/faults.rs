//! A task dies, or its store fails it, at every single write; it is run again, and nothing is lost
//! or doubled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use companyos_maintenance::{Maintainer, MaintenanceConfig, ManifestState, Report, TableView, Task};
use futures::{StreamExt, stream};
use support::{
    Appender, TABLE, World, assert_clean, assert_once, day, eager,
    faults::{Fault, Faults},
    now, rows_in,
};

const LOG: &str = "_delta_log";

/// A table with something to do for every task, and what it holds.
async fn busy_table() -> (World, Appender) {
    let world = World::new("eu");
    let mut appender = Appender::open(&world, "orders", 1).await;
    for _ in 0..2 {
        appender.append(&[day(5), day(12), day(40)]).await;
    }
    (world, appender)
}

fn config() -> MaintenanceConfig {
    let mut config = eager();
    config.log_cleanup.keep_versions = 1;
    config.archive.take_over_after = std::time::Duration::ZERO;
    config.retention.rules =
        toml::from_str::<MaintenanceConfig>("[[retention.rules]]\nretention_days = 30").unwrap().retention.rules;
    config
}

fn kept(appender: &Appender) -> Vec<&String> {
    appender.written.iter().filter(|(_, (_, of))| *of != day(40)).map(|(id, _)| id).collect()
}

/// Runs every task through a failing store, then again through a sound one; the last report and
/// the writes the first run tried.
async fn run_broken_then_sound(world: &World, fault: Fault) -> (Option<Report>, Report, Vec<String>) {
    let faults = Faults::new(fault);
    let broken = Maintainer::new(config(), vec![world.faulty_region(&faults)]).unwrap().with_clock(now);
    let first = faults.run(broken.run_once(TABLE)).await;
    (first, world.maintainer(config()).run_once(TABLE).await, faults.writes())
}

async fn check_end(world: &World, appender: &Appender, report: &Report, fault: Fault) {
    assert_clean(report);
    let rows = world.rows().await;
    assert_once(&rows, kept(appender));
    let archived = rows_in(&world.archive.load_table(TABLE).await.unwrap().unwrap()).await;
    assert_once(&archived, kept(appender).into_iter().filter(|id| id.contains(&day(12))));
    let open = world.archive_root().join("_manifests/open").join(TABLE);
    let left: Vec<_> = std::fs::read_dir(open).map(|d| d.collect()).unwrap_or_default();
    assert!(left.is_empty(), "{fault:?}: open manifests {left:?}");
    let mut sink = Appender::open(world, "any", 0).await.sink;
    assert_eq!(sink.load_positions(&appender.app_ids()).await.unwrap(), [appender.position()], "{fault:?}");
}

async fn at_every_write(
    of: impl Fn(&str) -> bool,
    fault: impl Fn(usize) -> Fault + Copy,
    expect_first: impl Fn(Option<&Report>) + Copy,
) {
    let (template, appender) = busy_table().await;
    let (first, last, writes) = run_broken_then_sound(&template.copy(), Fault::None).await;
    assert_clean(&first.unwrap());
    assert_clean(&last);
    let points: Vec<usize> = (0..writes.len()).filter(|n| of(&writes[*n])).collect();
    assert!(points.len() >= 6, "{writes:?}");
    let (template, appender) = (&template, &appender);
    stream::iter(points)
        .for_each_concurrent(3, |n| async move {
            let world = template.copy();
            let (first, last, _) = run_broken_then_sound(&world, fault(n)).await;
            expect_first(first.as_ref());
            check_end(&world, appender, &last, fault(n)).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_dies_after_any_write_is_finished_by_the_next() {
    at_every_write(|_| true, Fault::DieAfter, |first| assert!(first.is_none(), "it was to die")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_lost_reply_of_the_log_is_found_out_and_the_run_ends_well() {
    at_every_write(|path| path.contains(LOG), Fault::LoseReply, |first| assert_clean(first.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_failed_write_of_a_file_is_tried_again_and_the_run_ends_well() {
    at_every_write(|path| !path.contains(LOG), Fault::FailOnce, |first| assert_clean(first.unwrap())).await;
}

/// An archive run that died at its every write, one after the other, until one left rows in both.
async fn half_archived(template: &World) -> World {
    for n in 0.. {
        let world = template.copy();
        let faults = Faults::new(Fault::DieAfter(n));
        let broken = Maintainer::new(config(), vec![world.faulty_region(&faults)]).unwrap().with_clock(now);
        let finished = faults.run(broken.run_task(Task::Archive, TABLE)).await;
        assert!(finished.is_none(), "no write leaves rows in both roots");
        let view = TableView::open(&world.hot, Some(&world.archive), TABLE).await.unwrap();
        if !view.unsettled.is_empty() {
            return world;
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_in_both_roots_are_read_once_and_settled_by_the_next_run() {
    let (template, appender) = busy_table().await;
    let world = half_archived(&template).await;
    assert_once(&world.rows().await, appender.written.keys());
    let report = world.maintainer(config()).run_once(TABLE).await;
    check_end(&world, &appender, &report, Fault::None).await;
    let view = TableView::open(&world.hot, Some(&world.archive), TABLE).await.unwrap();
    assert!(view.unsettled.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_half_archived_day_that_was_compacted_is_rolled_back_and_moved_anew() {
    let (template, appender) = busy_table().await;
    let world = half_archived(&template).await;
    let maintainer = world.maintainer(config());
    let compacted = maintainer.run_task(Task::Compaction, TABLE).await;
    assert!(compacted.iter().any(|r| matches!(&r.outcome, companyos_maintenance::Outcome::Done(w) if w.commits > 0)));
    assert_once(&world.rows().await, appender.written.keys());
    // Before retention, which has its own say about the oldest day.
    maintainer.run_task(Task::Archive, TABLE).await;
    let report = maintainer.run_once(TABLE).await;
    check_end(&world, &appender, &report, Fault::None).await;
    let states: Vec<ManifestState> = support::manifests(&world).into_iter().map(|m| m.state).collect();
    assert!(states.contains(&ManifestState::RolledBack) && states.contains(&ManifestState::Done), "{states:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_manifest_that_is_gone_stops_the_partition_instead_of_guessing() {
    let (template, appender) = busy_table().await;
    let world = half_archived(&template).await;
    std::fs::remove_dir_all(world.archive_root().join("_manifests")).unwrap();
    let reports = world.maintainer(config()).run_task(Task::Archive, TABLE).await;
    assert!(format!("{:?}", reports[0].outcome).contains("manifest is missing"), "{reports:?}");
    assert_once(&world.rows().await, appender.written.keys());
}
