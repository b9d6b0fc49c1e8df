//! The catalog of one query: the streams' tables, quarantine and the views, each resolved once and
//! then the same for the query.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use companyos_pipelines::views::{SHARD, Shard, ViewRegistry, ViewTable};
use companyos_schemas::quarantine;
use companyos_views::HeldRows;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
        TableProvider,
    },
    datasource::{MemTable, TableType},
    error::{DataFusionError, Result},
};
use futures::future::{join_all, try_join_all};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    error::QueryError,
    held::{HeldViews, Wanted},
    root::Root,
    scope_filter::ScopeFilter,
    scoped_table::{ScopedTable, contract, table_names},
    snapshots::{Pinned, Snapshots, TableVersion},
    views::{Views, readable},
};

/// Catalog name, the first of three name parts.
pub(crate) const CATALOG: &str = "companyos";
/// Schema name.
pub(crate) const SCHEMA: &str = "public";

/// A region's hot root and archive.
#[derive(Debug, Clone)]
pub(crate) struct RegionRoots {
    pub hot: Arc<Root>,
    pub archive: Option<Arc<Root>>,
}

/// Tables of one query.
#[derive(Debug)]
pub(crate) struct QueryTables {
    regions: Arc<BTreeMap<String, RegionRoots>>,
    snapshots: Arc<Snapshots>,
    scope: ScopeFilter,
    limit: Duration,
    views: Arc<Views>,
    held: Arc<HeldViews>,
    registry: Arc<ViewRegistry>,
    resolved: HashMap<String, OnceCell<Arc<dyn TableProvider>>>,
    /// Rows of tables in memory; [`usize::MAX`] once a table is not.
    rows: AtomicUsize,
    versions: Mutex<Vec<TableVersion>>,
}

impl QueryTables {
    pub fn new(
        regions: Arc<BTreeMap<String, RegionRoots>>,
        snapshots: Arc<Snapshots>,
        scope: ScopeFilter,
        limit: Duration,
        (views, held): (Arc<Views>, Arc<HeldViews>),
        registry: Arc<ViewRegistry>,
    ) -> Self {
        let resolved = names(&registry).into_iter().map(|name| (name, OnceCell::new())).collect();
        Self {
            regions,
            snapshots,
            scope,
            limit,
            views,
            held,
            registry,
            resolved,
            rows: AtomicUsize::new(0),
            versions: Mutex::default(),
        }
    }

    /// Whether everything resolved so far is in memory and has so few rows.
    pub fn has_at_most(&self, rows: usize) -> bool {
        self.rows.load(Ordering::Relaxed) <= rows
    }

    /// Versions of the tables resolved so far, sorted.
    pub async fn versions(&self) -> Vec<TableVersion> {
        let mut versions = self.versions.lock().await.clone();
        versions.sort();
        versions
    }

    async fn resolve(&self, name: &str) -> Result<Arc<dyn TableProvider>, QueryError> {
        if let Some(dimension) = self.registry.dimensions().get(name) {
            return self.views.dimension(dimension, &self.regions, &self.scope).await;
        }
        let Some(view) = self.registry.views().get(name) else {
            let schema = contract(name).ok_or(QueryError::Internal)?;
            return Ok(Arc::new(self.scoped(name, schema).await?));
        };
        let generation = readable(name, view)?;
        let shard = Shard::of_tenant(self.scope.tenant(), generation.shards);
        let partition = (SHARD, shard.index.to_string());
        let wanted = Wanted { generation: generation.clone(), scope: self.scope.clone(), partition };
        let held = self.held(&wanted).await;
        let from = if held.is_some() { "memory" } else { "state" };
        metrics::counter!("companyos_query_views_total", "from" => from).increment(1);
        let state = match held {
            Some(HeldRows::Answer(rows)) => return self.in_memory(&generation.plan.schema, rows),
            Some(HeldRows::State(rows)) => self.in_memory(&generation.plan.state_schema, rows)?,
            None => self.state(&wanted).await?,
        };
        let joined = generation.plan.dimension.as_ref().and_then(|d| self.registry.dimensions().get(&d.name));
        let dimension = match joined {
            Some(dimension) => Some(self.views.dimension(dimension, &self.regions, &self.scope).await?),
            None => None,
        };
        Ok(Arc::new(ViewTable { generation, state, dimension }))
    }

    /// A view's rows from memory, if all regions' are there.
    async fn held(&self, wanted: &Wanted) -> Option<HeldRows> {
        let regions = self.scope.roots(false).iter().filter_map(|region| self.regions.get(region));
        let roots: Vec<&Arc<Root>> = regions.map(|roots| &roots.hot).collect();
        let found = join_all(roots.iter().map(|root| self.held.rows(wanted, root))).await;
        let found = found.into_iter().collect::<Option<Vec<_>>>()?;
        let mut all = HeldRows::none(&wanted.generation.plan);
        for (root, (version, rows)) in roots.into_iter().zip(found) {
            self.note(&wanted.generation.table, root, version).await;
            all.append(rows);
        }
        Some(all)
    }

    fn in_memory(&self, schema: &SchemaRef, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, QueryError> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let add = |rows: usize| Some(rows.saturating_add(count));
        // Never fails: the closure always has an answer.
        let _ = self.rows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Ok(Arc::new(MemTable::try_new(schema.clone(), vec![rows])?))
    }

    /// A view's state, pinned in every region; it is held before long.
    async fn state(&self, wanted: &Wanted) -> Result<Arc<dyn TableProvider>, QueryError> {
        let (table, schema) = (&wanted.generation.table, &wanted.generation.plan.state_schema);
        let pinned = self.pin(table).await?;
        for part in &pinned {
            self.held.take_in(wanted, part);
        }
        let (column, value) = &wanted.partition;
        Ok(Arc::new(ScopedTable::new(table, schema, &self.scope, pinned).in_partition(column, value)))
    }

    /// A Delta table, pinned in every region of the scope.
    async fn scoped(&self, name: &str, schema: SchemaRef) -> Result<ScopedTable, QueryError> {
        let pinned = self.pin(name).await?;
        Ok(ScopedTable::new(name, &schema, &self.scope, pinned))
    }

    async fn pin(&self, name: &str) -> Result<Vec<Pinned>, QueryError> {
        let regions = self.scope.roots(name == quarantine::TABLE);
        let roots = regions.iter().filter_map(|region| self.regions.get(region));
        let pins = roots.map(|r| self.snapshots.pin(&r.hot, r.archive.as_ref(), name, self.limit));
        let pinned: Vec<Pinned> = try_join_all(pins).await?.into_iter().flatten().collect();
        self.rows.store(usize::MAX, Ordering::Relaxed);
        for part in &pinned {
            self.note(name, &part.root, part.table.version().unwrap_or(0)).await;
        }
        Ok(pinned)
    }

    /// Remembers what is read at which version.
    async fn note(&self, table: &str, root: &Root, version: u64) {
        self.versions.lock().await.push(TableVersion {
            table: table.to_owned(),
            region: root.region.to_string(),
            archive: root.archive,
            version,
        });
    }
}

#[async_trait]
impl SchemaProvider for QueryTables {
    fn table_names(&self) -> Vec<String> {
        names(&self.registry)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(cell) = self.resolved.get(name) else { return Ok(None) };
        let table = cell.get_or_try_init(|| self.resolve(name)).await;
        let table = table.map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(Some(table.clone()))
    }

    // Listing tables must not read their logs.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let kind = if self.registry.views().contains_key(name) { TableType::View } else { TableType::Base };
        Ok(self.table_exist(name).then_some(kind))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.resolved.contains_key(name)
    }
}

fn names(registry: &ViewRegistry) -> Vec<String> {
    let mut names: Vec<String> = table_names().map(str::to_owned).collect();
    names.extend(registry.views().keys().cloned());
    names.extend(registry.dimensions().iter().map(|(name, _)| name.to_owned()));
    names
}

/// A catalog list that holds these tables and nothing else.
pub(crate) fn catalog_list(tables: Arc<QueryTables>) -> Result<Arc<dyn CatalogProviderList>> {
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, tables)?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}
