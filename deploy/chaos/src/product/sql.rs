//! Questions to the query server, as an analyst asks them: over HTTP with a tenant's token.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::Deployment;

/// A row by column.
pub(crate) type Row = Map<String, Value>;

/// What the server says of tables and views that will be there.
const EARLY: [&str; 2] = ["not found", "is being built"];

impl Deployment {
    /// All rows of the answer.
    pub(crate) async fn ask(&self, tenant: &str, sql: &str) -> Result<Vec<Row>> {
        self.answer(tenant, sql).await?.map_err(|problem| anyhow::anyhow!("{problem}\n{sql}"))
    }

    /// All rows, or none while a table is not there or a view is being built.
    pub(crate) async fn ask_early(&self, tenant: &str, sql: &str) -> Result<Option<Vec<Row>>> {
        match self.answer(tenant, sql).await? {
            Ok(rows) => Ok(Some(rows)),
            Err(problem) if EARLY.iter().any(|text| problem.contains(text)) => Ok(None),
            Err(problem) => bail!("{problem}\n{sql}"),
        }
    }

    /// The first column of the only row.
    pub(crate) async fn number(&self, tenant: &str, sql: &str) -> Result<i64> {
        let rows = self.ask(tenant, sql).await?;
        let value = rows.first().and_then(|row| row.values().next());
        value.and_then(Value::as_i64).with_context(|| format!("no number: {sql}"))
    }

    async fn answer(&self, tenant: &str, sql: &str) -> Result<Result<Vec<Row>, String>> {
        let token = self.tokens.get(tenant).with_context(|| format!("no token of {tenant}"))?;
        let request = self.client.post(&self.url).bearer_auth(token).json(&serde_json::json!({ "sql": sql }));
        let response = request.send().await.context("asking the query server")?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("{status} without JSON"))?;
        if !status.is_success() || body.get("error").is_some() {
            return Ok(Err(format!("{status} {body}")));
        }
        if body["truncated"] != false {
            bail!("the answer is cut: {sql}");
        }
        let rows = body["rows"].as_array().cloned().unwrap_or_default();
        let objects = rows.into_iter().filter_map(|row| match row {
            Value::Object(row) => Some(row),
            _ => None,
        });
        Ok(Ok(objects.collect()))
    }
}
