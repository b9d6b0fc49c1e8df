//! Dimensions: small tables that describe what events name, loaded whole and joined by views.
//!
//! A dimension is one Parquet object, or one a region if it has a `region` column, below
//! `_dimensions/` of the storage whose rows they are; the registry of views says which is current.
//! So loading one again replaces it for every reader at once.
//!
//! Promises:
//! - A dimension with a `tenant` column shows every tenant its own rows; one without must be loaded as
//!   shared, in so many words. `env` and `region` columns limit in the same way.
//! - Rows of a region are stored in that region only.
//! - A dimension that views join cannot lose or change a column they use, nor be dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    compute::{cast, concat_batches, filter_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use bytes::Bytes;
use companyos_schemas::{Stream, quarantine};
use companyos_sinks::storage::Storage;
use companyos_views::Dimensions;
use object_store::{ObjectStoreExt, path::Path};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use uuid::Uuid;

use super::registry::{RegistryError, ViewRegistry};

/// A dimension as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Its columns.
    pub schema: SchemaRef,
    /// Where its rows are: paths by region.
    pub objects: BTreeMap<String, String>,
    /// Rows.
    pub rows: u64,
    /// Whether every tenant may see all of it.
    pub shared: bool,
}

impl Dimension {
    /// Objects, with their regions, whose rows may describe events of some regions: those regions'
    /// own. Rows without a region lie in the home region and are for all.
    pub fn objects_for(&self, reads: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, &str)> {
        let everywhere = self.schema.field_with_name("region").is_err();
        let objects = self.objects.iter().map(|(region, path)| (region.as_str(), path.as_str()));
        objects.filter(move |(region, _)| everywhere || reads(region))
    }
}

/// The dimensions by name.
#[derive(Debug, Clone, Default)]
pub struct DimensionSet(pub(super) BTreeMap<String, Arc<Dimension>>);

impl DimensionSet {
    /// A dimension.
    pub fn get(&self, name: &str) -> Option<&Arc<Dimension>> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Dimension>)> {
        self.0.iter().map(|(name, dimension)| (name.as_str(), dimension))
    }
}

impl Dimensions for DimensionSet {
    fn schema(&self, name: &str) -> Option<SchemaRef> {
        self.0.get(name).map(|dimension| dimension.schema.clone())
    }
}

/// Why a dimension cannot be loaded or read.
#[derive(Debug, thiserror::Error)]
pub enum DimensionError {
    /// The name is taken or is none.
    #[error("dimension {name:?}: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A column that cannot be kept.
    #[error("column {column:?}: {problem}")]
    Column {
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More than is kept in memory by every reader.
    #[error("{what} of {found} is over the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much there may be.
        limit: usize,
    },
    /// A region that the tenancy does not have.
    #[error("row {row}: there is no region {region:?}")]
    Region {
        /// Row, from 1.
        row: usize,
        /// What it says.
        region: String,
    },
    /// An object that cannot be written or read.
    #[error("dimension object {path}: {problem}")]
    Object {
        /// Path.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The store failed; trying again may help.
    #[error("dimension: {0}")]
    Store(#[from] object_store::Error),
    /// The registry refused it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Columns that do not fit together.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Bytes a dimension may take in memory: every query process holds it.
pub const MAX_BYTES: usize = 64 << 20;
/// Rows a dimension may have.
pub const MAX_ROWS: usize = 1_000_000;

/// What is to be loaded.
#[derive(Debug)]
pub struct LoadDimension<'a> {
    /// Name in SQL.
    pub name: &'a str,
    /// Its rows.
    pub rows: &'a [RecordBatch],
    /// Said by whoever loads it: every tenant may see all rows.
    pub shared: bool,
    /// Where rows without a region are stored.
    pub home_region: &'a str,
    /// Storage by region.
    pub storages: &'a BTreeMap<String, Storage>,
}

impl LoadDimension<'_> {
    /// Stores the rows and makes them the current ones. Returns how many there are.
    pub async fn run(self, registry: &mut ViewRegistry) -> Result<u64, DimensionError> {
        check_name(self.name)?;
        let Some(first) = self.rows.first() else {
            return Err(DimensionError::Name { name: self.name.to_owned(), problem: "has no rows".to_owned() });
        };
        let rows = plain(&concat_batches(&first.schema(), self.rows)?)?;
        check_size("rows", rows.num_rows(), MAX_ROWS)?;
        check_size("bytes in memory", rows.get_array_memory_size(), MAX_BYTES)?;
        self.check_scope(&rows)?;
        let dimension = Dimension {
            schema: rows.schema(),
            objects: self.store(&rows).await?,
            rows: rows.num_rows() as u64,
            shared: self.shared,
        };
        match registry.load_dimension(self.name, dimension).await {
            Ok(outdated) => {
                remove(self.storages, outdated).await;
                Ok(rows.num_rows() as u64)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_scope(&self, rows: &RecordBatch) -> Result<(), DimensionError> {
        let refuse = |column: &str, problem: &str| {
            Err(DimensionError::Column { column: column.to_owned(), problem: problem.to_owned() })
        };
        match (rows.column_by_name("tenant"), self.shared) {
            (None, false) => {
                return refuse("tenant", "is missing: name each row's tenant, or load the dimension as shared");
            }
            (Some(_), true) => return refuse("tenant", "says whose rows they are, so they are not shared"),
            _ => {}
        }
        for column in SCOPE {
            let Some(values) = rows.column_by_name(column) else { continue };
            if values.data_type() != &DataType::Utf8 {
                return refuse(column, "must be text");
            }
            if values.null_count() > 0 {
                return refuse(column, "has empty values: such rows would be nobody's");
            }
        }
        Ok(())
    }

    async fn store(&self, rows: &RecordBatch) -> Result<BTreeMap<String, String>, DimensionError> {
        let mut parts: BTreeMap<String, RecordBatch> = BTreeMap::new();
        match rows.column_by_name("region").and_then(|c| c.as_string_opt::<i32>()) {
            None => {
                parts.insert(self.home_region.to_owned(), rows.clone());
            }
            Some(regions) => {
                let named: BTreeSet<&str> = regions.iter().flatten().collect();
                for region in named {
                    if !self.storages.contains_key(region) {
                        let row = regions.iter().position(|r| r == Some(region)).map_or(0, |row| row + 1);
                        return Err(DimensionError::Region { row, region: region.to_owned() });
                    }
                    let keep: BooleanArray = regions.iter().map(|r| Some(r == Some(region))).collect();
                    parts.insert(region.to_owned(), filter_record_batch(rows, &keep)?);
                }
            }
        }
        let attempt = Uuid::now_v7();
        let mut objects = BTreeMap::new();
        for (region, rows) in parts {
            let path = format!("_dimensions/{}/{attempt}.parquet", self.name);
            let Some(storage) = self.storages.get(&region) else {
                return Err(DimensionError::Region { row: 0, region });
            };
            let bytes =
                encode(&rows).map_err(|e| DimensionError::Object { path: path.clone(), problem: e.to_string() })?;
            storage.store().put(&Path::from(path.as_str()), bytes.into()).await?;
            objects.insert(region, path);
        }
        Ok(objects)
    }
}

/// Takes a person's rows out of every dimension that names people; names and rows of those changed.
pub async fn erase_from_dimensions(
    registry: &mut ViewRegistry,
    home_region: &str,
    storages: &BTreeMap<String, Storage>,
    tenant: &str,
    user: &str,
) -> Result<Vec<(String, u64)>, DimensionError> {
    let mut changed = Vec::new();
    for (name, dimension) in registry.dimensions().clone().iter() {
        let columns = ["user_id", "actor"].into_iter().filter(|c| dimension.schema.field_with_name(c).is_ok());
        let columns: Vec<&str> = columns.collect();
        if columns.is_empty() {
            continue;
        }
        let (mut kept, mut before) = (Vec::new(), 0);
        for (region, path) in &dimension.objects {
            let Some(storage) = storages.get(region) else { continue };
            let rows = Dimension::read(storage, path).await?;
            before += rows.num_rows();
            kept.push(without(&rows, &columns, tenant, user)?);
        }
        let after: usize = kept.iter().map(RecordBatch::num_rows).sum();
        if after == before {
            continue;
        }
        let load = LoadDimension { name, rows: &kept, shared: dimension.shared, home_region, storages };
        load.run(registry).await?;
        let old = dimension.objects.iter().map(|(region, path)| (region.clone(), path.clone()));
        remove(storages, old.collect()).await;
        changed.push((name.to_owned(), (before - after) as u64));
    }
    Ok(changed)
}

fn without(rows: &RecordBatch, columns: &[&str], tenant: &str, user: &str) -> Result<RecordBatch, DimensionError> {
    let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
    let tenants = text("tenant");
    let is_gone = |row: usize| {
        let is = |values: &StringArray, wanted: &str| !values.is_null(row) && values.value(row) == wanted;
        tenants.is_none_or(|tenants| is(tenants, tenant))
            && columns.iter().filter_map(|c| text(c)).any(|values| is(values, user))
    };
    let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(!is_gone(row))).collect();
    Ok(filter_record_batch(rows, &keep)?)
}

/// One that stays behind does no harm: nothing names it.
async fn remove(storages: &BTreeMap<String, Storage>, objects: Vec<(String, String)>) {
    for (region, path) in objects {
        let Some(storage) = storages.get(&region) else { continue };
        if let Err(error) = storage.store().delete(&Path::from(path.as_str())).await {
            tracing::warn!(path, %error, "an old dimension object stays");
        }
    }
}

impl Dimension {
    /// Rows of one region's object.
    pub async fn read(storage: &Storage, path: &str) -> Result<RecordBatch, DimensionError> {
        let bytes = storage.store().get(&Path::from(path)).await?.bytes().await?;
        let problem =
            |e: &dyn std::fmt::Display| DimensionError::Object { path: path.to_owned(), problem: e.to_string() };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| problem(&e))?;
        let schema = reader.schema().clone();
        let batches = reader.build().map_err(|e| problem(&e))?.collect::<Result<Vec<_>, _>>()?;
        Ok(concat_batches(&schema, &batches)?)
    }
}

/// Columns that say whose a row is.
const SCOPE: [&str; 3] = ["tenant", "env", "region"];

fn check_name(name: &str) -> Result<(), DimensionError> {
    let refuse = |problem: &str| Err(DimensionError::Name { name: name.to_owned(), problem: problem.to_owned() });
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty()
        || name.len() > 60
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(word)
    {
        return refuse("is not a name: lower-case letters, digits and _, at most 60, a letter first");
    }
    let outputs = ["slo_burn", "slo_alerts", crate::alerts::TABLE, companyos_detect::TABLE, quarantine::TABLE];
    if name.parse::<Stream>().is_ok() || outputs.contains(&name) {
        return refuse("is a table's name");
    }
    Ok(())
}

fn check_size(what: &'static str, found: usize, limit: usize) -> Result<(), DimensionError> {
    match found > limit {
        true => Err(DimensionError::TooLarge { what, found, limit }),
        false => Ok(()),
    }
}

/// The rows in the few types that views work with.
fn plain(rows: &RecordBatch) -> Result<RecordBatch, DimensionError> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let refuse = |problem: String| DimensionError::Column { column: field.name().clone(), problem };
        if field.name().is_empty() || fields.iter().any(|f: &Field| f.name() == field.name()) {
            return Err(refuse("needs a name of its own".to_owned()));
        }
        let kept = kept_type(field.data_type()).ok_or_else(|| refuse(format!("is of type {}", field.data_type())))?;
        columns.push(match kept {
            // A column without any value.
            DataType::Utf8 if field.data_type() == &DataType::Null => Arc::new(StringArray::new_null(column.len())),
            _ => cast(column, &kept)?,
        });
        fields.push(Field::new(field.name(), kept, true));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn kept_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Dictionary(_, value) => kept_type(value)?,
        DataType::Boolean => DataType::Boolean,
        t if t.is_integer() && *t != DataType::UInt64 => DataType::Int64,
        t if t.is_floating() => DataType::Float64,
        DataType::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        _ => return None,
    })
}

fn encode(rows: &RecordBatch) -> Result<Bytes, parquet::errors::ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.close()?;
    Ok(bytes.into())
}
