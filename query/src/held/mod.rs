//! Views that are asked for again and again, kept in memory by scope and brought up to date with
//! what was committed since.
//!
//! Promises:
//! - What is held was read through the same boundary as everything else and belongs to one scope:
//!   an entry is found only by the tenant, environments and regions it was made for.
//! - A query sees every commit that was made before it began, as without it.
//! - Memory is bounded; what was not asked for lately goes first. Views larger than a part of the
//!   bound, and whatever goes wrong here, cost the reader time and nothing else: the view is then
//!   read from its state.

mod state_log;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use companyos_pipelines::views::Generation;
use companyos_views::{HeldRows, HeldView, ViewPlan};
use dashmap::DashSet;
use datafusion::{
    catalog::TableProvider,
    physical_plan::{ExecutionPlanProperties, execute_stream},
};
use futures::TryStreamExt;
use tokio::sync::{Mutex, Semaphore};

use self::state_log::StateLog;
use crate::{root::Root, scope_filter::ScopeFilter, scoped_table::ScopedTable, snapshots::Pinned};

/// A view's state in one region, as one scope sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    region: Arc<str>,
    table: String,
    scope: ScopeFilter,
}

#[derive(Debug)]
struct Held {
    at: Mutex<Moment>,
    /// As of the last time it changed.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Moment {
    /// Version of the state table.
    version: u64,
    /// None after a failure.
    view: Option<HeldView>,
}

/// The views in memory.
#[derive(Debug)]
pub(crate) struct HeldViews {
    held: moka::sync::Cache<Key, Arc<Held>>,
    /// Found too large, or failed: not to be tried again for a while.
    refused: moka::sync::Cache<Key, ()>,
    building: DashSet<Key>,
    builders: Semaphore,
    /// By region and state table.
    logs: moka::sync::Cache<(Arc<str>, String), Arc<Mutex<StateLog>>>,
    limit: usize,
}

/// What nobody asks for is let go after this long.
const IDLE: Duration = Duration::from_secs(900);
/// Time between two tries to hold what could not be held.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// One entry takes at most this part of the memory.
const LARGEST_PART: usize = 4;

/// What a reader needs to know of a view to find it here or to have it taken in.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub generation: Arc<Generation>,
    pub scope: ScopeFilter,
    /// Partition column and value of the scope's state.
    pub partition: (&'static str, String),
}

impl Wanted {
    fn key(&self, root: &Root) -> Key {
        Key { region: root.region.clone(), table: self.generation.table.clone(), scope: self.scope.clone() }
    }
}

impl HeldViews {
    /// Holds up to so many bytes; nothing if 0.
    pub fn new(limit: usize) -> Self {
        let kib = |held: &Arc<Held>| u32::try_from(held.bytes.load(Ordering::Relaxed) >> 10).unwrap_or(u32::MAX);
        Self {
            held: moka::sync::Cache::builder()
                .weigher(move |_, held| kib(held).max(1))
                .max_capacity((limit >> 10) as u64)
                .time_to_idle(IDLE)
                .build(),
            refused: moka::sync::Cache::builder().max_capacity(10_000).time_to_live(REFUSED_FOR).build(),
            building: DashSet::new(),
            builders: Semaphore::new(1),
            logs: moka::sync::Cache::builder().time_to_idle(IDLE).build(),
            limit,
        }
    }

    /// The view's rows in one region at the newest version of its state, which is told. None if it
    /// is not held.
    pub async fn rows(&self, wanted: &Wanted, root: &Arc<Root>) -> Option<(u64, HeldRows)> {
        let key = wanted.key(root);
        let held = self.held.get(&key)?;
        let rows = {
            let mut moment = held.at.lock().await;
            self.bring_up_to_date(&mut moment, wanted, root).await;
            moment.view.as_ref().map(|view| (moment.version, view.rows(), view.bytes()))
        };
        let Some((version, rows, bytes)) = rows else {
            self.held.invalidate(&key);
            return None;
        };
        metrics::gauge!("companyos_query_held_views_bytes").set((self.held.weighted_size() << 10) as f64);
        let before = held.bytes.swap(bytes, Ordering::Relaxed);
        if bytes.abs_diff(before) > before / 8 {
            // Weighed anew.
            self.held.insert(key, held);
        }
        Some((version, rows))
    }

    /// Takes in what was committed since; holds nothing if that cannot be done.
    async fn bring_up_to_date(&self, moment: &mut Moment, wanted: &Wanted, root: &Root) {
        let Some(mut view) = moment.view.take() else { return };
        let place = (root.region.clone(), wanted.generation.table.clone());
        let log = self.logs.get_with(place.clone(), || {
            let schema = wanted.generation.plan.state_schema.clone();
            Arc::new(Mutex::new(StateLog::new(&root.storage, &place.1, schema, moment.version)))
        });
        let asked = Instant::now();
        let since = log.lock().await.since(moment.version, &wanted.partition, asked).await;
        let (version, commits) = match since {
            Ok(Some(since)) => since,
            Ok(None) => return,
            Err(error) => {
                // It may never get on from here: the next one begins anew.
                self.logs.invalidate(&place);
                return tracing::warn!(table = place.1, %error, "the commits of a view's state cannot be read");
            }
        };
        let mut rows = Vec::new();
        for batch in commits.iter().flat_map(|commit| commit.iter()) {
            match wanted.scope.rows_of(batch) {
                Ok(own) if own.num_rows() == 0 => {}
                Ok(own) => rows.push(own),
                Err(error) => return tracing::error!(%error, "state of a view cannot be filtered"),
            }
        }
        if let Err(error) = view.take_in(&wanted.generation.plan, &rows).await {
            return tracing::error!(view = wanted.generation.plan.name, %error, "a held view cannot take state in");
        }
        *moment = Moment { version, view: Some(view) };
    }

    /// Has a view that was just pinned taken in beside the query that asked for it.
    pub fn take_in(self: &Arc<Self>, wanted: &Wanted, pinned: &Pinned) {
        let key = wanted.key(&pinned.root);
        if self.limit == 0
            || pinned.root.archive
            || pinned.only.is_some()
            || self.held.contains_key(&key)
            || self.refused.contains_key(&key)
            || !self.building.insert(key.clone())
        {
            return;
        }
        let (all, wanted, pinned) = (self.clone(), wanted.clone(), pinned.clone());
        tokio::spawn(async move {
            let version = pinned.table.version().unwrap_or(0);
            match all.read_apart(wanted, pinned).await {
                None => all.refused.insert(key.clone(), ()),
                Some(view) => {
                    let bytes = AtomicUsize::new(view.bytes());
                    let at = Mutex::new(Moment { version, view: Some(view) });
                    all.held.insert(key.clone(), Arc::new(Held { at, bytes }));
                }
            }
            all.building.remove(&key);
        });
    }

    /// Reads one view at a time and, as folding takes long at a stretch, not on the threads that answer.
    async fn read_apart(self: &Arc<Self>, wanted: Wanted, pinned: Pinned) -> Option<HeldView> {
        let _place = self.builders.acquire().await.ok()?;
        let (all, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let read = move || runtime.block_on(all.read(&wanted, pinned));
        // None as well if it panics: then it is not tried again for a while.
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// The scope's state at the pinned version, as a held view; none if it is too large.
    async fn read(&self, wanted: &Wanted, pinned: Pinned) -> Option<HeldView> {
        let plan = &wanted.generation.plan;
        let limit = self.limit / LARGEST_PART;
        let read = async {
            let root = pinned.root.clone();
            let (column, value) = &wanted.partition;
            let table = ScopedTable::new(&wanted.generation.table, &plan.state_schema, &wanted.scope, vec![pinned]);
            let state = table.in_partition(column, value).scan(&root.session, None, &[], None).await?;
            let mut view = HeldView::new(plan)?;
            let mut portions = Vec::new();
            let mut bytes = 0;
            if state.output_partitioning().partition_count() > 0 {
                let mut rows = execute_stream(state, root.session.task_ctx())?;
                while let Some(batch) = rows.try_next().await? {
                    bytes += batch.get_array_memory_size();
                    portions.push(batch);
                    if bytes > limit {
                        portions = folded(plan, &portions).await?;
                        bytes = portions.iter().map(RecordBatch::get_array_memory_size).sum();
                        if bytes > limit {
                            return Ok(None);
                        }
                    }
                }
            }
            view.take_in(plan, &portions).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Some(view).filter(|view| view.bytes() <= limit))
        };
        read.await.unwrap_or_else(|error| {
            tracing::error!(table = wanted.generation.table, %error, "a view cannot be held");
            None
        })
    }
}

async fn folded(plan: &ViewPlan, portions: &[RecordBatch]) -> Result<Vec<RecordBatch>, companyos_views::ViewError> {
    Ok(plan.fold(portions).await?.into_iter().collect())
}
