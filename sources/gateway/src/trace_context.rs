//! W3C Trace Context: the caller's, or a new one, so that a row can be followed to its request.

use axum::http::HeaderMap;
use uuid::Uuid;

/// The `traceparent` and `tracestate` that go with a request's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`.
    pub traceparent: String,
    /// The vendors' part, if the caller sent one.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// The caller's context if it is well formed, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        match text("traceparent").filter(|t| is_valid(t)) {
            Some(traceparent) => {
                // A longer list would only grow every record of the batch.
                let tracestate = text("tracestate").filter(|s| s.len() <= 512).map(str::to_owned);
                Self { traceparent: traceparent.to_owned(), tracestate }
            }
            None => Self::new(),
        }
    }

    fn new() -> Self {
        let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        Self { traceparent: format!("00-{trace}-{}-01", &span[..16]), tracestate: None }
    }

    /// The trace's id, 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }
}

fn is_valid(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let known_length = version != "00" || parts.next().is_none();
    let formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    known_length && formed && version != "ff" && set(trace) && set(span) && text.len() <= 256
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(traceparent: &'static str) -> TraceContext {
        TraceContext::of(&HeaderMap::from_iter([(
            "traceparent".parse().unwrap(),
            HeaderValue::from_static(traceparent),
        )]))
    }

    #[test]
    fn keeps_a_good_context_and_replaces_a_bad_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good).traceparent, good);
        assert_eq!(of(good).trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let made = of(bad);
            assert!(is_valid(&made.traceparent), "{}", made.traceparent);
            assert_ne!(made.traceparent, bad);
        }
    }
}
