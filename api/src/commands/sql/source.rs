//! Who answers a statement: a query server over HTTP, or an engine of our own over the storage.

use std::{collections::VecDeque, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use arrow::{array::RecordBatch, buffer::Buffer, datatypes::SchemaRef, ipc::reader::StreamDecoder};
use companyos_pipelines::WorkerSetup;
use companyos_query::QueryEngine;
use companyos_schemas::access::Scope;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use serde_json::{Value, json};

use crate::config::Config;

/// Where answers come from.
pub enum Source {
    Server { client: reqwest::Client, url: String, token: String },
    Storage { engine: Arc<QueryEngine>, scope: Scope },
}

/// An answer on its way.
pub struct Answer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows; an error after rows means that what came before is right but not all there is.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

impl Source {
    /// A server's `POST /v1/sql`.
    pub fn server(url: String, token: String) -> Self {
        Source::Server { client: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned(), token }
    }

    /// The storage, with the isolation and limits that a server would apply.
    pub fn storage(config: &Config, scope: Scope) -> Result<Self> {
        let storages = WorkerSetup::storages(&config.tenancy)?;
        let engine = QueryEngine::new(config.query.clone(), config.shared_tenancy(), storages)?;
        Ok(Source::Storage { engine: Arc::new(engine), scope })
    }

    /// Runs one statement.
    pub async fn ask(&self, sql: &str) -> Result<Answer> {
        match self {
            Source::Storage { engine, scope } => {
                let result = engine.query(scope, sql, Vec::new()).await?;
                Ok(Answer { schema: result.schema, batches: result.rows.map_err(anyhow::Error::from).boxed() })
            }
            Source::Server { client, url, token } => {
                let request = client.post(format!("{url}/v1/sql")).bearer_auth(token).header("accept", ARROW_STREAM);
                let response = request
                    .json(&json!({ "sql": sql }))
                    .send()
                    .await
                    .with_context(|| format!("no answer from {url}"))?;
                let status = response.status();
                if !status.is_success() {
                    bail!(problem(status, &response.text().await.unwrap_or_default()));
                }
                decode(response).await
            }
        }
    }
}

/// What an RFC 9457 problem says, for people.
fn problem(status: reqwest::StatusCode, body: &str) -> String {
    let fields: Value = serde_json::from_str(body).unwrap_or_default();
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    match field("detail").or_else(|| field("title")) {
        Some(text) => text.to_owned(),
        None => format!("the server answered {status}"),
    }
}

/// Arrow IPC as it arrives: the schema first, then batch after batch.
async fn decode(response: reqwest::Response) -> Result<Answer> {
    let mut state = Decoding {
        chunks: response.bytes_stream().map_err(anyhow::Error::from).boxed(),
        decoder: StreamDecoder::new(),
        ready: VecDeque::new(),
        ended: false,
    };
    while state.decoder.schema().is_none() && state.ready.is_empty() && state.read().await? {}
    let schema = state.decoder.schema().ok_or_else(|| anyhow!("the answer ended before its schema"))?;
    let batches = futures::stream::try_unfold(state, |mut state| async move {
        while state.ready.is_empty() && state.read().await? {}
        Ok(state.ready.pop_front().map(|batch| (batch, state)))
    });
    Ok(Answer { schema, batches: batches.boxed() })
}

struct Decoding {
    chunks: BoxStream<'static, Result<axum::body::Bytes>>,
    decoder: StreamDecoder,
    ready: VecDeque<RecordBatch>,
    ended: bool,
}

impl Decoding {
    /// Takes in one chunk; false at the end.
    async fn read(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let Some(chunk) = self.chunks.next().await else {
            self.ended = true;
            // An answer that breaks off must not pass for a short one.
            self.decoder.finish().context("the answer was cut off")?;
            return Ok(false);
        };
        let mut buffer = Buffer::from(chunk.context("the answer was cut off")?);
        while !buffer.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut buffer)? {
                self.ready.push_back(batch);
            }
        }
        Ok(true)
    }
}
