//! Lines that OpenSSH's server writes to syslog.
//!
//! The line stands in `message` (or one of the names journals use), or is itself the payload as a
//! JSON string. Its parts are fields of their own: `sshd.event`, `sshd.user`, `sshd.ip`,
//! `sshd.port`, `sshd.method`, `sshd.host`, `sshd.pid`, `sshd.key`.

use std::sync::LazyLock;

use regex::Regex;

use crate::mapping::{Attr, Fields, Mapper, OTHER, class, constant, first};

/// Where the line may stand; the empty path is the whole payload.
pub(crate) const LINE_PATHS: &[&str] = &["message", "MESSAGE", "msg", "log", "line", "raw", ""];

pub(crate) static MAPPER: Mapper = Mapper { attrs: ATTRS, needs: &["sshd.event"], classify, status };

const ATTRS: &[Attr] = &[
    first("user.name", &["sshd.user", "$actor"]),
    first("actor.user.name", &["sshd.user", "$actor"]),
    first("actor.process.pid", &["sshd.pid"]),
    first("src_endpoint.ip", &["sshd.ip"]),
    first("src_endpoint.port", &["sshd.port"]),
    first("dst_endpoint.hostname", &["sshd.host", "hostname", "host", "_HOSTNAME"]),
    first("auth_protocol", &["sshd.method"]),
    first("certificate.fingerprints[].value", &["sshd.key"]),
    constant("service.name", "sshd"),
    constant("logon_type", "Network"),
    constant("logon_type_id", "3"),
    constant("is_remote", "true"),
    first("message", LINE_PATHS),
    first("status_detail", &["sshd.event"]),
    first("metadata.event_code", &["sshd.event"]),
    first("metadata.uid", &["$event_id"]),
];

/// What a line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    host: Option<&'a str>,
    pid: Option<&'a str>,
    event: &'static str,
    method: Option<&'a str>,
    user: Option<&'a str>,
    ip: Option<&'a str>,
    port: Option<&'a str>,
    key: Option<&'a str>,
}

/// Syslog's header: an old or an ISO time, host, `sshd[pid]:`.
static HEADER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:<\d+>)?(?:[A-Z][a-z]{2} +\d+ [\d:]{8}|\d{4}-\d\d-\d\dT\S+) (?P<host>\S+) sshd(?:-session)?\[(?P<pid>\d+)\]: ").ok()
});

/// Messages by the event they tell. A user's name is whatever the client sent, so it may hold
/// spaces and imitate the rest of the line: address and port are taken from the end.
static MESSAGES: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    [
        ("accepted", r"^Accepted (?P<method>\S+) for (?P<user>.*) from (?P<ip>\S+) port (?P<port>\d+)(?: ssh2)?(?:: \S+ (?P<key>\S+))?$"),
        ("failed_invalid_user", r"^Failed (?P<method>\S+) for invalid user (?P<user>.*) from (?P<ip>\S+) port (?P<port>\d+)(?: ssh2)?(?:: \S+ (?P<key>\S+))?$"),
        ("failed", r"^Failed (?P<method>\S+) for (?P<user>.*) from (?P<ip>\S+) port (?P<port>\d+)(?: ssh2)?(?:: \S+ (?P<key>\S+))?$"),
        ("invalid_user", r"^(?:Invalid|Illegal) user (?P<user>.*) from (?P<ip>\S+?)(?: port (?P<port>\d+))?$"),
        ("max_attempts", r"^error: maximum authentication attempts exceeded for (?:invalid user )?(?P<user>.*) from (?P<ip>\S+) port (?P<port>\d+)(?: ssh2)? \[preauth\]$"),
        ("not_allowed", r"^User (?P<user>.*) from (?P<ip>\S+) not allowed because .*$"),
        ("root_refused", r"^ROOT LOGIN REFUSED FROM (?P<ip>\S+)(?: port (?P<port>\d+))?$"),
        ("pam_failure", r"^(?:pam_unix\(sshd:auth\): )authentication failure;.* rhost=(?P<ip>\S+)(?: +user=(?P<user>.*))?$"),
        ("session_opened", r"^pam_unix\(sshd:session\): session opened for user (?P<user>\S+?)(?:\(uid=\d+\))?(?: by .*)?$"),
        ("session_closed", r"^pam_unix\(sshd:session\): session closed for user (?P<user>.*)$"),
        ("disconnected", r"^Disconnected from (?:user (?P<user>.*) )?(?P<ip>\S+) port (?P<port>\d+)$"),
        ("closed_preauth", r"^(?:Connection (?:closed|reset) by|Disconnected from) (?:(?:authenticating|invalid) user (?P<user>.*) )?(?P<ip>\S+) port (?P<port>\d+)(?: \[preauth\])?$"),
        ("disconnect_received", r"^Received disconnect from (?P<ip>\S+)(?: port (?P<port>\d+))?:.*$"),
        ("break_in_attempt", r"^(?:reverse mapping checking getaddrinfo for .* \[(?P<ip>[^\]]+)\]|Address (?P<ip2>\S+) maps to .*).*POSSIBLE BREAK-IN ATTEMPT!$"),
        ("no_identification", r"^Did not receive identification string from (?P<ip>\S+?)(?: port (?P<port>\d+))?$"),
    ]
    .into_iter()
    .filter_map(|(event, pattern)| Some((event, Regex::new(pattern).ok()?)))
    .collect()
});

impl<'a> Line<'a> {
    /// Reads a line, with or without syslog's header; nothing if no known message.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim_end();
        let mut line = Line::default();
        let mut message = text;
        if let Some(header) = HEADER.as_ref().and_then(|h| h.captures(text)) {
            line.host = header.name("host").map(|m| m.as_str());
            line.pid = header.name("pid").map(|m| m.as_str());
            message = text.get(header.get(0)?.end()..)?;
        }
        let (event, found) = MESSAGES.iter().find_map(|(event, regex)| Some((*event, regex.captures(message)?)))?;
        let part = |name: &str| found.name(name).map(|m| m.as_str()).filter(|s| !s.is_empty());
        line.event = event;
        line.method = part("method");
        line.user = part("user");
        line.ip = part("ip").or_else(|| part("ip2"));
        line.port = part("port");
        line.key = part("key");
        Some(line)
    }

    pub(crate) fn get(&self, part: &str) -> Option<&'a str> {
        match part {
            "event" => Some(self.event),
            "host" => self.host,
            "pid" => self.pid,
            "method" => self.method,
            "user" => self.user,
            "ip" => self.ip,
            "port" => self.port,
            "key" => self.key,
            _ => None,
        }
    }
}

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let activity = match fields.get("sshd.event") {
        Some("session_closed" | "disconnected" | "disconnect_received") => 2,
        Some("break_in_attempt" | "no_identification") | None => OTHER,
        Some(_) => 1,
    };
    (class::AUTHENTICATION, activity)
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    match fields.get("sshd.event")? {
        "accepted" | "session_opened" | "session_closed" | "disconnected" => Some(true),
        "disconnect_received" => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_pattern_compiles() {
        assert!(HEADER.is_some());
        assert_eq!(MESSAGES.len(), 15);
    }

    #[test]
    fn reads_lines() {
        let line = Line::parse(
            "Dec 10 09:32:20 LabSZ sshd[24680]: Accepted password for fztu from 119.137.62.142 port 49116 ssh2",
        )
        .unwrap();
        assert_eq!(
            (line.event, line.host, line.pid, line.user, line.ip, line.port, line.method),
            (
                "accepted",
                Some("LabSZ"),
                Some("24680"),
                Some("fztu"),
                Some("119.137.62.142"),
                Some("49116"),
                Some("password")
            )
        );
        let line = Line::parse("Invalid user webmaster from 173.234.31.186").unwrap();
        assert_eq!((line.event, line.user, line.ip), ("invalid_user", Some("webmaster"), Some("173.234.31.186")));
        assert_eq!(Line::parse("Server listening on 0.0.0.0 port 22."), None);
    }

    #[test]
    fn a_users_name_cannot_forge_the_address() {
        let line =
            Line::parse("Failed password for invalid user x from 1.1.1.1 port 1 from 9.9.9.9 port 22 ssh2").unwrap();
        assert_eq!((line.ip, line.port, line.user), (Some("9.9.9.9"), Some("22"), Some("x from 1.1.1.1 port 1")));
    }
}
