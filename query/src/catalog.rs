//! The catalog of one query: the streams' tables, quarantine and the views, each resolved once and
//! then the same for the query.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use companyos_pipelines::views::{SHARD, Shard, ViewRegistry, ViewTable};
use companyos_schemas::quarantine;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
        TableProvider,
    },
    datasource::TableType,
    error::{DataFusionError, Result},
};
use futures::future::try_join_all;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    error::QueryError,
    root::Root,
    scope_filter::ScopeFilter,
    scoped_table::{ScopedTable, contract, table_names},
    snapshots::{Snapshots, TableVersion},
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
    registry: Arc<ViewRegistry>,
    resolved: HashMap<String, OnceCell<Arc<dyn TableProvider>>>,
    versions: Mutex<Vec<TableVersion>>,
}

impl QueryTables {
    pub fn new(
        regions: Arc<BTreeMap<String, RegionRoots>>,
        snapshots: Arc<Snapshots>,
        scope: ScopeFilter,
        limit: Duration,
        views: Arc<Views>,
        registry: Arc<ViewRegistry>,
    ) -> Self {
        let resolved = names(&registry).into_iter().map(|name| (name, OnceCell::new())).collect();
        Self { regions, snapshots, scope, limit, views, registry, resolved, versions: Mutex::default() }
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
        let state = self.scoped(&generation.table, generation.plan.state_schema.clone()).await?;
        let shard = Shard::of_tenant(self.scope.tenant(), generation.shards);
        let state = state.in_partition(SHARD, &shard.index.to_string());
        let joined = generation.plan.dimension.as_ref().and_then(|d| self.registry.dimensions().get(&d.name));
        let dimension = match joined {
            Some(dimension) => Some(self.views.dimension(dimension, &self.regions, &self.scope).await?),
            None => None,
        };
        Ok(Arc::new(ViewTable { generation, state: Arc::new(state), dimension }))
    }

    /// A Delta table, pinned in every region of the scope.
    async fn scoped(&self, name: &str, schema: SchemaRef) -> Result<ScopedTable, QueryError> {
        let regions = self.scope.roots(name == quarantine::TABLE);
        let roots = regions.iter().filter_map(|region| self.regions.get(region));
        let pins = roots.map(|r| self.snapshots.pin(&r.hot, r.archive.as_ref(), name, self.limit));
        let pinned: Vec<_> = try_join_all(pins).await?.into_iter().flatten().collect();
        self.versions.lock().await.extend(pinned.iter().map(|part| TableVersion {
            table: name.to_owned(),
            region: part.root.region.to_string(),
            archive: part.root.archive,
            version: part.table.version().unwrap_or(0),
        }));
        Ok(ScopedTable::new(name, &schema, &self.scope, pinned))
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
