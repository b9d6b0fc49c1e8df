//! One event as the stateful detectors see it: who did what from where, whatever system said so.

use std::net::IpAddr;

use crate::{EvidenceRef, geo::Place};

/// What an event means to a detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// A login, successful or not.
    Login {
        /// Whether it succeeded.
        success: bool,
    },
    /// An answer to a second-factor prompt.
    Prompt {
        /// Whether the user accepted it.
        accepted: bool,
    },
    /// A policy refused something.
    Denial,
    /// A deployment.
    Deploy,
    /// An administrative action on the platform.
    Admin,
    /// A configuration was changed.
    ConfigChange,
    /// Something was built.
    Build,
    /// An artifact's digest was attested.
    Attestation,
    /// Anything else.
    #[default]
    Other,
}

/// An event.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// Tenant.
    pub tenant: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// Event time in microseconds.
    pub at: i64,
    /// The user or principal who acted.
    pub user: String,
    /// The source's name for what was done: `signal_type`, `kind` or `action`.
    pub name: String,
    /// What it was done to, if said.
    pub resource: Option<String>,
    /// What it means.
    pub action: Action,
    /// Whether a second factor was used, if said.
    pub mfa: Option<bool>,
    /// Address it came from.
    pub ip: Option<IpAddr>,
    /// Autonomous system of that address.
    pub asn: Option<u32>,
    /// Place of that address.
    pub place: Option<Place>,
    /// Session or token it used.
    pub session: Option<String>,
    /// Build and dependency fields, for [`Action::Build`], `Attestation` and `Deploy`.
    pub build: Option<Build>,
    /// Where the event is.
    pub evidence: EvidenceRef,
    /// Its trace.
    pub trace_id: Option<String>,
}

/// What a build or deployment says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// Artifact's name.
    pub artifact: Option<String>,
    /// Its digest.
    pub digest: Option<String>,
    /// Digest the attestation names, if the event carries it.
    pub attested_digest: Option<String>,
    /// Branch it was built from.
    pub branch: Option<String>,
    /// Whether that branch is protected, if said.
    pub branch_protected: Option<bool>,
    /// Registries or hosts dependencies came from.
    pub registries: Vec<String>,
}

impl Event {
    /// Key of an entity within the event's tenant and environment.
    pub fn key(&self, entity: &str) -> String {
        format!("{}\u{1f}{}\u{1f}{}", self.tenant, self.env, entity)
    }
}

/// The facts an event is classified by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `signal_type`, `kind` or `action`.
    pub name: &'a str,
    /// The vendor's or OCSF's name of the operation.
    pub operation: Option<&'a str>,
    /// OCSF class.
    pub class_uid: Option<i64>,
    /// OCSF activity.
    pub activity_id: Option<i64>,
    /// OCSF status: 1 success, 2 failure.
    pub status_id: Option<i64>,
    /// Outcome in words.
    pub outcome: Option<&'a str>,
}

impl Facts<'_> {
    /// Whether it succeeded, if that is said.
    pub fn success(&self) -> Option<bool> {
        match self.status_id {
            Some(1) => return Some(true),
            Some(2) => return Some(false),
            _ => {}
        }
        let outcome = self.outcome?;
        let is = |words: &[&str]| words.iter().any(|w| outcome.eq_ignore_ascii_case(w));
        if is(&["success", "succeeded", "allow", "allowed", "accepted", "true"]) {
            Some(true)
        } else if is(&["failure", "failed", "denied", "deny", "rejected", "error", "false"]) {
            Some(false)
        } else {
            None
        }
    }

    /// What a security signal means.
    pub fn of_signal(&self) -> Action {
        let name = self.name.to_ascii_lowercase().replace(['.', '-'], "_");
        let operation = self.operation.map(|o| o.to_ascii_lowercase()).unwrap_or_default();
        let either = |what: &str| name == what.replace(['.', '-'], "_") || operation == what;
        if either("mfa_push_denied") || either("mfa_denied") || either("user.mfa.okta_verify.deny_push") {
            return Action::Prompt { accepted: false };
        }
        if either("mfa_push_accepted") || either("mfa_accepted") {
            return Action::Prompt { accepted: true };
        }
        if either("mfa_push") || either("user.authentication.auth_via_mfa") {
            return Action::Prompt { accepted: self.success() != Some(false) };
        }
        match name.as_str() {
            "login_success" | "login_succeeded" => return Action::Login { success: true },
            "login_failure" | "login_failed" => return Action::Login { success: false },
            "policy_denial" => return Action::Denial,
            "deployment" => return Action::Deploy,
            "config_change" => return Action::ConfigChange,
            "build" | "artifact_built" => return Action::Build,
            "attestation" => return Action::Attestation,
            _ => {}
        }
        let login = name == "login" || (self.class_uid == Some(3002) && matches!(self.activity_id, None | Some(1)));
        match (login, self.success()) {
            (true, Some(success)) => Action::Login { success },
            _ => Action::Other,
        }
    }

    /// What an ops event means.
    pub fn of_ops(&self) -> Action {
        match self.name {
            "policy_denial" => Action::Denial,
            "deployment" => Action::Deploy,
            "config_change" => Action::ConfigChange,
            "build" => Action::Build,
            "attestation" => Action::Attestation,
            _ => Action::Other,
        }
    }

    /// What an audit event means.
    pub fn of_audit(&self) -> Action {
        match self.outcome {
            Some("denied") => Action::Denial,
            Some("success") if self.name.starts_with("config") => Action::ConfigChange,
            Some("success") => Action::Admin,
            _ => Action::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_prompts_of_every_source() {
        let facts = |name, operation, class_uid, activity_id, status_id, outcome| Facts {
            name,
            operation,
            class_uid,
            activity_id,
            status_id,
            outcome,
        };
        let login = |success| Action::Login { success };
        for (given, expected) in [
            (facts("user.session.start", None, Some(3002), Some(1), Some(2), None), login(false)),
            (facts("ConsoleLogin", None, Some(3002), Some(1), Some(1), None), login(true)),
            (facts("login", None, None, None, None, Some("FAILURE")), login(false)),
            (facts("login.failed", None, None, None, None, None), login(false)),
            (facts("logoff", None, Some(3002), Some(2), Some(1), None), Action::Other),
            (
                facts("user.authentication.auth_via_mfa", None, Some(3002), Some(1), Some(2), None),
                Action::Prompt { accepted: false },
            ),
            (
                facts("x", Some("user.mfa.okta_verify.deny_push"), Some(3002), Some(1), Some(2), None),
                Action::Prompt { accepted: false },
            ),
            (facts("GetObject", None, Some(6003), Some(2), Some(1), None), Action::Other),
        ] {
            assert_eq!(given.of_signal(), expected, "{given:?}");
        }
    }
}
