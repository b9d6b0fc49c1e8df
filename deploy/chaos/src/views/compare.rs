//! A view's answer against the batch query's.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;

use super::definitions::View;
use crate::product::{Deployment, Row};

/// How many rows agree, or what does not.
pub(crate) async fn compare(deployment: &Deployment, tenant: &str, view: &View) -> Result<Result<usize, String>> {
    let read = format!("SELECT {} FROM {}", view.columns, view.name);
    // A view that is being built cannot be asked; it has to be built in the end.
    let Some(ours) = deployment.ask_early(tenant, &read).await? else {
        return Ok(Err("it cannot be read yet".to_owned()));
    };
    let batch = deployment.ask(tenant, view.batch).await?;
    agree(ours, batch, view)
}

fn agree(ours: Vec<Row>, batch: Vec<Row>, view: &View) -> Result<Result<usize, String>> {
    let (ours, batch) = (keyed(ours, view)?, keyed(batch, view)?);
    for (key, row) in &batch {
        let Some(other) = ours.get(key) else {
            return Ok(Err(format!(
                "no row {key}; near it: {:?}",
                ours.range(key.clone()..).next().map(|(key, _)| key)
            )));
        };
        for (column, share) in view.near {
            let (a, b) = (&other[*column], &row[*column]);
            if !is_near(a, b, *share) {
                return Ok(Err(format!("{column} is {a}, in the batch answer {b}: {key}")));
            }
        }
    }
    match ours.keys().find(|key| !batch.contains_key(*key)) {
        Some(key) => Ok(Err(format!("a row that the batch answer does not have: {key}"))),
        None => Ok(Ok(batch.len())),
    }
}

/// Rows by all that must be the same.
fn keyed(rows: Vec<Row>, view: &View) -> Result<BTreeMap<String, Row>> {
    let mut keyed = BTreeMap::new();
    for row in rows {
        let exact = view.columns.split(", ").filter(|column| !view.near.iter().any(|(near, _)| near == column));
        let key: Vec<String> = exact.map(|column| format!("{column}={}", exactly(&row[column]))).collect();
        let key = key.join(" ");
        if keyed.contains_key(&key) {
            bail!("{}: two rows {key}", view.name);
        }
        keyed.insert(key, row);
    }
    Ok(keyed)
}

/// 3 and 3.0 are the same number.
fn exactly(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => number.to_string(),
        None => value.to_string(),
    }
}

fn is_near(a: &Value, b: &Value, share: f64) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= share * a.abs().max(b.abs()) + f64::EPSILON,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VIEW: View =
        View { name: "v", create: None, columns: "feature, events, users", batch: "", near: &[("users", 0.02)] };

    fn rows(of: &[(&str, u32, f64)]) -> Vec<Row> {
        let row = |(feature, events, users): &(&str, u32, f64)| {
            Row::from_iter([
                ("feature".to_owned(), json!(feature)),
                ("events".to_owned(), json!(events)),
                ("users".to_owned(), json!(users)),
            ])
        };
        of.iter().map(row).collect()
    }

    #[test]
    fn what_differs_is_told_and_what_is_near_is_not() {
        let batch = [("a", 3, 100.0), ("b", 5, 10.0)];
        let told = |ours: &[(&str, u32, f64)]| agree(rows(ours), rows(&batch), &VIEW).unwrap();
        assert_eq!(told(&[("b", 5, 10.0), ("a", 3, 101.5)]), Ok(2));
        for ours in [
            &[("a", 3, 100.0)][..],
            &[("a", 3, 100.0), ("b", 6, 10.0)],
            &[("a", 3, 103.0), ("b", 5, 10.0)],
            &[("a", 3, 100.0), ("b", 5, 10.0), ("c", 1, 1.0)],
        ] {
            assert!(told(ours).is_err(), "{ours:?}");
        }
        let twice = [("a", 3, 100.0), ("a", 3, 100.0)];
        assert!(agree(rows(&twice), rows(&batch), &VIEW).is_err(), "a row twice");
    }
}
