//! A result as it streams: capped, timed, counted, cancelled when nobody reads it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use arrow::{
    array::{Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{error::DataFusionError, execution::SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
    time::{Sleep, sleep_until},
};

use crate::{
    config::QueryConfig,
    error::{Cut, QueryError},
};

/// Batches of a result. Ends after the first error; [`QueryError::Truncated`] means that the rows
/// before it are right but not all there are. Dropping it cancels the query.
pub struct RowStream {
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: JoinHandle<()>,
    deadline: Pin<Box<Sleep>>,
    timeout_seconds: f64,
    done: bool,
    watch: Watch,
}

/// Batches that may wait for a slow reader.
const WAITING_BATCHES: usize = 2;

impl RowStream {
    /// Starts the plan's stream in a task of its own, so that a step that takes long cannot keep
    /// the timeout from being answered.
    pub(crate) fn start(
        mut rows: SendableRecordBatchStream,
        schema: SchemaRef,
        config: &QueryConfig,
        deadline: tokio::time::Instant,
        watch: Watch,
    ) -> Self {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let mut caps = Caps { rows: config.max_rows, bytes: config.max_bytes, used_rows: 0, used_bytes: 0 };
        let task = tokio::spawn(async move {
            while let Some(batch) = rows.next().await {
                let batch = batch.and_then(|batch| plain(&batch, &schema)).map_err(QueryError::from);
                let (batch, end) = match batch {
                    Ok(batch) => caps.take(batch),
                    Err(error) => (None, Some(error)),
                };
                for item in batch.map(Ok).into_iter().chain(end.clone().map(Err)) {
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
                if end.is_some() {
                    return;
                }
            }
        });
        Self {
            batches,
            task,
            deadline: Box::pin(sleep_until(deadline)),
            timeout_seconds: config.statement_timeout_seconds,
            done: false,
            watch,
        }
    }
}

impl Stream for RowStream {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let item = match this.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Some(Err(QueryError::Timeout { seconds: this.timeout_seconds })),
            Poll::Pending => match ready!(this.batches.poll_recv(cx)) {
                None if !this.task.is_finished() || this.task_ended(cx) => None,
                None => Some(Err(QueryError::Internal)),
                item => item,
            },
        };
        match &item {
            Some(Ok(batch)) => this.watch.rows += batch.num_rows() as u64,
            Some(Err(error)) => this.finish(error.kind()),
            None => this.finish("ok"),
        }
        Poll::Ready(item)
    }
}

impl RowStream {
    /// Whether the task came to its end rather than being stopped by a panic.
    fn task_ended(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(Pin::new(&mut self.task).poll(cx), Poll::Ready(Ok(())) | Poll::Pending)
    }

    fn finish(&mut self, outcome: &'static str) {
        self.done = true;
        self.watch.outcome = outcome;
        self.task.abort();
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Caps {
    rows: u64,
    bytes: u64,
    used_rows: u64,
    used_bytes: u64,
}

impl Caps {
    /// What of a batch still fits, and the error that ends the result if not all of it does.
    fn take(&mut self, batch: RecordBatch) -> (Option<RecordBatch>, Option<QueryError>) {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return (None, None);
        }
        let bytes = size_of(&batch);
        let fit_rows = rows.min(self.rows - self.used_rows);
        // Rows of one batch are taken as equally long; the cap is a guard, not an invoice.
        let fit_bytes = match bytes <= self.bytes - self.used_bytes {
            true => rows,
            false => rows * (self.bytes - self.used_bytes) / bytes.max(1),
        };
        let fit = fit_rows.min(fit_bytes);
        self.used_rows += fit;
        self.used_bytes = (self.used_bytes + bytes * fit / rows).min(self.bytes);
        let cut = match fit {
            fit if fit == rows => None,
            fit if fit == fit_rows => Some(QueryError::Truncated(Cut::Rows(self.rows))),
            _ => Some(QueryError::Truncated(Cut::Bytes(self.bytes))),
        };
        ((fit > 0).then(|| batch.slice(0, fit as usize)), cut)
    }
}

/// Bytes of the rows a batch shows, not of the buffers it shares.
fn size_of(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0));
    sizes.sum::<usize>() as u64
}

/// The schema clients get: views as the plain types every Arrow reader knows.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        Field::new(field.name(), data_type, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(column.clone()),
        false => cast(column, field.data_type()),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Counts a query from its start to its end, whichever way it ends, and holds its place among
/// the tenant's queries.
#[derive(Debug)]
pub(crate) struct Watch {
    started: Instant,
    outcome: &'static str,
    rows: u64,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    pub fn start(place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("companyos_queries_in_flight").increment(1.0);
        Self { started: Instant::now(), outcome: "cancelled", rows: 0, _place: place }
    }

    /// Ends a query that has no rows to stream.
    pub fn fail(mut self, error: &QueryError) {
        self.outcome = error.kind();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        metrics::gauge!("companyos_queries_in_flight").decrement(1.0);
        metrics::counter!("companyos_query_rows_total").increment(self.rows);
        metrics::histogram!("companyos_query_seconds", "outcome" => self.outcome)
            .record(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from_iter_values(0..rows))]).unwrap()
    }

    #[test]
    fn a_result_of_exactly_the_cap_is_whole_and_one_row_more_is_cut() {
        let caps = || Caps { rows: 10, bytes: 1 << 20, used_rows: 0, used_bytes: 0 };
        let mut exact = caps();
        assert!(exact.take(batch(4)).1.is_none());
        let (last, cut) = exact.take(batch(6));
        assert_eq!((last.unwrap().num_rows(), cut.is_none()), (6, true));
        let (nothing, cut) = exact.take(batch(1));
        assert!(nothing.is_none());
        assert!(matches!(cut, Some(QueryError::Truncated(Cut::Rows(10)))));
    }

    #[test]
    fn bytes_are_counted_by_rows_shown() {
        let mut caps = Caps { rows: 1000, bytes: 80, used_rows: 0, used_bytes: 0 };
        let (kept, cut) = caps.take(batch(100).slice(10, 20));
        assert_eq!(kept.unwrap().num_rows(), 10);
        assert!(matches!(cut, Some(QueryError::Truncated(Cut::Bytes(80)))));
    }
}
