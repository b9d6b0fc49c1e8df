//! Whether two engines gave the same answer: rows compared as a multiset, whatever their order and way of writing.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An answer's rows, each value in one way of writing.
pub type Rows = Vec<Vec<String>>;

/// How two answers compare.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// Rows of ours.
    pub ours: usize,
    /// Rows of Flink's.
    pub flink: usize,
    /// Rows that the other does not have, ours and Flink's together.
    pub different: usize,
    /// One of them of each side, for a look.
    pub examples: Vec<String>,
}

impl Comparison {
    /// Whether the answers are the same, and say anything.
    pub fn agrees(&self) -> bool {
        self.different == 0 && self.ours > 0
    }
}

/// Reads one answer of `companyos sql --format csv`.
pub fn from_csv(path: &Path) -> Result<Rows> {
    let mut reader = csv::Reader::from_path(path).with_context(|| path.display().to_string())?;
    reader.records().map(|record| Ok(record?.iter().map(normal).collect())).collect()
}

/// Reads the answers that job.py wrote, one for each SELECT.
pub fn from_flink(path: &Path) -> Result<Vec<Rows>> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Vec<Vec<Value>>,
    }
    let answers: Vec<Answer> = serde_json::from_slice(&fs::read(path)?).with_context(|| path.display().to_string())?;
    let cell = |value: &Value| match value {
        Value::String(text) => normal(text),
        Value::Null => String::new(),
        other => normal(&other.to_string()),
    };
    Ok(answers.into_iter().map(|a| a.rows.iter().map(|row| row.iter().map(cell).collect()).collect()).collect())
}

/// Compares as multisets.
pub fn compare(ours: &Rows, flink: &Rows) -> Comparison {
    let mut counts: HashMap<&Vec<String>, i64> = HashMap::new();
    for row in ours {
        *counts.entry(row).or_default() += 1;
    }
    for row in flink {
        *counts.entry(row).or_default() -= 1;
    }
    let mut examples = Vec::new();
    for (side, sign) in [("ours", 1), ("Flink", -1)] {
        let alone = counts.iter().filter(|(_, count)| **count * sign > 0).map(|(row, _)| row).min();
        examples.extend(alone.map(|row| format!("only {side}: {}", row.join(" | "))));
    }
    Comparison {
        ours: ours.len(),
        flink: flink.len(),
        different: counts.values().map(|count| usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX)).sum(),
        examples,
    }
}

/// Times as milliseconds since the epoch, numbers to ten digits, texts as they are.
fn normal(text: &str) -> String {
    if let Ok(number) = text.parse::<i64>() {
        return number.to_string();
    }
    if let Ok(number) = text.parse::<f64>() {
        return match number.fract() == 0.0 && number.abs() < 9e15 {
            true => format!("{number:.0}"),
            false => format!("{number:.9e}"),
        };
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_millis().to_string();
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return time.and_utc().timestamp_millis().to_string();
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_same_however_they_are_written_and_ordered() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("ours.csv");
        fs::write(&csv, "window,price,name\n2026-11-25T07:31:56Z,10.0,\n2026-11-25T07:31:58.500Z,0.1,Kate\n").unwrap();
        let json = folder.path().join("flink.json");
        let rows =
            r#"[["2026-11-25 07:31:58.500", 0.10000000000000001, "Kate"], ["2026-11-25 07:31:56.000", 10, null]]"#;
        fs::write(&json, format!(r#"[{{"columns": [], "rows": {rows}}}]"#)).unwrap();
        let (ours, flink) = (from_csv(&csv).unwrap(), from_flink(&json).unwrap());
        assert!(compare(&ours, &flink[0]).agrees(), "{:?}", compare(&ours, &flink[0]));
    }

    #[test]
    fn a_row_too_many_or_a_value_off_is_a_difference() {
        let row = |values: &[&str]| values.iter().map(|v| normal(v)).collect::<Vec<_>>();
        let ours = vec![row(&["1", "a"]), row(&["1", "a"]), row(&["2", "b"])];
        let twice = compare(&ours, &vec![row(&["1", "a"]), row(&["2", "b"])]);
        assert_eq!((twice.different, twice.agrees()), (1, false));
        let off = compare(&ours, &vec![row(&["1", "a"]), row(&["1", "a"]), row(&["2", "c"])]);
        assert_eq!((off.different, off.examples.len()), (2, 2));
        assert!(!compare(&Vec::new(), &Vec::new()).agrees(), "two empty answers prove nothing");
    }
}
