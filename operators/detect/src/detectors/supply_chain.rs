//! Supply chain: what was deployed is not what was attested, a release was built from a branch
//! anyone can push to, or dependencies came from a registry never used before.

use std::time::Duration;

use companyos_stream::KeyedState;
use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, PatternError, later, meta, micros, patterns};
use crate::{
    EvidenceRef,
    event::{Action, Build, Event},
    finding::{RuleMeta, Severity},
};

/// What is expected of builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupplyChainConfig {
    /// Branches that releases may be built from, as globs; used where the event does not say
    /// whether its branch is protected.
    pub protected_branches: Vec<String>,
    /// Environments whose builds must come from such a branch.
    pub release_envs: Vec<String>,
    /// An artifact's first builds teach its registries, for this long.
    #[serde(with = "humantime_serde")]
    pub learning: Duration,
    /// How long attestations and registries are remembered.
    #[serde(with = "humantime_serde")]
    pub memory: Duration,
}

impl Default for SupplyChainConfig {
    fn default() -> Self {
        Self {
            protected_branches: ["main", "master", "release/*"].map(str::to_owned).to_vec(),
            release_envs: vec!["prod".to_owned()],
            learning: Duration::from_secs(86_400),
            memory: Duration::from_secs(90 * 86_400),
        }
    }
}

/// The detector. Attestations and registries are learnt in order of
/// arrival.
#[derive(Debug)]
pub struct SupplyChain {
    config: SupplyChainConfig,
    protected: Vec<Pattern>,
    digests: KeyedState<Digests>,
    registries: KeyedState<Registries>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Digests {
    attested: Vec<(String, i64, EvidenceRef)>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Registries {
    first: Option<i64>,
    known: Vec<String>,
}

const DIGEST: &str = "stateful.artifact_digest_mismatch";
const BRANCH: &str = "stateful.build_from_unprotected_branch";
const REGISTRY: &str = "stateful.new_dependency_registry";
const KEPT: usize = 64;

impl SupplyChain {
    /// With nothing seen yet.
    pub fn new(config: SupplyChainConfig) -> Result<Self, PatternError> {
        Ok(Self {
            protected: patterns("supply_chain.protected_branches", &config.protected_branches)?,
            config,
            digests: KeyedState::new("supply_chain_digests"),
            registries: KeyedState::new("supply_chain_registries"),
        })
    }

    fn attested(&mut self, event: &Event, artifact: &str, digest: &str) {
        let memory = micros(self.config.memory);
        self.digests.update(&event.key(artifact), event.at.saturating_add(memory), |digests| {
            digests.attested.push((normal(digest), event.at, event.evidence.clone()));
            if digests.attested.len() > KEPT {
                digests.attested.remove(0);
            }
        });
    }

    fn deployed(&mut self, event: &Event, build: &Build, artifact: &str, digest: &str, hits: &mut Vec<Hit>) {
        let digest = normal(digest);
        if let Some(attested) = &build.attested_digest {
            if normal(attested) != digest {
                hits.push(mismatch(event, artifact, (event.at, event.at), vec![event.evidence.clone()]));
            }
            return;
        }
        // Without any attestation of this artifact there is nothing to differ from.
        let Some(digests) = self.digests.get(&event.key(artifact)) else { return };
        if digests.attested.iter().any(|(known, ..)| *known == digest) {
            return;
        }
        if let Some((_, at, evidence)) =
            digests.attested.iter().filter(|(_, at, _)| *at <= event.at).max_by_key(|a| a.1)
        {
            hits.push(mismatch(event, artifact, (*at, event.at), vec![evidence.clone(), event.evidence.clone()]));
        }
    }

    fn branch(&self, event: &Event, build: &Build, hits: &mut Vec<Hit>) {
        let Some(branch) = &build.branch else { return };
        let protected = build.branch_protected.unwrap_or_else(|| self.protected.iter().any(|p| p.matches(branch)));
        if protected || !self.config.release_envs.contains(&event.env) {
            return;
        }
        hits.push(Hit {
            rule: BRANCH,
            entity_type: "artifact",
            entity: build.artifact.clone().unwrap_or_else(|| event.user.clone()),
            window: (event.at, event.at),
            summary: format!("built for {} from the unprotected branch {branch}", event.env),
            evidence: vec![event.evidence.clone()],
        });
    }

    fn sources(&mut self, event: &Event, build: &Build, hits: &mut Vec<Hit>) {
        if build.registries.is_empty() {
            return;
        }
        let artifact = build.artifact.clone().unwrap_or_default();
        let key = event.key(&artifact);
        let memory = micros(self.config.memory);
        let learning = micros(self.config.learning);
        self.registries.update(&key, later([event.at], memory), |seen| {
            let first = seen.first.map_or(event.at, |first| first.min(event.at));
            seen.first = Some(first);
            for registry in &build.registries {
                if seen.known.contains(registry) {
                    continue;
                }
                if seen.known.len() < KEPT {
                    seen.known.push(registry.clone());
                }
                if event.at - first >= learning {
                    hits.push(Hit {
                        rule: REGISTRY,
                        entity_type: "artifact",
                        entity: artifact.clone(),
                        window: (event.at, event.at),
                        summary: format!("dependencies from {registry}, never used for it before"),
                        evidence: vec![event.evidence.clone()],
                    });
                }
            }
        });
    }
}

fn mismatch(event: &Event, artifact: &str, window: (i64, i64), evidence: Vec<EvidenceRef>) -> Hit {
    Hit {
        rule: DIGEST,
        entity_type: "artifact",
        entity: artifact.to_owned(),
        window,
        summary: format!("deployed to {} with a digest nobody attested", event.env),
        evidence,
    }
}

fn normal(digest: &str) -> String {
    let digest = digest.trim().to_ascii_lowercase();
    digest.strip_prefix("sha256:").map(str::to_owned).unwrap_or(digest)
}

impl Detector for SupplyChain {
    fn rules(&self) -> Vec<RuleMeta> {
        let tags = &["initial-access", "t1195", "t1195.002"];
        vec![
            meta(DIGEST, "Deployed Artifact Differs From Its Attestation", Severity::Critical, tags),
            meta(BRANCH, "Release Built From An Unprotected Branch", Severity::High, tags),
            meta(
                REGISTRY,
                "Dependencies From A New Registry",
                Severity::Medium,
                &["initial-access", "t1195", "t1195.001"],
            ),
        ]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        let Some(build) = &event.build else { return };
        match (event.action, &build.artifact, &build.digest) {
            (Action::Attestation, Some(artifact), Some(digest)) => self.attested(event, artifact, digest),
            (Action::Deploy, Some(artifact), Some(digest)) => self.deployed(event, build, artifact, digest, hits),
            (Action::Build, ..) => {
                self.branch(event, build, hits);
                self.sources(event, build, hits);
            }
            _ => {}
        }
    }

    fn memories(&self) -> Vec<&dyn Memory> {
        vec![&self.digests, &self.registries]
    }

    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        vec![&mut self.digests, &mut self.registries]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::*;

    fn with(at: i64, action: Action, build: Build) -> Event {
        Event { build: Some(build), ..event("ci", at, action) }
    }

    fn digest(at: i64, action: Action, digest: &str) -> Event {
        with(at, action, Build { artifact: Some("api".into()), digest: Some(digest.into()), ..Build::default() })
    }

    fn detector() -> SupplyChain {
        SupplyChain::new(SupplyChainConfig::default()).unwrap()
    }

    #[test]
    fn a_digest_nobody_attested() {
        let mut first = detector();
        assert_eq!(run(&mut first, &[digest(0, Action::Deploy, "aa")]), [], "nothing attested yet");
        run(&mut first, &[digest(1, Action::Attestation, "sha256:AA"), digest(2, Action::Attestation, "bb")]);
        let mut second = reborn(first, detector());
        assert_eq!(run(&mut second, &[digest(3, Action::Deploy, "aa"), digest(4, Action::Deploy, "sha256:bb")]), []);
        let hits = run(&mut second, &[digest(5, Action::Deploy, "cc")]);
        assert_eq!(hits.len(), 1);
        assert_eq!((hits[0].rule, hits[0].window), (DIGEST, (2, 5)));
        let inline = Build { attested_digest: Some("dd".into()), ..digest(6, Action::Deploy, "ee").build.unwrap() };
        assert_eq!(run(&mut second, &[with(6, Action::Deploy, inline)]).len(), 1);
    }

    #[test]
    fn unprotected_branches_matter_for_releases() {
        let build = |branch: &str, branch_protected| Build {
            artifact: Some("api".into()),
            branch: Some(branch.into()),
            branch_protected,
            ..Build::default()
        };
        let staging = Event { env: "staging".into(), ..with(0, Action::Build, build("x", None)) };
        let hits = run(
            &mut detector(),
            &[
                with(0, Action::Build, build("main", None)),
                with(1, Action::Build, build("release/2", None)),
                with(2, Action::Build, build("fix", Some(true))),
                staging,
                with(3, Action::Build, build("fix", None)),
                with(4, Action::Build, build("main", Some(false))),
            ],
        );
        assert_eq!(hits.iter().map(|h| h.window.0).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn a_registry_is_new_once_and_not_while_learning() {
        let build = |at, registries: &[&str]| {
            let registries = registries.iter().map(|r| (*r).to_owned()).collect();
            with(at, Action::Build, Build { artifact: Some("api".into()), registries, ..Build::default() })
        };
        let hits = run(
            &mut detector(),
            &[
                build(0, &["crates.io"]),
                build(HOUR, &["mirror.example"]),
                build(25 * HOUR, &["crates.io", "evil.example"]),
                build(26 * HOUR, &["evil.example"]),
            ],
        );
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].summary, "dependencies from evil.example, never used for it before");
    }
}
