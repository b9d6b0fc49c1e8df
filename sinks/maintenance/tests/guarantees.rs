//! What each task must not touch: retention by region, table and tenant; vacuum beside readers and
//! writers; the archive's records.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use companyos_maintenance::{Maintainer, MaintenanceConfig, ManifestState, Outcome, Task, Work};
use companyos_sinks::storage::Storage;
use deltalake::DeltaTable;
use object_store::{ObjectStoreExt, path::Path};
use support::{Appender, TABLE, World, assert_clean, assert_once, day, eager, files, manifests, now, rows_in};

async fn work(maintainer: &Maintainer, task: Task) -> Work {
    let mut sum = Work::default();
    for report in maintainer.run_task(task, TABLE).await {
        match report.outcome {
            Outcome::Done(done) => {
                sum.commits += done.commits;
                sum.files_removed += done.files_removed;
                sum.files_added += done.files_added;
                sum.rows += done.rows;
            }
            Outcome::Failed { error } => panic!("{task}: {error}"),
        }
    }
    sum
}

async fn load(storage: &Storage) -> DeltaTable {
    storage.load_table(TABLE).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_follows_the_rule_of_each_region_stream_and_tenant() {
    let worlds = [World::new("eu"), World::new("us")];
    let config: MaintenanceConfig = toml::from_str(
        "[[retention.rules]]
         table = 'security_signals'
         retention_days = 1
         [[retention.rules]]
         region = 'eu'
         retention_days = 20
         [[retention.rules]]
         region = 'eu'
         table = 'product_events'
         tenant = 'beta'
         retention_days = 3",
    )
    .unwrap();
    let maintainer = Maintainer::new(config, worlds.iter().map(World::region).collect()).unwrap().with_clock(now);
    for world in &worlds {
        let mut appender = Appender::open(world, "orders", 1).await;
        appender.append(&[day(0), day(3), day(4), day(20), day(21)]).await;
        assert!(
            maintainer.run_task(Task::Retention, TABLE).await.iter().all(|r| matches!(r.outcome, Outcome::Done(_)))
        );
        let kept = appender.written.iter().filter(|(_, (tenant, of))| match (world.region, tenant.as_str()) {
            ("eu", "beta") => *of != day(4) && *of != day(20) && *of != day(21),
            ("eu", _) => *of != day(21),
            _ => true,
        });
        assert_once(&world.rows().await, kept.map(|(id, _)| id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_spares_what_a_reader_or_a_commit_under_way_still_needs() {
    let world = World::new("eu");
    let mut appender = Appender::open(&world, "orders", 1).await;
    for _ in 0..4 {
        appender.append(&[day(5)]).await;
    }
    let before = load(&world.hot).await;
    let store = before.log_store().object_store(None);
    let folder = format!("tenant=alpha/region=eu/day={}", day(5));
    let (fresh, stale) = (format!("{folder}/part-fresh.parquet"), format!("{folder}/part-stale.parquet"));
    for path in [&fresh, &stale] {
        store.put(&Path::from(path.as_str()), "rows of a commit under way".into()).await.unwrap();
    }
    let age = |path: &str, days: u64| {
        let file = std::fs::File::options().write(true).open(world.hot_folder().join(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
    };
    age(&fresh, 6);
    age(&stale, 8);

    // Compaction removes all four versions' files, then vacuum with its defaults comes by.
    let mut config = eager();
    config.vacuum = MaintenanceConfig::default().vacuum;
    let maintainer = world.maintainer(config.clone());
    assert!(work(&maintainer, Task::Compaction).await.commits > 0);
    // However old a file is, what counts is when it was removed.
    for path in before.snapshot().unwrap().log_data().iter().map(|f| f.path().into_owned()) {
        age(&path, 30);
    }
    assert_eq!(work(&maintainer, Task::Vacuum).await.files_removed, 1, "the stale orphan alone");
    assert!(!world.hot_folder().join(&stale).exists() && world.hot_folder().join(&fresh).exists());
    assert_once(&rows_in(&before).await, appender.written.keys());

    // A checkpoint keeps the removed files on record.
    assert_eq!(work(&maintainer, Task::Checkpoint).await.files_added, 1);
    assert_eq!(work(&maintainer, Task::Vacuum).await.files_removed, 0);
    assert_once(&rows_in(&before).await, appender.written.keys());

    // Seven days on the removed files go, and the orphan with them; the table is whole.
    let later = Maintainer::new(config, vec![world.region()]).unwrap().with_clock(|| now() + chrono::Duration::days(7));
    let old = before.snapshot().unwrap().log_data().num_files() as u64;
    assert_eq!(work(&later, Task::Vacuum).await.files_removed, old + 1);
    assert_once(&world.rows().await, appender.written.keys());

    // Even forced to keep nothing, the files of a commit under way stay.
    let fresh = Path::from(format!("{folder}/part-new.parquet"));
    store.put(&fresh, "rows".into()).await.unwrap();
    assert_eq!(work(&world.maintainer(eager()), Task::Vacuum).await.files_removed, 0);
    store.head(&fresh).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_day_carries_manifest_and_lineage_and_is_the_same_to_the_byte() {
    let world = World::new("eu");
    let mut appender = Appender::open(&world, "orders", 1).await;
    for _ in 0..2 {
        appender.append(&[day(10), day(11)]).await;
    }
    let source = load(&world.hot).await;
    let maintainer = world.maintainer(eager());
    let done = work(&maintainer, Task::Archive).await;
    assert_eq!((done.files_removed, done.rows), (4, 8), "two tenants' files of day 11");
    assert_eq!(work(&maintainer, Task::Archive).await, Work::default(), "nothing is left to move");

    let archive = load(&world.archive).await;
    assert_once(
        &rows_in(&archive).await,
        appender.written.iter().filter(|(_, (_, of))| *of == day(11)).map(|(id, _)| id),
    );
    let hot = load(&world.hot).await;
    assert_once(&rows_in(&hot).await, appender.written.iter().filter(|(_, (_, of))| *of == day(10)).map(|(id, _)| id));
    let listed = manifests(&world);
    assert_eq!(listed.len(), 2);
    let mut archived = BTreeSet::new();
    for manifest in &listed {
        assert_eq!((manifest.state, manifest.sequence, manifest.rows), (ManifestState::Done, 1, 4));
        assert_eq!((manifest.region.as_str(), manifest.partition_values["day"].clone()), ("eu", Some(day(11))));
        assert_eq!(manifest.source, world.hot.table_url(TABLE).to_string());
        assert!(manifest.source_version >= source.version().unwrap());
        assert_eq!(manifest.removed_version, Some(manifest.source_version + 1), "nobody else writes here");
        for file in &manifest.files {
            let copy = std::fs::read(world.archive_root().join(TABLE).join(&file.archived)).unwrap();
            assert_eq!(copy, std::fs::read(world.hot_folder().join(&file.source)).unwrap());
            archived.insert(file.archived.clone());
        }
        // The commits on both sides name the move.
        for (table, version) in [(&archive, manifest.archive_version), (&hot, manifest.removed_version)] {
            let entry = table.log_store().read_commit_entry(version.unwrap()).await.unwrap().unwrap();
            let entry = String::from_utf8(entry.to_vec()).unwrap();
            assert!(entry.contains(&manifest.attempt) && entry.contains(&manifest.source), "{entry}");
        }
    }
    assert_eq!(files(&world.archive).await, archived);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_clustering_leave_fewer_files_and_find_nothing_to_do_again() {
    let world = World::new("eu");
    let mut appender = Appender::open(&world, "orders", 1).await;
    for _ in 0..6 {
        appender.append(&[day(0), day(5)]).await;
    }
    let maintainer = world.maintainer(eager());
    assert_eq!(files(&world.hot).await.len(), 24);
    let done = work(&maintainer, Task::Cluster).await;
    assert_eq!((done.files_removed, done.files_added), (12, 2), "the closed day of two tenants");
    let done = work(&maintainer, Task::Compaction).await;
    assert_eq!((done.files_removed, done.files_added), (12, 2), "the open day");
    assert_once(&world.rows().await, appender.written.keys());
    for task in [Task::Cluster, Task::Compaction] {
        assert_eq!(work(&maintainer, task).await.commits, 0, "{task} again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_run_finds_the_tables_by_itself_and_defaults_leave_young_rows_alone() {
    let world = World::new("eu");
    let maintainer = world.maintainer(MaintenanceConfig::default());
    assert!(maintainer.run_all_once(&Task::ALL).await.unwrap().is_empty(), "no tables yet");
    assert_clean(&maintainer.run_once(TABLE).await);

    let mut appender = Appender::open(&world, "orders", 1).await;
    for _ in 0..3 {
        appender.append(&[day(0), day(400)]).await;
    }
    let live = files(&world.hot).await;
    let reports = maintainer.run_all_once(&Task::ALL).await.unwrap();
    assert_eq!(reports.iter().map(|r| r.table.as_str()).collect::<Vec<_>>(), [TABLE]);
    assert_clean(&reports[0]);
    assert_eq!(files(&world.hot).await, live, "three small files are not worth merging, and no day is deleted unasked");
    appender.append(&[day(0), day(400)]).await;
    maintainer.run_all_once(&[Task::Compaction]).await.unwrap();
    assert_eq!(files(&world.hot).await.len(), 4);
    assert_once(&world.rows().await, appender.written.keys());
}
