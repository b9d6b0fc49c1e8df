//! The demo as a user runs it: events flow over HTTP into tables, each tenant sees its own rows,
//! refused events can be released, and Ctrl-C ends it with 0.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy allows them in #[test] functions only.

mod process;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use process::{DEADLINE, Process};
use serde_json::Value;

struct Ask<'a> {
    url: &'a str,
    token: &'a str,
}

impl Ask<'_> {
    /// One number, by SQL over HTTP; none while there is no answer.
    async fn number(&self, sql: &str) -> Option<i64> {
        let answer = reqwest::Client::new()
            .post(self.url)
            .bearer_auth(self.token)
            .json(&serde_json::json!({ "sql": sql }))
            .send()
            .await
            .ok()?;
        let status = answer.status();
        let body: Value = answer.json().await.ok()?;
        let rows = body.as_array().or_else(|| body.get("rows")?.as_array());
        match rows {
            Some(rows) => first_number(rows.first()?),
            None => panic!("{status}: {body} for {sql}"),
        }
    }

    /// Asks until the number is as wanted.
    async fn until(&self, sql: &str, wanted: impl Fn(i64) -> bool) -> i64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.number(sql).await;
            match found {
                Some(number) if wanted(number) => return number,
                _ => assert!(Instant::now() < deadline, "{sql} stays at {found:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn first_number(row: &Value) -> Option<i64> {
    match row {
        Value::Object(fields) => fields.values().next()?.as_i64(),
        Value::Array(values) => values.first()?.as_i64(),
        _ => None,
    }
}

fn companyos(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_companyos")).args(args).current_dir(folder).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_become_rows_of_their_tenant_and_ctrl_c_ends_it_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Process::start(&["demo", "--data", "data", "--any-ports", "--rate", "50"], folder.path());
    let query = demo.line_after("query").split_whitespace().next().unwrap().to_owned();
    let ready = demo.line_after("metrics").split_whitespace().next().unwrap().replace("/metrics", "/readyz");
    let config = demo.line_after("config");
    let (alpha, beta) = (demo.line_after("token alpha"), demo.line_after("token beta"));
    let alpha = Ask { url: &query, token: &alpha };
    let beta = Ask { url: &query, token: &beta };

    // Heavy and light, each to its own.
    let count = "SELECT count(*) AS n FROM product_events";
    beta.until(count, |n| n > 0).await;
    alpha.until(count, |n| n > 20).await;
    let foreign = "SELECT count(*) AS n FROM product_events WHERE tenant <> '{}'";
    assert_eq!(alpha.number(&foreign.replace("{}", "alpha")).await, Some(0));
    assert_eq!(beta.number(&foreign.replace("{}", "beta")).await, Some(0));
    let stranger = reqwest::Client::new().post(&query).json(&serde_json::json!({"sql": count})).send().await.unwrap();
    assert_eq!(stranger.status(), 401);

    // Every event once: ids do not repeat.
    assert_eq!(alpha.number("SELECT count(*) - count(DISTINCT event_id) AS n FROM product_events").await, Some(0));
    let health = reqwest::get(&ready).await.unwrap();
    assert_eq!(health.status(), 200, "{}", health.text().await.unwrap());

    // Refused events are seen by operators, with the tenant they act for.
    let listed = until_listed(folder.path(), &config, |row| row["sealed_with"].is_string());
    let id = listed["quarantine_id"].as_str().unwrap().to_owned();
    let other = companyos(folder.path(), &["quarantine", "show", &id, "--tenant", "beta", "--config", &config]);
    assert!(!other.status.success(), "beta must not see alpha's row: {}", text(&other));
    let act = |verb: &str, more: &[&str]| {
        let args =
            [&["quarantine", verb, id.as_str(), "--tenant", "alpha", "--config", config.as_str()], more].concat();
        companyos(folder.path(), &args)
    };
    let released = act("release", &["--why", "a test"]);
    assert!(released.status.success(), "{}", text(&released));
    // Nothing about it has changed, so the operators refuse it again, and say where it came from.
    until_listed(folder.path(), &config, |row| row["origin"] == id.as_str());
    let again = act("release", &[]);
    assert!(text(&again).contains("1 released before"), "{}", text(&again));
    let shown = act("show", &[]);
    assert!(text(&shown).contains("a test"), "the record of the release is missing: {}", text(&shown));
    let purged = act("purge", &[]);
    assert!(purged.status.success(), "{}", text(&purged));
    assert!(!act("show", &[]).status.success(), "a purged row is still there");

    demo.signal(Signal::SIGINT);
    let (status, output) = demo.end();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("stopped"), "{output}");

    // The tables outlive the process, and local operators need no server.
    let sql = "SELECT count(*) AS n FROM product_events";
    let local = companyos(folder.path(), &["sql", sql, "--tenant", "alpha", "--config", &config, "--format", "csv"]);
    let rows: i64 = String::from_utf8_lossy(&local.stdout).lines().nth(1).unwrap_or("0").parse().unwrap();
    assert!(rows > 20, "{}", text(&local));
}

/// The newest of alpha's quarantined rows that is as wanted, once there is one.
fn until_listed(folder: &Path, config: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let listed = companyos(folder, &["quarantine", "list", "--tenant", "alpha", "--json", "--config", config]);
        assert!(listed.status.success(), "{}", text(&listed));
        let rows = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut found = rows.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(row) = found.find(|row| wanted(row)) {
            return row;
        }
        assert!(Instant::now() < deadline, "no such row of alpha's is in quarantine: {rows}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_by_itself_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = || Process::start(&["demo", "--data", "data", "--any-ports", "--for", "8s"], folder.path());
    let mut last = 0;
    for _ in 0..2 {
        let mut demo = run();
        let config = demo.line_after("config");
        let (status, output) = demo.end();
        assert_eq!(status.code(), Some(0), "{output}");
        let sql = "SELECT count(*) AS n FROM product_events";
        let local =
            companyos(folder.path(), &["sql", sql, "--tenant", "alpha", "--config", &config, "--format", "csv"]);
        let rows: i64 = String::from_utf8_lossy(&local.stdout).lines().nth(1).unwrap_or("0").parse().unwrap();
        assert!(rows > last, "{rows} rows after {last}: {}\n{output}", text(&local));
        last = rows;
    }
}
