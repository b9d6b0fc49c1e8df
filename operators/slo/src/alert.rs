//! The life of an alert: pending, firing, resolved.

use serde::{Deserialize, Serialize};

/// An alert that is on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alert {
    /// When it began, seconds since 1970: part of its id.
    pub started: i64,
    /// Whether it has fired.
    pub firing: bool,
    /// Since when the short window has not met the condition.
    below_since: Option<i64>,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The condition holds.
    Pending,
    /// It has held long enough.
    Firing,
    /// It has been over long enough.
    Resolved,
    /// It was over before it fired.
    Cleared,
}

/// What is seen of a condition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Seconds since 1970.
    pub now: i64,
    /// The condition holds over both windows.
    pub breach: bool,
    /// Whether the short window does not meet it; unknown while it has no events.
    pub over: Option<bool>,
    pub pending_for: i64,
    pub resolve_after: i64,
}

/// Moves an alert on.
pub(crate) fn step(alert: &mut Option<Alert>, seen: Seen) -> Vec<Change> {
    let mut changes = Vec::new();
    if alert.is_none() && seen.breach {
        *alert = Some(Alert { started: seen.now, firing: false, below_since: None });
        changes.push(Change::Pending);
    }
    let Some(on) = alert else { return changes };
    if !on.firing {
        if !seen.breach {
            *alert = None;
            changes.push(Change::Cleared);
        } else if seen.now - on.started >= seen.pending_for {
            on.firing = true;
            changes.push(Change::Firing);
        }
        return changes;
    }
    match seen.over {
        Some(true) => {
            let since = *on.below_since.get_or_insert(seen.now);
            if seen.now - since >= seen.resolve_after {
                *alert = None;
                changes.push(Change::Resolved);
            }
        }
        Some(false) => on.below_since = None,
        // Silence is no recovery: it takes an event after the hold to end it.
        None => {}
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_waits_to_fire_and_flapping_does_not_end_it() {
        let mut alert = None;
        let mut at = |now, breach| {
            step(&mut alert, Seen { now, breach, over: Some(!breach), pending_for: 60, resolve_after: 300 })
        };
        assert_eq!(at(0, false), []);
        assert_eq!(at(10, true), [Change::Pending]);
        assert_eq!(at(40, false), [Change::Cleared]);
        assert_eq!(at(50, true), [Change::Pending]);
        assert_eq!(at(109, true), []);
        assert_eq!(at(110, true), [Change::Firing]);
        assert_eq!(at(200, false), []);
        assert_eq!(at(499, false), []);
        assert_eq!(at(499, true), [], "the hold begins anew");
        assert_eq!(at(510, false), []);
        assert_eq!(at(809, false), []);
        assert_eq!(at(810, false), [Change::Resolved]);
    }

    #[test]
    fn silence_resolves_nothing() {
        let mut alert = None;
        let mut at =
            |now, breach, over| step(&mut alert, Seen { now, breach, over, pending_for: 0, resolve_after: 300 });
        assert_eq!(at(0, true, Some(false)), [Change::Pending, Change::Firing]);
        assert_eq!(at(100, false, Some(true)), []);
        assert_eq!(at(300, false, None), []);
        assert_eq!(at(900, false, None), []);
        assert_eq!(at(1000, true, Some(false)), [], "still bad when it is heard of again");
        assert_eq!(at(1100, false, Some(true)), []);
        assert_eq!(at(9000, false, None), []);
        assert_eq!(at(9001, false, Some(true)), [Change::Resolved]);
    }
}
