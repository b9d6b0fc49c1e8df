//! What is counted: kinds of indicators and of budgets, calendar windows, and how much of a window
//! has data. What is expected is worked out by hand.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use companyos_slo::SloOperator;
use world::{MINUTE, RATIO, SECOND, Sli, T0, burn, counts, feed, micros, slo, slos, value};

const OCCURRENCES: &str = "  budgetingMethod: Occurrences\n  objectives: [{ target: 0.9 }]";

/// `(good, total)` of the five minutes that hold T0 after these rows.
fn counted(indicator: &str, rest: &str, events: &[Sli]) -> (f64, f64, u64) {
    let mut op = SloOperator::new(slos(&slo("", indicator, rest)));
    let out = feed(&mut op, events, T0 + 30 * SECOND);
    (burn(&out, "good_5m").unwrap_or(0.0), burn(&out, "total_5m").unwrap_or(0.0), op.senseless_rows())
}

fn raw(kind: &str, weight: &str) -> String {
    format!(
        "ratioMetric: {{ rawType: {kind}, raw: {{ metricSource: {{ type: companyos, \
         spec: {{ stream: sli_metrics{weight} }} }} }} }}"
    )
}

#[test]
fn a_raw_ratio_counts_as_its_share_once_or_by_its_weight_and_outside_zero_to_one_not_at_all() {
    let rows = |total: f64| [0.75, 1.0, 0.0, 1.25, -0.25].map(|v| Sli { total, ..value(T0, v) });
    assert_eq!(counted(&raw("success", ""), OCCURRENCES, &rows(8.0)), (1.75, 3.0, 2));
    assert_eq!(counted(&raw("failure", ""), OCCURRENCES, &rows(8.0)), (1.25, 3.0, 2));
    assert_eq!(counted(&raw("success", ", total: total"), OCCURRENCES, &rows(8.0)), (14.0, 24.0, 2));
    assert_eq!(counted(&raw("failure", ", total: total"), OCCURRENCES, &rows(8.0)), (10.0, 24.0, 2));
    let none = Sli { value: None, ..value(T0, 0.0) };
    assert_eq!(counted(&raw("success", ""), OCCURRENCES, &[none, value(T0, f64::NAN)]), (0.0, 0.0, 2));
}

#[test]
fn a_threshold_is_met_or_not_at_the_value_itself() {
    let threshold = "thresholdMetric: { metricSource: { type: companyos, spec: { stream: sli_metrics } } }";
    let rows = [299.0, 300.0, 301.0].map(|v| value(T0, v));
    for (op, good) in [("lt", 1.0), ("lte", 2.0), ("gt", 1.0), ("gte", 2.0)] {
        let rest = format!("  budgetingMethod: Occurrences\n  objectives: [{{ op: {op}, value: 300, target: 0.9 }}]");
        assert_eq!(counted(threshold, &rest, &rows), (good, 3.0, 0), "{op}");
    }
}

#[test]
fn bad_of_total_is_total_less_bad_and_more_bad_than_all_makes_no_sense() {
    let bad = "ratioMetric: { \
        bad: { metricSource: { type: companyos, spec: { stream: sli_metrics, bad: value } } }, \
        total: { metricSource: { type: companyos, spec: { stream: sli_metrics } } } }";
    let row = |bad, total| Sli { total, ..value(T0, bad) };
    assert_eq!(counted(bad, OCCURRENCES, &[row(3.0, 10.0), row(0.0, 5.0), row(6.0, 5.0)]), (12.0, 15.0, 1));
}

#[test]
fn an_indicator_and_a_source_by_reference_count_as_those_in_place() {
    let referred = "\
apiVersion: openslo/v1
kind: DataSource
metadata: { name: ours }
spec: { type: companyos }
---
apiVersion: openslo/v1
kind: SLI
metadata: { name: i }
spec:
  ratioMetric:
    good: { metricSource: { metricSourceRef: ours, spec: { stream: sli_metrics } } }
    total: { metricSource: { metricSourceRef: ours, spec: { stream: sli_metrics } } }
---
apiVersion: openslo/v1
kind: SLO
metadata: { name: s }
spec:
  service: till
  indicatorRef: i
  budgetingMethod: Occurrences
  objectives: [{ targetPercent: 90 }]
";
    let mut one = SloOperator::new(slos(referred));
    let mut other = SloOperator::new(slos(&slo("", RATIO, OCCURRENCES)));
    let rows = [counts(T0, 7.0, 10.0), counts(T0 - MINUTE, 1.0, 2.0)];
    let (a, b) = (feed(&mut one, &rows, T0), feed(&mut other, &rows, T0));
    assert_eq!((burn(&a, "good_budget"), burn(&a, "total_budget")), (Some(8.0), Some(12.0)));
    assert_eq!(a.rows, b.rows);
}

/// Slices of five minutes: all good, half good, all bad, none, one of ten bad.
fn sliced(op: &mut SloOperator) -> companyos_stream::Output {
    let rows = [
        counts(T0, 4.0, 4.0),
        counts(T0 + 4 * MINUTE, 6.0, 6.0),
        counts(T0 + 5 * MINUTE, 1.0, 2.0),
        counts(T0 + 10 * MINUTE, 0.0, 1.0),
        counts(T0 + 20 * MINUTE, 9.0, 10.0),
    ];
    feed(op, &rows, T0 + 21 * MINUTE)
}

#[test]
fn a_slice_is_good_at_its_target_and_one_without_events_is_none() {
    let method = |target: &str| {
        format!(
            "  budgetingMethod: Timeslices\n  objectives: [{{ target: 0.75, timeSliceTarget: {target}, \
             timeSliceWindow: 5 }}]"
        )
    };
    let good = |target: &str| {
        let mut op = SloOperator::new(slos(&slo("", RATIO, &method(target))));
        let out = sliced(&mut op);
        assert_eq!(burn(&out, "total_1h"), Some(4.0));
        // The five minutes to minute 21 reach into the slices of minutes 15, without events, and 20.
        assert_eq!(burn(&out, "total_5m"), Some(1.0));
        assert_eq!(burn(&out, "burn_rate_1h"), burn(&out, "good_1h").map(|good| (4.0 - good) / 4.0 / 0.25));
        burn(&out, "good_1h").unwrap()
    };
    assert_eq!([good("1.0"), good("0.91"), good("0.9"), good("0.5"), good("0.49")], [1.0, 1.0, 2.0, 3.0, 3.0]);
}

#[test]
fn ratios_of_slices_weigh_the_same_whatever_their_traffic() {
    let rest = "  budgetingMethod: RatioTimeslices\n  objectives: [{ target: 0.75, timeSliceWindow: 5m }]";
    let mut op = SloOperator::new(slos(&slo("", RATIO, rest)));
    let out = sliced(&mut op);
    assert_eq!(burn(&out, "total_1h"), Some(4.0));
    assert!((burn(&out, "good_1h").unwrap() - (1.0 + 0.5 + 0.0 + 0.9)).abs() < 1e-12);
    assert!((burn(&out, "error_budget_remaining").unwrap() - (1.0 - 1.6 / 4.0 / 0.25)).abs() < 1e-12);
}

#[test]
fn a_calendar_month_begins_at_its_local_midnight_and_is_as_long_as_its_clocks_make_it() {
    let rest = "  timeWindow: [{ duration: 1M, calendar: { startTime: 2024-01-01 00:00:00, timeZone: Europe/Berlin } }]
  budgetingMethod: Occurrences\n  objectives: [{ target: 0.5 }]";
    let mut op = SloOperator::new(slos(&slo("", RATIO, rest)));
    // Midnight in Berlin is 22:00 UTC at the end of September and 23:00 UTC at the end of October.
    let before = counts(micros("2024-09-30T21:59:00Z"), 0.0, 100.0);
    let first = counts(micros("2024-09-30T22:00:00Z"), 1.0, 1.0);
    feed(&mut op, &[before, first], micros("2024-09-30T22:00:10Z"));
    let out = feed(&mut op, &[counts(micros("2024-10-31T22:59:00Z"), 2.0, 4.0)], micros("2024-10-31T22:59:59Z"));
    assert_eq!((burn(&out, "good_budget"), burn(&out, "total_budget")), (Some(3.0), Some(5.0)));
    assert_eq!(burn(&out, "budget_window_seconds"), Some((31.0 * 24.0 + 1.0) * 3600.0), "clocks went back on the 27th");
    assert_eq!(burn(&out, "budget_covered_seconds"), burn(&out, "budget_window_seconds"));
    // The next second is November.
    let out = feed(&mut op, &[counts(micros("2024-10-31T23:00:00Z"), 0.0, 1.0)], micros("2024-10-31T23:00:00Z"));
    assert_eq!((burn(&out, "good_budget"), burn(&out, "total_budget")), (Some(0.0), Some(1.0)));
    assert_eq!(burn(&out, "total_1h"), Some(5.0), "alerts look back over the boundary");
    assert_eq!(burn(&out, "budget_window_seconds"), Some(30.0 * 86_400.0));
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(60.0), "as much of it as there was yet");
}

#[test]
fn a_calendar_of_hours_and_days_begins_at_its_start_time() {
    let rest = "  timeWindow: [{ duration: 1d, calendar: { startTime: 2024-01-01 09:30:00, timeZone: Asia/Kolkata } }]
  budgetingMethod: Occurrences\n  objectives: [{ target: 0.5 }]";
    let mut op = SloOperator::new(slos(&slo("", RATIO, rest)));
    // 09:30 in Kolkata is 04:00 UTC.
    let rows = [counts(micros("2024-05-05T03:59:00Z"), 9.0, 9.0), counts(micros("2024-05-05T04:00:00Z"), 1.0, 2.0)];
    let out = feed(&mut op, &rows, micros("2024-05-05T10:00:00Z"));
    assert_eq!((burn(&out, "good_budget"), burn(&out, "total_budget")), (Some(1.0), Some(2.0)));
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(6.0 * 3600.0 + 60.0));
}

#[test]
fn a_fresh_key_tells_how_little_of_its_window_it_has_seen() {
    let rest = format!("  timeWindow: [{{ duration: 4w, isRolling: true }}]\n{OCCURRENCES}");
    let mut op = SloOperator::new(slos(&slo("", RATIO, &rest)));
    let out = feed(&mut op, &[counts(T0, 0.0, 1.0)], T0 + 3 * MINUTE);
    // The formula is what it always is, over the events there are.
    assert!((burn(&out, "error_budget_remaining").unwrap() - (1.0 - 1.0 / 0.1)).abs() < 1e-9);
    assert_eq!(burn(&out, "budget_window_seconds"), Some(28.0 * 86_400.0));
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(240.0));
    // An event of before makes it more.
    let out = feed(&mut op, &[counts(T0 - 60 * MINUTE, 1.0, 1.0)], T0 + 4 * MINUTE);
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(65.0 * 60.0));
    let out = feed(&mut op, &[counts(T0 + 40_000 * MINUTE, 1.0, 1.0)], T0 + 40_319 * MINUTE);
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(28.0 * 86_400.0));
    // Long after, it still has all of it, and no more.
    let out = feed(&mut op, &[counts(T0 + 60_000 * MINUTE, 1.0, 1.0)], T0 + 60_000 * MINUTE);
    assert_eq!(burn(&out, "budget_covered_seconds"), Some(28.0 * 86_400.0));
}

#[test]
fn the_report_says_how_much_of_the_window_there_is_data_of() {
    let rest = format!("  timeWindow: [{{ duration: 4w, isRolling: true }}]\n{OCCURRENCES}");
    let mut op = SloOperator::new(slos(&slo("", RATIO, &rest)));
    let mut batches = Vec::new();
    let mut lines = |out: companyos_stream::Output| {
        batches.extend(out.rows.into_iter().map(|(_, batch)| batch));
        let report = companyos_slo::report::report("till", &batches, &[]);
        let json = serde_json::to_value(&report).unwrap();
        let counted = report.render().lines().find(|l| l.contains("window")).unwrap_or_default().trim().to_owned();
        (counted, json["slos"][0]["covered_seconds"].as_f64())
    };
    let told = lines(feed(&mut op, &[counts(T0, 3.0, 5.0)], T0 + 3 * MINUTE));
    let early = "counted over 28 d window, 4 min of data: 3 good of 5; a small part of the window weighs as the whole";
    assert_eq!(told, (early.to_owned(), Some(240.0)));
    let later = T0 + 10 * 1440 * MINUTE;
    let told = lines(feed(&mut op, &[counts(later, 1.0, 1.0)], later));
    assert_eq!(told.0, "counted over 28 d window, 10 d of data: 4 good of 6");
    let later = T0 + 29 * 1440 * MINUTE;
    let told = lines(feed(&mut op, &[counts(later, 1.0, 1.0)], later));
    assert_eq!(told, ("counted over 28 d window, data of all of it: 2 good of 2".to_owned(), Some(28.0 * 86_400.0)));
}
