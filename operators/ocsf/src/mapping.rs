//! How a source's fields become OCSF attributes: one table per source, read by both roads.

use std::borrow::Cow;

use crate::{SignalRow, SourceKind, scan::Slots, sources};

/// The version of OCSF that events are written in.
pub const OCSF_VERSION: &str = "1.4.0";

/// OCSF classes, by `class_uid`.
pub mod class {
    /// Detection Finding.
    pub const DETECTION_FINDING: i64 = 2004;
    /// Account Change.
    pub const ACCOUNT_CHANGE: i64 = 3001;
    /// Authentication.
    pub const AUTHENTICATION: i64 = 3002;
    /// User Access Management.
    pub const USER_ACCESS: i64 = 3005;
    /// Group Management.
    pub const GROUP_MANAGEMENT: i64 = 3006;
    /// API Activity.
    pub const API_ACTIVITY: i64 = 6003;
}

/// `activity_id` of an activity that OCSF has no number for.
pub(crate) const OTHER: i64 = 99;

/// One attribute of OCSF and where a source has it.
#[derive(Debug)]
pub(crate) struct Attr {
    /// Path; `x[]` is the first element of an array.
    pub name: &'static str,
    pub from: From,
    /// Classes that have the attribute; empty for all.
    pub classes: &'static [i64],
}

/// Where an attribute's value comes from. Paths are the vendor's, `$name` is a table column.
#[derive(Debug)]
pub(crate) enum From {
    /// The first of these that the event has.
    First(&'static [&'static str]),
    /// As `First`, for values that pass a test.
    When(&'static [&'static str], fn(&str) -> bool),
    /// Always this.
    Const(&'static str),
    /// Worked out of these fields.
    Derived(&'static [&'static str], for<'a> fn(&'a Fields<'a>) -> Option<Cow<'a, str>>),
}

pub(crate) const fn first(name: &'static str, paths: &'static [&'static str]) -> Attr {
    Attr { name, from: From::First(paths), classes: &[] }
}

pub(crate) const fn first_in(classes: &'static [i64], name: &'static str, paths: &'static [&'static str]) -> Attr {
    Attr { name, from: From::First(paths), classes }
}

pub(crate) const fn when(name: &'static str, paths: &'static [&'static str], test: fn(&str) -> bool) -> Attr {
    Attr { name, from: From::When(paths, test), classes: &[] }
}

pub(crate) const fn constant(name: &'static str, value: &'static str) -> Attr {
    Attr { name, from: From::Const(value), classes: &[] }
}

/// A source's table, and how its events are classed.
pub(crate) struct Mapper {
    pub attrs: &'static [Attr],
    /// Fields that `classify` and `status` read.
    pub needs: &'static [&'static str],
    /// Class and activity.
    pub classify: fn(&Fields<'_>) -> (i64, i64),
    /// Success (true), failure (false), or not told.
    pub status: fn(&Fields<'_>) -> Option<bool>,
}

pub(crate) fn mapper(kind: SourceKind) -> &'static Mapper {
    match kind {
        SourceKind::CloudTrail => &sources::cloudtrail::MAPPER,
        SourceKind::OpenSsh => &sources::openssh::MAPPER,
        SourceKind::Okta => &sources::okta::MAPPER,
        SourceKind::GitHub => &sources::github::MAPPER,
        SourceKind::Kubernetes => &sources::kubernetes::MAPPER,
        SourceKind::Own => &sources::own::MAPPER,
    }
}

/// The fields of one event, as far as they were asked for.
pub(crate) struct Fields<'a> {
    row: &'a SignalRow<'a>,
    plan: &'a crate::columns::Plan,
    payload: &'a Slots,
    evidence: &'a Slots,
    ssh: Option<sources::openssh::Line<'a>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(
        kind: SourceKind,
        row: &'a SignalRow<'a>,
        plan: &'a crate::columns::Plan,
        payload: &'a Slots,
        evidence: &'a Slots,
    ) -> Self {
        let mut fields = Self { row, plan, payload, evidence, ssh: None };
        if kind == SourceKind::OpenSsh {
            fields.ssh = sources::openssh::LINE_PATHS
                .iter()
                .find_map(|path| fields.scanned(path))
                .and_then(sources::openssh::Line::parse);
        }
        fields
    }

    /// The first value of a field, if it has one that is not empty.
    pub(crate) fn get(&self, path: &str) -> Option<&'a str> {
        let value = if let Some(column) = path.strip_prefix('$') {
            column_text(self.row, column)
        } else if let Some(part) = path.strip_prefix("sshd.") {
            self.ssh.as_ref().and_then(|line| line.get(part))
        } else {
            self.scanned(path)
        };
        value.filter(|v| !v.is_empty())
    }

    pub(crate) fn row(&self) -> &'a SignalRow<'a> {
        self.row
    }

    fn scanned(&self, path: &str) -> Option<&'a str> {
        let slot = self.plan.slot(path)?;
        self.payload.values(slot).next().or_else(|| self.evidence.values(slot).next())
    }
}

/// An attribute's value, and the path it was copied from, if it was copied.
pub(crate) fn value<'a>(
    attr: &Attr,
    class: i64,
    fields: &'a Fields<'a>,
) -> Option<(Cow<'a, str>, Option<&'static str>)> {
    if !attr.classes.is_empty() && !attr.classes.contains(&class) {
        return None;
    }
    match &attr.from {
        From::First(paths) => paths.iter().find_map(|path| fields.get(path).map(|v| (Cow::Borrowed(v), Some(*path)))),
        From::When(paths, test) => {
            paths.iter().find_map(|path| fields.get(path).filter(|v| test(v)).map(|v| (Cow::Borrowed(v), Some(*path))))
        }
        From::Const(value) => Some((Cow::Borrowed(*value), None)),
        From::Derived(_, derive) => derive(fields).map(|v| (v, None)),
    }
}

/// Attributes that every event has and that the source's table does not hold.
pub(crate) const COMPUTED: [&str; 13] = [
    "class_uid",
    "activity_id",
    "category_uid",
    "type_uid",
    "severity_id",
    "status_id",
    "status",
    "time",
    "metadata.version",
    "metadata.product.name",
    "metadata.product.vendor_name",
    "metadata.tenant_uid",
    "severity",
];

/// The value of one of [`COMPUTED`].
pub(crate) fn computed(name: &str, kind: SourceKind, fields: &Fields<'_>) -> Option<Cow<'static, str>> {
    let mapper = mapper(kind);
    let number = |n: i64| Some(Cow::Owned(n.to_string()));
    match name {
        "class_uid" => number((mapper.classify)(fields).0),
        "activity_id" => number((mapper.classify)(fields).1),
        "category_uid" => number((mapper.classify)(fields).0 / 1000),
        "type_uid" => {
            let (class, activity) = (mapper.classify)(fields);
            number(class * 100 + activity)
        }
        "severity_id" => number(severity_id(fields.row().severity)),
        "status_id" => number(match (mapper.status)(fields) {
            Some(true) => 1,
            Some(false) => 2,
            None => 0,
        }),
        "status" => Some(Cow::Borrowed(match (mapper.status)(fields) {
            Some(true) => "Success",
            Some(false) => "Failure",
            None => "Unknown",
        })),
        "time" => number(fields.row().occurred_at.div_euclid(1000)),
        "metadata.version" => Some(Cow::Borrowed(OCSF_VERSION)),
        "metadata.product.name" => Some(Cow::Borrowed(kind.vendor().1)),
        "metadata.product.vendor_name" => Some(Cow::Borrowed(kind.vendor().0)),
        "metadata.tenant_uid" => Some(Cow::Owned(fields.row().tenant.to_owned())),
        "severity" => Some(Cow::Owned(fields.row().severity.to_owned())),
        _ => None,
    }
}

fn severity_id(severity: &str) -> i64 {
    match severity {
        "info" => 1,
        "low" => 2,
        "medium" => 3,
        "high" => 4,
        "critical" => 5,
        _ => 0,
    }
}

/// Whether an attribute is an integer in OCSF.
pub(crate) fn is_integer(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.ends_with("_id")
        || matches!(last, "class_uid" | "category_uid" | "type_uid" | "time" | "port" | "pid" | "code" | "number")
}

/// Whether an attribute is a truth value in OCSF.
pub(crate) fn is_boolean(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.starts_with("is_"))
}

/// Whether an attribute is a fraction in OCSF.
pub(crate) fn is_float(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("lat" | "long"))
}

pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

pub(crate) fn is_no_ip(text: &str) -> bool {
    !is_ip(text)
}

/// Activity of an API call, by the verb its name begins with.
pub(crate) fn crud(operation: &str) -> i64 {
    const VERBS: [(i64, &[&str]); 4] = [
        (1, &["create", "run", "allocate", "import", "issue", "register", "publish", "generate", "add"]),
        (
            2,
            &[
                "get", "list", "describe", "head", "lookup", "search", "select", "batchget", "check", "read", "view",
                "download", "export", "query", "scan", "watch", "access", "clone", "fetch",
            ],
        ),
        (4, &["delete", "remove", "terminate", "destroy", "purge", "release", "deregister", "revoke"]),
        (
            3,
            &[
                "update",
                "put",
                "modify",
                "set",
                "attach",
                "detach",
                "associate",
                "disassociate",
                "enable",
                "disable",
                "start",
                "stop",
                "reboot",
                "tag",
                "untag",
                "change",
                "edit",
                "patch",
                "rename",
                "replace",
                "restore",
                "authorize",
                "activate",
                "deactivate",
                "grant",
                "rotate",
            ],
        ),
    ];
    let starts = |verb: &&str| operation.get(..verb.len()).is_some_and(|head| head.eq_ignore_ascii_case(verb));
    VERBS.iter().find(|(_, verbs)| verbs.iter().any(&starts)).map_or(OTHER, |(activity, _)| *activity)
}

fn column_text<'a>(row: &'a SignalRow<'a>, column: &str) -> Option<&'a str> {
    match column {
        "event_id" => Some(row.event_id),
        "actor" => Some(row.actor),
        "signal_type" => Some(row.signal_type),
        "source" => row.source,
        _ => None,
    }
}
