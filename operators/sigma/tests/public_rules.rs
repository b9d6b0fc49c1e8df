//! Published rules load, find what they are for, and leave the rest alone.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use companyos_sigma::{
    BatchSource, EventBatch, FieldMapping, KEYWORDS, Loaded, LogSource, RuleSet, check_path, check_text,
};

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn matches(batch: &EventBatch) -> Vec<(String, Vec<u32>)> {
    let loaded = Loaded::from_path(Path::new("tests/data")).unwrap();
    let (set, _) = RuleSet::compile(&loaded, &FieldMapping::default());
    let title = |rule: u32| set.rules()[rule as usize].title.clone();
    set.evaluate(batch).hits.into_iter().map(|h| (title(h.rule), h.rows)).collect()
}

#[test]
fn all_load_but_the_broken_one() {
    let known = |source: &LogSource, field: &str| {
        source.product.as_deref() == Some("aws") && ["eventName", "eventSource", "eventType"].contains(&field)
    };
    let report = check_path(Path::new("tests/data"), &FieldMapping::default(), &known).unwrap();
    let refused: Vec<_> = report.entries.iter().filter(|e| e.refused.is_some()).collect();
    assert_eq!((report.loaded(), refused.len()), (6, 1), "{report:?}");
    assert_eq!(refused[0].line, Some(21));
    assert_eq!(refused[0].refused.as_deref(), Some("the condition names 'selection_source', which is not a detection"));
    let root = report.entries.iter().find(|e| e.file.ends_with("aws_root_account_usage.yml")).unwrap();
    assert_eq!(root.fields, ["eventType", "userIdentity.type"]);
    assert_eq!(root.unknown_fields, ["userIdentity.type"]);
}

#[test]
fn cloudtrail_rows_and_only_those() {
    let aws = LogSource { product: Some("aws".into()), service: Some("cloudtrail".into()), category: None };
    let batch = |source| {
        EventBatch::new(3)
            .with(
                "eventSource",
                text(&[Some("ec2.amazonaws.com"), Some("ec2.amazonaws.com"), Some("lambda.amazonaws.com")]),
            )
            .with(
                "eventName",
                text(&[Some("listbuckets"), Some("ListBuckets"), Some("UpdateFunctionConfiguration20150331v2")]),
            )
            .with("type", text(&[None, Some("AssumedRole"), None]))
            .with("userIdentity.type", text(&[Some("Root"), None, None]))
            .from_source(source)
    };
    let mut got = matches(&batch(BatchSource::Fixed(aws)));
    got.sort();
    assert_eq!(
        got,
        [
            ("AWS Attached Malicious Lambda Layer".into(), vec![2]),
            ("AWS Root Credentials".into(), vec![0]),
            ("Potential Bucket Enumeration on AWS".into(), vec![0]),
        ]
    );
    let products = text(&[Some("AWS"), Some("aws"), Some("azure")]);
    let services = text(&[Some("cloudtrail"), Some("cloudtrail"), Some("cloudtrail")]);
    let per_row = BatchSource::PerRow { product: Some(products), category: None, service: Some(services) };
    assert_eq!(matches(&batch(per_row)).len(), 2);
    assert!(matches(&batch(BatchSource::Fixed(LogSource::default()))).is_empty());
}

#[test]
fn keywords_regular_expressions_and_numbers() {
    let batch = EventBatch::new(4)
        .with(KEYWORDS, text(&[Some("x: near \"UNION\": syntax error"), Some("near syntax error"), None, None]))
        .with("type", text(&[None, Some("execve"), Some("EXECVE"), None]))
        .with("a0", text(&[None, Some("mkdir"), Some("mkdir"), None]))
        .with("a1", text(&[None, Some("/tmp/.x"), Some("/tmp/../x"), None]))
        .with("Provider_Name", text(&[None, None, Some("MSSQLSERVER"), Some("MSSQL$X")]))
        .with("EventID", Arc::new(Int64Array::from(vec![None, None, Some(18456), Some(18456)])))
        .with("Data", text(&[None, None, Some("[CLIENT: 10.0.0.1]"), Some("[CLIENT: 8.8.8.8]")]));
    let mut got = matches(&batch);
    got.sort();
    assert_eq!(
        got,
        [
            ("Hidden Files and Directories".into(), vec![1]),
            ("MSSQL Server Failed Logon From External Network".into(), vec![3]),
            ("Suspicious SQL Error Messages".into(), vec![0]),
        ]
    );
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_its_line() {
    let refused = |item: &str| {
        let text = format!("title: t\nlogsource: {{}}\ndetection:\n  sel:\n    {item}\n  condition: sel\n");
        let report = check_text("t.yml", &text, &FieldMapping::default(), &|_, _| true);
        assert_eq!(report.refused(), 1, "{item}");
        (report.entries[0].line.unwrap(), report.entries[0].refused.clone().unwrap())
    };
    for (item, reason) in [
        ("f|expand: '%nobody%'", "placeholder '%nobody%' has no values in the configuration"),
        ("f|cidr: 10.0.0", "'10.0.0' is not a network"),
        ("f|gt: many", "'many' is not a number to compare with"),
        ("f|utf16: a", "utf16 of this value is not text; base64 or base64offset has to follow"),
        ("f|base64: 'a*b'", "a value with wildcards cannot be encoded"),
        ("f|windash: '-a -b -c -d -e -f'", "windash: more than five flags in one value"),
        ("f|re|contains: a", "contains, startswith and endswith only apply to text"),
        ("f|hour: 3", "modifiers that take a part of a date are not supported"),
        ("f: []", "field 'f' has no values"),
    ] {
        assert_eq!(refused(item), (5, reason.to_owned()), "{item}");
    }
    assert!(refused("f|re: '('").1.starts_with("regular expression '(': "));
}

#[test]
fn filters_narrow_the_rules_they_name() {
    let rule = |n: &str| {
        format!("title: {n}\nid: {n}\nlogsource: {{product: p}}\ndetection: {{sel: {{f: x}}, condition: sel}}\n---\n")
    };
    let filter =
        "title: F\nlogsource: {product: p}\nfilter:\n  rules: [a]\n  sel: {u|startswith: adm_}\n  condition: not sel\n";
    let loaded = Loaded::from_text("x.yml", &format!("{}{}{filter}", rule("a"), rule("b")));
    let (set, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
    assert!(refused.is_empty(), "{refused:?}");
    let batch =
        EventBatch::new(2).with("f", text(&[Some("x"), Some("x")])).with("u", text(&[Some("ADM_1"), Some("eve")]));
    let rows: Vec<Vec<u32>> = set.evaluate(&batch).hits.into_iter().map(|h| h.rows).collect();
    assert_eq!(rows, [vec![1], vec![0, 1]]);
}
