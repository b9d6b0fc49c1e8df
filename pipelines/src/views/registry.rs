//! Which views there are: a log of small objects in the home region's storage, `_views/N.json`, each
//! written if absent, so that everybody reads the same history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Utc};
use companyos_sinks::storage::Storage;
use companyos_views::{ViewError, ViewPlan, ViewStatement, parse};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use serde::{Deserialize, Serialize};

use super::{
    dimension::{Dimension, DimensionSet},
    retired::Retired,
};

/// A view by name.
#[derive(Debug, Clone)]
pub struct View {
    /// What queries read; none while a new view is being built.
    pub current: Option<Arc<Generation>>,
    /// What is being built to take its place.
    pub next: Option<Arc<Generation>>,
}

/// One definition of a view, with a state table of its own.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The plan.
    pub plan: ViewPlan,
    /// The statement as written.
    pub sql: String,
    /// Name of the state table.
    pub table: String,
    /// Regions times shards that have to be ready.
    pub regions: BTreeSet<String>,
    /// Shards the state is kept by.
    pub shards: u32,
    /// Whether it came with the product.
    pub built_in: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Region and shard that have taken the history in.
    pub ready: BTreeSet<(String, u32)>,
}

impl Generation {
    /// Whether every region and shard has taken the history in.
    pub fn is_ready(&self) -> bool {
        self.ready.len() >= self.regions.len() * self.shards as usize
    }
}

/// Why the registry cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store failed; trying again may help.
    #[error("view registry: {0}")]
    Store(#[from] object_store::Error),
    /// An entry that makes no sense.
    #[error("view registry: entry {number} is not readable: {problem}")]
    Entry {
        /// Its number.
        number: u64,
        /// What is wrong.
        problem: String,
    },
    /// The statement cannot be a view.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A view of that name exists.
    #[error("view {0:?} exists; CREATE OR REPLACE changes it")]
    Exists(String),
    /// No view has that name.
    #[error("there is no view {0:?}")]
    Unknown(String),
    /// No dimension has that name.
    #[error("there is no dimension {0:?}")]
    UnknownDimension(String),
    /// A dimension and a view would have the same name.
    #[error("{0:?} is the name of a {1}")]
    NameTaken(String, &'static str),
    /// A view joins the dimension.
    #[error("view {view:?} joins the dimension {dimension:?}: {problem}")]
    InUse {
        /// The view.
        view: String,
        /// The dimension.
        dimension: String,
        /// What would become of the view.
        problem: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Entry {
    Created {
        name: String,
        sql: String,
        table: String,
        regions: BTreeSet<String>,
        shards: u32,
        #[serde(default)]
        built_in: bool,
        at: DateTime<Utc>,
    },
    Ready {
        table: String,
        region: String,
        shard: u32,
        at: DateTime<Utc>,
    },
    Dropped {
        name: String,
        at: DateTime<Utc>,
    },
    DimensionLoaded {
        name: String,
        /// Names and types of the columns.
        columns: Vec<(String, String)>,
        objects: BTreeMap<String, String>,
        rows: u64,
        shared: bool,
        at: DateTime<Utc>,
    },
    DimensionDropped {
        name: String,
        at: DateTime<Utc>,
    },
}

/// The views as of the last look.
#[derive(Debug, Clone)]
pub struct ViewRegistry {
    store: Arc<dyn ObjectStore>,
    next: u64,
    views: BTreeMap<String, View>,
    dimensions: DimensionSet,
    /// Objects of each dimension before its latest: readers that looked a moment ago may be at them.
    outdated: BTreeMap<String, BTreeMap<String, String>>,
    retired: Retired,
}

impl ViewRegistry {
    /// The registry in the home region's storage; empty until [`refresh`](Self::refresh).
    pub fn new(home: &Storage) -> Self {
        Self {
            store: home.store(),
            next: 0,
            views: BTreeMap::new(),
            dimensions: DimensionSet::default(),
            outdated: BTreeMap::new(),
            retired: Retired::default(),
        }
    }

    /// The views by name.
    pub fn views(&self) -> &BTreeMap<String, View> {
        &self.views
    }

    /// The dimensions.
    pub fn dimensions(&self) -> &DimensionSet {
        &self.dimensions
    }

    /// All definitions that are kept current.
    pub fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.views.values().flat_map(|view| view.current.iter().chain(&view.next))
    }

    /// State tables that nothing has named for so long.
    pub(super) fn retired_since(&self, keep: Duration) -> impl Iterator<Item = &str> {
        self.retired.since(keep)
    }

    /// Reads new entries; true if there were any.
    pub async fn refresh(&mut self) -> Result<bool, RegistryError> {
        let mut changed = false;
        loop {
            let bytes = match self.store.get(&path(self.next)).await {
                Ok(found) => found.bytes().await?,
                Err(object_store::Error::NotFound { .. }) => return Ok(changed),
                Err(error) => return Err(error.into()),
            };
            let problem = |problem: String| RegistryError::Entry { number: self.next, problem };
            let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| problem(e.to_string()))?;
            if let Err(error) = self.apply(entry) {
                // A view this version cannot plan must not hide the others.
                tracing::error!(entry = self.next, %error, "a view in the registry cannot be used");
            }
            self.next += 1;
            changed = true;
        }
    }

    /// Makes a view, or replaces it; nothing happens if the same one exists. True if something did.
    pub async fn create(
        &mut self,
        sql: &str,
        regions: BTreeSet<String>,
        shards: u32,
        built_in: bool,
        again: bool,
    ) -> Result<bool, RegistryError> {
        loop {
            self.refresh().await?;
            let (name, or_replace, plan) = planned(sql, &self.dimensions)?;
            if self.dimensions.get(&name).is_some() {
                return Err(RegistryError::NameTaken(name, "dimension"));
            }
            if let Some(view) = self.views.get(&name) {
                let newest = view.next.as_ref().or(view.current.as_ref());
                let same = newest
                    .is_some_and(|g| base_of(&g.table) == plan.table && g.shards == shards && g.regions == regions);
                if same && !again {
                    return Ok(false);
                }
                if !or_replace && !built_in && !again {
                    return Err(RegistryError::Exists(name));
                }
            }
            // State of an earlier view of this definition may still be there.
            let table = match self.next {
                0 => plan.table,
                next => format!("{}_{next}", plan.table),
            };
            let entry = Entry::Created {
                name: name.clone(),
                sql: sql.to_owned(),
                table,
                regions: regions.clone(),
                shards,
                built_in,
                at: Utc::now(),
            };
            if self.append(&entry).await? {
                return Ok(true);
            }
        }
    }

    /// Removes a view.
    pub async fn drop_view(&mut self, name: &str) -> Result<(), RegistryError> {
        loop {
            self.refresh().await?;
            if !self.views.contains_key(name) {
                return Err(RegistryError::Unknown(name.to_owned()));
            }
            if self.append(&Entry::Dropped { name: name.to_owned(), at: Utc::now() }).await? {
                return Ok(());
            }
        }
    }

    /// Makes a dimension's stored rows the current ones. Returns the objects nobody reads any more.
    pub(super) async fn load_dimension(
        &mut self,
        name: &str,
        dimension: Dimension,
    ) -> Result<Vec<(String, String)>, RegistryError> {
        let columns = dimension.schema.fields().iter();
        let columns: Vec<_> = columns.map(|f| (f.name().clone(), f.data_type().to_string())).collect();
        loop {
            self.refresh().await?;
            if self.views.contains_key(name) {
                return Err(RegistryError::NameTaken(name.to_owned(), "view"));
            }
            let mut changed = self.dimensions.clone();
            changed.0.insert(name.to_owned(), Arc::new(dimension.clone()));
            for (view, generation) in self.joining(name) {
                let problem = match planned(&generation.sql, &changed) {
                    Ok((_, _, plan)) if plan.schema == generation.plan.schema => continue,
                    Ok(_) => "a column it shows would be of another type".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(RegistryError::InUse { view, dimension: name.to_owned(), problem });
            }
            let outdated = self.outdated.get(name).map(|objects| objects.clone().into_iter().collect());
            let entry = Entry::DimensionLoaded {
                name: name.to_owned(),
                columns: columns.clone(),
                objects: dimension.objects.clone(),
                rows: dimension.rows,
                shared: dimension.shared,
                at: Utc::now(),
            };
            if self.append(&entry).await? {
                return Ok(outdated.unwrap_or_default());
            }
        }
    }

    /// Removes a dimension that no view joins.
    pub async fn drop_dimension(&mut self, name: &str) -> Result<(), RegistryError> {
        loop {
            self.refresh().await?;
            if self.dimensions.get(name).is_none() {
                return Err(RegistryError::UnknownDimension(name.to_owned()));
            }
            if let Some((view, _)) = self.joining(name).next() {
                let problem = "drop the view first".to_owned();
                return Err(RegistryError::InUse { view, dimension: name.to_owned(), problem });
            }
            if self.append(&Entry::DimensionDropped { name: name.to_owned(), at: Utc::now() }).await? {
                return Ok(());
            }
        }
    }

    /// Definitions that join a dimension, with their views' names.
    fn joining<'a>(&'a self, dimension: &'a str) -> impl Iterator<Item = (String, &'a Arc<Generation>)> {
        self.generations()
            .filter(move |g| g.plan.dimension.as_ref().is_some_and(|d| d.name == dimension))
            .map(|g| (g.plan.name.clone(), g))
    }

    /// Says that a region and shard have taken a view's history in.
    pub async fn ready(&mut self, table: &str, region: &str, shard: u32) -> Result<(), RegistryError> {
        loop {
            self.refresh().await?;
            let done = (region.to_owned(), shard);
            let open = self.generations().any(|g| g.table == table && !g.ready.contains(&done));
            let entry = Entry::Ready { table: table.to_owned(), region: region.to_owned(), shard, at: Utc::now() };
            if !open || self.append(&entry).await? {
                return Ok(());
            }
        }
    }

    /// False if somebody else was faster; then the reason for the entry is to be looked at again.
    async fn append(&mut self, entry: &Entry) -> Result<bool, RegistryError> {
        let problem = |e: serde_json::Error| RegistryError::Entry { number: self.next, problem: e.to_string() };
        let bytes = serde_json::to_vec_pretty(entry).map_err(problem)?;
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(&path(self.next), bytes.into(), options).await {
            Ok(_) => {
                self.refresh().await?;
                Ok(true)
            }
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn apply(&mut self, entry: Entry) -> Result<(), RegistryError> {
        match entry {
            Entry::Created { name, sql, table, regions, shards, built_in, at } => {
                let (_, _, mut plan) = planned(&sql, &self.dimensions)?;
                plan.table.clone_from(&table);
                let generation =
                    Generation { plan, sql, table, regions, shards, built_in, created_at: at, ready: BTreeSet::new() };
                let view = self.views.entry(name).or_insert(View { current: None, next: None });
                if let Some(unfinished) = view.next.replace(Arc::new(generation)) {
                    self.retired.add(&unfinished, at);
                }
            }
            Entry::Dropped { name, at } => {
                if let Some(view) = self.views.remove(&name) {
                    self.retired.add_all(&view, at);
                }
            }
            Entry::Ready { table, region, shard, at } => {
                for view in self.views.values_mut() {
                    let Some(next) = view.next.as_ref().filter(|g| g.table == table) else { continue };
                    let mut generation = Generation::clone(next);
                    generation.ready.insert((region.clone(), shard));
                    let generation = Arc::new(generation);
                    match generation.is_ready() {
                        true => {
                            view.next = None;
                            if let Some(before) = view.current.replace(generation) {
                                self.retired.add(&before, at);
                            }
                        }
                        false => view.next = Some(generation),
                    }
                }
            }
            Entry::DimensionLoaded { name, columns, objects, rows, shared, .. } => {
                let fields = columns.into_iter().map(|(column, text)| {
                    let kind: DataType = text.parse().map_err(|e| RegistryError::Entry {
                        number: self.next,
                        problem: format!("column {column:?}: {e}"),
                    })?;
                    Ok(Field::new(column, kind, true))
                });
                let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>, RegistryError>>()?));
                let dimension = Dimension { schema, objects, rows, shared };
                if let Some(before) = self.dimensions.0.insert(name.clone(), Arc::new(dimension)) {
                    self.outdated.insert(name.clone(), before.objects.clone());
                }
                self.plan_again(&name)?;
            }
            Entry::DimensionDropped { name, .. } => {
                self.dimensions.0.remove(&name);
            }
        }
        Ok(())
    }

    /// Views that join a dimension may use its new columns' types.
    fn plan_again(&mut self, dimension: &str) -> Result<(), RegistryError> {
        let slots = self.views.values_mut().flat_map(|view| view.current.iter_mut().chain(&mut view.next));
        for slot in slots.filter(|g| g.plan.dimension.as_ref().is_some_and(|d| d.name == dimension)) {
            let (_, _, mut plan) = planned(&slot.sql, &self.dimensions)?;
            plan.table.clone_from(&slot.table);
            *slot = Arc::new(Generation { plan, ..Generation::clone(slot) });
        }
        Ok(())
    }
}

/// The table's name without the number of a rebuild.
fn base_of(table: &str) -> &str {
    match table.rsplit_once('_') {
        Some((base, number)) if number.len() < 8 && number.parse::<u64>().is_ok() => base,
        _ => table,
    }
}

fn planned(sql: &str, dimensions: &DimensionSet) -> Result<(String, bool, ViewPlan), ViewError> {
    match parse(sql)? {
        ViewStatement::Create { name, or_replace, options, query, .. } => {
            let plan = ViewPlan::new(&name, &query, options, dimensions)?;
            Ok((name, or_replace, plan))
        }
        _ => Err(ViewError::Syntax("expected CREATE MATERIALIZED VIEW".to_owned())),
    }
}

fn path(number: u64) -> Path {
    Path::from(format!("_views/{number:020}.json"))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    const ONE: &str =
        "CREATE MATERIALIZED VIEW v AS SELECT feature, count(*) AS n FROM product_events GROUP BY feature";

    fn registry(dir: &tempfile::TempDir) -> ViewRegistry {
        let url = Url::from_directory_path(dir.path()).unwrap();
        ViewRegistry::new(&Storage::open(&url, &BTreeMap::new()).unwrap())
    }

    fn regions() -> BTreeSet<String> {
        BTreeSet::from(["eu".to_owned(), "us".to_owned()])
    }

    #[tokio::test]
    async fn a_changed_view_takes_over_when_all_are_ready() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = registry(&dir);
        assert!(registry.create(ONE, regions(), 1, false, false).await.unwrap());
        assert!(!registry.create(ONE, regions(), 1, false, false).await.unwrap(), "the same again is nothing");
        let changed = ONE.replace("count(*)", "count(DISTINCT user_id)");
        let refused = registry.create(&changed, regions(), 1, false, false).await;
        assert!(matches!(refused, Err(RegistryError::Exists(name)) if name == "v"));
        let first = registry.views()["v"].next.as_ref().unwrap().table.clone();
        for region in ["eu", "us"] {
            assert!(registry.views()["v"].current.is_none());
            registry.ready(&first, region, 0).await.unwrap();
        }
        assert_eq!(registry.views()["v"].current.as_ref().unwrap().table, first);
        let changed = changed.replace("CREATE", "CREATE OR REPLACE");
        registry.create(&changed, regions(), 1, false, false).await.unwrap();
        let view = &registry.views()["v"];
        let second = view.next.as_ref().unwrap().table.clone();
        assert_eq!(view.current.as_ref().unwrap().table, first, "the old one is read until the new one is ready");
        registry.ready(&second, "us", 0).await.unwrap();
        registry.ready(&second, "eu", 0).await.unwrap();
        assert_eq!(registry.views()["v"].current.as_ref().unwrap().table, second);
    }

    #[tokio::test]
    async fn two_writers_see_one_history_and_a_dropped_view_starts_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let (mut a, mut b) = (registry(&dir), registry(&dir));
        a.create(ONE, regions(), 1, false, false).await.unwrap();
        assert!(!b.create(ONE, regions(), 1, false, false).await.unwrap());
        let first = b.views()["v"].next.as_ref().unwrap().table.clone();
        b.drop_view("v").await.unwrap();
        assert!(matches!(a.drop_view("v").await, Err(RegistryError::Unknown(_))));
        a.create(ONE, regions(), 1, false, false).await.unwrap();
        assert_ne!(
            a.views()["v"].next.as_ref().unwrap().table,
            first,
            "old state must not be taken for the new view's"
        );
    }
}
