//! Token theft: one session or token used from two networks within a short time.

use std::{net::IpAddr, time::Duration};

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, later, meta, micros};
use crate::{
    EvidenceRef,
    event::Event,
    finding::{RuleMeta, Severity},
};

/// When it is theft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionReuseConfig {
    /// Uses from two networks less than this apart.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

impl Default for SessionReuseConfig {
    fn default() -> Self {
        Self { window: Duration::from_secs(1800) }
    }
}

/// The detector. A network is the autonomous system where known, else the /16 (IPv4) or /32 (IPv6).
#[derive(Debug)]
pub struct SessionReuse {
    config: SessionReuseConfig,
    state: KeyedState<Uses>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Uses {
    /// Latest use from each network.
    latest: Vec<Use>,
    /// Pairs of networks already told.
    told: Vec<(String, String)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Use {
    network: String,
    at: i64,
    evidence: EvidenceRef,
}

const RULE: &str = "stateful.session_reuse";
/// Networks kept per session.
const KEPT: usize = 16;

impl SessionReuse {
    /// With nothing seen yet.
    pub fn new(config: SessionReuseConfig) -> Self {
        Self { config, state: KeyedState::new("session_reuse") }
    }
}

impl Detector for SessionReuse {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(
            RULE,
            "Session Used From Two Networks",
            Severity::High,
            &["credential-access", "t1539", "lateral-movement", "t1550.004"],
        )]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        let (Some(session), Some(ip)) = (&event.session, event.ip) else { return };
        let Some(network) = network(ip, event.asn) else { return };
        let window = micros(self.config.window);
        let key = event.key(session);
        let newest = self.state.get(&key).and_then(|u| u.latest.iter().map(|u| u.at).max());
        self.state.update(&key, later(newest.into_iter().chain([event.at]), window), |uses| {
            for other in uses.latest.iter().filter(|u| u.network != network) {
                let pair = if other.network < network {
                    (other.network.clone(), network.clone())
                } else {
                    (network.clone(), other.network.clone())
                };
                if (other.at - event.at).abs() >= window || uses.told.contains(&pair) {
                    continue;
                }
                let mut evidence = vec![(other.at, other.evidence.clone()), (event.at, event.evidence.clone())];
                evidence.sort();
                hits.push(Hit {
                    rule: RULE,
                    entity_type: "user",
                    entity: event.user.clone(),
                    window: (other.at.min(event.at), other.at.max(event.at)),
                    summary: format!("one session in networks {} and {}", pair.0, pair.1),
                    evidence: evidence.into_iter().map(|(_, e)| e).collect(),
                });
                uses.told.push(pair);
            }
            match uses.latest.iter_mut().find(|u| u.network == network) {
                Some(same) if same.at > event.at => {}
                Some(same) => {
                    same.at = event.at;
                    same.evidence = event.evidence.clone();
                }
                None => {
                    if uses.latest.len() == KEPT {
                        uses.latest.remove(0);
                    }
                    uses.latest.push(Use { network, at: event.at, evidence: event.evidence.clone() });
                }
            }
            if uses.told.len() > KEPT {
                uses.told.remove(0);
            }
        });
    }

    fn memories(&self) -> Vec<&dyn Memory> {
        vec![&self.state]
    }

    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        vec![&mut self.state]
    }
}

/// The network of a public address; private ones say nothing about where somebody is.
fn network(ip: IpAddr, asn: Option<u32>) -> Option<String> {
    let private = match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    if private {
        return None;
    }
    Some(match (asn, ip) {
        (Some(asn), _) => format!("AS{asn}"),
        (None, IpAddr::V4(v4)) => {
            let [a, b, ..] = v4.octets();
            format!("{a}.{b}.0.0/16")
        }
        (None, IpAddr::V6(v6)) => {
            let [a, b, ..] = v6.segments();
            format!("{a:x}:{b:x}::/32")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{detectors::testing::*, event::Action};

    fn used(at: i64, session: &str, ip: &str, asn: Option<u32>) -> Event {
        Event { session: Some(session.into()), ip: ip.parse().ok(), asn, ..event("u", at, Action::Other) }
    }

    fn detector() -> SessionReuse {
        SessionReuse::new(SessionReuseConfig::default())
    }

    #[test]
    fn two_networks_are_told_once_and_in_either_order() {
        let events = [
            used(0, "s", "203.0.113.7", None),
            used(60 * SECOND, "s", "198.51.100.9", None),
            used(120 * SECOND, "s", "203.0.200.1", None),
        ];
        let hits = run(&mut detector(), &events);
        assert_eq!(hits.len(), 1, "{hits:?}");
        assert_eq!(hits[0].summary, "one session in networks 198.51.0.0/16 and 203.0.0.0/16");
        assert_eq!(hits[0].window, (0, 60 * SECOND));
        let mut reversed = events[..2].to_vec();
        reversed.reverse();
        assert_eq!(run(&mut detector(), &reversed)[0].evidence, hits[0].evidence);
    }

    #[test]
    fn not_other_sessions_nor_later_nor_private_nor_the_same_provider() {
        for events in [
            [used(0, "s", "203.0.113.7", None), used(1, "z", "198.51.100.9", None)],
            [used(0, "s", "203.0.113.7", None), used(1800 * SECOND, "s", "198.51.100.9", None)],
            [used(0, "s", "203.0.113.7", None), used(1, "s", "10.0.0.1", None)],
            [used(0, "s", "203.0.113.7", Some(64500)), used(1, "s", "198.51.100.9", Some(64500))],
            [used(0, "s", "2001:db8:1::1", None), used(1, "s", "2001:db8:2::1", None)],
        ] {
            assert_eq!(run(&mut detector(), &events), [], "{events:?}");
        }
    }

    #[test]
    fn it_survives_a_snapshot_and_expires() {
        let mut first = detector();
        run(&mut first, &[used(0, "s", "203.0.113.7", None)]);
        let mut second = reborn(first, detector());
        assert_eq!(run(&mut second, &[used(1, "s", "198.51.100.9", None)]).len(), 1);
        second.expire(HOUR);
        assert_eq!(second.size(), (0, 0));
    }
}
