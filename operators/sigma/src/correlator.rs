//! Follows matches over time and tells when a correlation holds. Pure: time comes from events and from the caller.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::correlation::{CorrelationSet, Spec};
use crate::correlator_state::{
    Changes, CorrelatorHead, CorrelatorPart, Part, Place, VERSION, group_key, held_key, place,
};
use crate::group::{Group, Item, Window};

/// How patient and how large a correlator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelatorConfig {
    /// How far the watermark must be past an event before it is looked at; 0 looks at it at once. Holding events
    /// for as long as they can be out of order makes the hits independent of the order they arrive in.
    pub hold_us: i64,
    /// How far behind the watermark an event may be and still count.
    pub allowed_lateness_us: i64,
    /// At most so many events are named in a hit: the last ones.
    pub max_refs: usize,
    /// At most so many events are kept per group (never fewer than twice a condition's threshold).
    pub max_events_per_group: usize,
}

impl Default for CorrelatorConfig {
    fn default() -> Self {
        Self { hold_us: 0, allowed_lateness_us: 60_000_000, max_refs: 100, max_events_per_group: 10_000 }
    }
}

/// A correlation that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorrelationHit {
    /// The correlation's index.
    pub correlation: u32,
    /// The same for the same correlation, scope, group and window, whenever it is computed.
    pub id: String,
    /// The scope (tenant) of the events.
    pub scope: String,
    /// Names and values of the group.
    pub group: Vec<(String, String)>,
    /// When the window begins.
    pub window_start_us: i64,
    /// When the condition held.
    pub window_end_us: i64,
    /// What was counted or computed.
    pub value: f64,
    /// The events that count, at most [`CorrelatorConfig::max_refs`]; a hit of another correlation is
    /// `correlation:ID`.
    pub events: Vec<String>,
    /// How many there were.
    pub total_events: u64,
}

/// What a correlator holds and has left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorrelatorStats {
    /// Groups with state.
    pub groups: u64,
    /// Events in them.
    pub events: u64,
    /// Events waiting for the watermark.
    pub held: u64,
    /// Events that came too late.
    pub late_dropped: u64,
    /// Events without a field to group by.
    pub ungrouped: u64,
    /// Events pushed out of a group that was full.
    pub overflowed: u64,
}

pub(crate) type GroupKey = (u32, String, Vec<String>);
pub(crate) type HeldKey = (i64, String, GroupKey, u16);

/// Follows matches over time.
#[derive(Debug)]
pub struct Correlator {
    set: Arc<CorrelationSet>,
    config: CorrelatorConfig,
    watermark_us: i64,
    groups: BTreeMap<GroupKey, Group>,
    held: BTreeMap<HeldKey, Item>,
    stats: CorrelatorStats,
    changes: Changes,
}

impl Correlator {
    /// A correlator without state.
    pub fn new(set: Arc<CorrelationSet>, config: CorrelatorConfig) -> Correlator {
        Correlator {
            set,
            config,
            watermark_us: i64::MIN,
            groups: BTreeMap::new(),
            held: BTreeMap::new(),
            stats: CorrelatorStats::default(),
            changes: Changes::default(),
        }
    }

    /// Takes in a rule's match. `scope` keeps tenants apart: no group spans two. `event` names the event in hits and
    /// tells a repeated delivery; `lookup` answers the event's columns ([`CorrelationSet::fields`]).
    pub fn on_match(
        &mut self,
        scope: &str,
        rule: u32,
        event_time_us: i64,
        event: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<CorrelationHit> {
        let set = Arc::clone(&self.set);
        let mut hits = Vec::new();
        let routes = set.rule_routes(rule);
        if routes.is_empty() {
            return hits;
        }
        if event_time_us < self.horizon() {
            self.stats.late_dropped += 1;
            return hits;
        }
        for (correlation, input) in routes {
            let spec = &set.specs[*correlation as usize];
            let Some((group, item)) = read(spec, *input, event_time_us, event, lookup) else {
                self.stats.ungrouped += 1;
                continue;
            };
            let key = (*correlation, scope.to_owned(), group);
            if self.config.hold_us > 0 {
                let key = (event_time_us, event.to_owned(), key, *input);
                self.changes.held.insert(key.clone());
                self.held.insert(key, item);
            } else {
                hits.extend(self.apply(key, item));
            }
        }
        hits.extend(self.release());
        hits
    }

    /// The stream's event time has reached `watermark_us`: held events are looked at, windows close, old state goes.
    /// Without calls to this nothing is ever forgotten.
    pub fn advance(&mut self, watermark_us: i64) -> Vec<CorrelationHit> {
        if watermark_us <= self.watermark_us {
            return Vec::new();
        }
        self.watermark_us = watermark_us;
        let mut hits = self.release();
        let horizon = self.horizon().saturating_sub(self.config.hold_us);
        let set = Arc::clone(&self.set);
        let mut closed = Vec::new();
        for (key, group) in &mut self.groups {
            let spec = &set.specs[key.0 as usize];
            if spec.deferred {
                let before = group.items.len();
                closed.extend(group.closed(spec, horizon).into_iter().map(|window| (key.clone(), window)));
                if group.items.len() < before {
                    self.changes.groups.insert(key.clone());
                }
            }
        }
        for (key, window) in closed {
            let hit = self.hit(&key, window);
            hits.extend(self.chain(hit));
        }
        let changes = &mut self.changes.groups;
        self.groups.retain(|key, group| {
            if group.expire(&set.specs[key.0 as usize], horizon) {
                changes.insert(key.clone());
            }
            !group.is_empty()
        });
        hits
    }

    /// The part of the state there is one of.
    pub fn head(&self) -> CorrelatorHead {
        CorrelatorHead { version: VERSION, watermark_us: self.watermark_us, stats: self.stats.clone() }
    }

    /// Every other part, by key.
    pub fn parts(&self) -> impl Iterator<Item = (String, CorrelatorPart)> {
        let groups = self.groups.iter().map(|(key, group)| (group_key(&self.set, key), Part::Group(group.clone())));
        let held = self.held.iter().map(|(key, item)| (held_key(&self.set, key), Part::Held(item.clone())));
        groups.chain(held).map(|(key, part)| (key, CorrelatorPart(part)))
    }

    /// The parts that changed since the last call; nothing where a part is gone.
    pub fn take_changes(&mut self) -> Vec<(String, Option<CorrelatorPart>)> {
        let Changes { groups, held, orphans } = std::mem::take(&mut self.changes);
        let groups = groups
            .iter()
            .map(|key| (group_key(&self.set, key), self.groups.get(key).map(|group| Part::Group(group.clone()))));
        let held =
            held.iter().map(|key| (held_key(&self.set, key), self.held.get(key).map(|item| Part::Held(item.clone()))));
        let gone = orphans.into_iter().map(|key| (key, None));
        gone.chain(groups).chain(held).map(|(key, part)| (key, part.map(CorrelatorPart))).collect()
    }

    /// Goes on from a stored head; its parts are [`put`](Self::put) next. `false`, and nothing is taken, if another
    /// version of this library wrote it: its parts would be misread.
    pub fn restore_head(&mut self, head: CorrelatorHead) -> bool {
        if head.version != VERSION {
            return false;
        }
        (self.watermark_us, self.stats) = (head.watermark_us, head.stats);
        true
    }

    /// Takes back one stored part, or forgets it where there is none any more. The part of a correlation that is gone
    /// or whose definition changed is left out, and told as gone with the next changes.
    pub fn put(&mut self, key: &str, part: Option<CorrelatorPart>) {
        match (place(&self.set, key), part.map(|part| part.0)) {
            (Some(Place::Group(key)), Some(Part::Group(group))) => drop(self.groups.insert(key, group)),
            (Some(Place::Held(key)), Some(Part::Held(item))) => drop(self.held.insert(key, item)),
            (Some(Place::Group(key)), None) => drop(self.groups.remove(&key)),
            (Some(Place::Held(key)), None) => drop(self.held.remove(&key)),
            (_, Some(_)) => drop(self.changes.orphans.insert(key.to_owned())),
            (None, None) => drop(self.changes.orphans.remove(key)),
        }
    }

    /// The same state under another set: what is unchanged in it goes on, and so does what is still to be told as
    /// changed.
    pub fn reload(&mut self, set: Arc<CorrelationSet>, config: CorrelatorConfig) {
        let mut fresh = Correlator::new(set, config);
        (fresh.watermark_us, fresh.stats) = (self.watermark_us, self.stats.clone());
        for (key, part) in self.parts() {
            fresh.put(&key, Some(part));
        }
        for (key, _) in self.take_changes() {
            match place(&fresh.set, &key) {
                Some(Place::Group(key)) => drop(fresh.changes.groups.insert(key)),
                Some(Place::Held(key)) => drop(fresh.changes.held.insert(key)),
                None => drop(fresh.changes.orphans.insert(key)),
            }
        }
        *self = fresh;
    }

    /// What is held and what was left out.
    pub fn stats(&self) -> CorrelatorStats {
        CorrelatorStats {
            groups: self.groups.len() as u64,
            events: self.groups.values().map(|g| g.items.len() as u64).sum(),
            held: self.held.len() as u64,
            ..self.stats.clone()
        }
    }

    fn horizon(&self) -> i64 {
        self.watermark_us.saturating_sub(self.config.allowed_lateness_us)
    }

    fn release(&mut self) -> Vec<CorrelationHit> {
        let mut hits = Vec::new();
        let ready = self.watermark_us.saturating_sub(self.config.hold_us);
        while let Some(entry) = self.held.first_entry() {
            if entry.key().0 > ready {
                break;
            }
            let (held, item) = entry.remove_entry();
            let key = held.2.clone();
            self.changes.held.insert(held);
            hits.extend(self.apply(key, item));
        }
        hits
    }

    fn apply(&mut self, key: GroupKey, item: Item) -> Vec<CorrelationHit> {
        let set = Arc::clone(&self.set);
        let spec = &set.specs[key.0 as usize];
        let group = self.groups.entry(key.clone()).or_default();
        let time = item.time_us;
        if !group.insert(item) {
            return Vec::new();
        }
        if !self.changes.groups.contains(&key) {
            self.changes.groups.insert(key.clone());
        }
        let windows = if spec.deferred { Vec::new() } else { group.rising(spec, time) };
        let threshold = spec.predicates.iter().map(|(_, n)| *n as usize).max().unwrap_or(0);
        let room = self.config.max_events_per_group.max(threshold.saturating_mul(2));
        if group.items.len() > room {
            let over = group.items.len() - room;
            group.items.drain(..over);
            self.stats.overflowed += over as u64;
        }
        let mut hits = Vec::new();
        for window in windows {
            let hit = self.hit(&key, window);
            hits.extend(self.chain(hit));
        }
        hits
    }

    /// A hit, and what its last events carry for correlations built on it.
    fn hit(&self, key: &GroupKey, window: Window) -> (CorrelationHit, BTreeMap<String, String>) {
        let (at, scope, group) = key;
        let spec = &self.set.specs[*at as usize];
        let info = &self.set.correlations()[*at as usize];
        let mut hash = Sha256::new();
        let start = window.start_us.to_string();
        for part in [info.key(), scope].into_iter().chain(group.iter().map(String::as_str)).chain([start.as_str()]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut carried: BTreeMap<String, String> = BTreeMap::new();
        for item in &window.items {
            for (name, value) in spec.carry.iter().zip(&item.carry) {
                if let Some(value) = value {
                    carried.insert(name.clone(), value.clone());
                }
            }
        }
        let group: Vec<(String, String)> = spec.group_by.iter().cloned().zip(group.iter().cloned()).collect();
        carried.extend(group.iter().cloned());
        let skipped = window.items.len().saturating_sub(self.config.max_refs);
        let hit = CorrelationHit {
            correlation: *at,
            id: hex::encode(&hash.finalize()[..16]),
            scope: scope.clone(),
            group,
            window_start_us: window.start_us,
            window_end_us: window.end_us,
            value: window.value,
            events: window.items.iter().skip(skipped).map(|i| i.event.clone()).collect(),
            total_events: window.items.len() as u64,
        };
        (hit, carried)
    }

    /// Feeds a hit to the correlations built on it; they never form a cycle.
    fn chain(&mut self, first: (CorrelationHit, BTreeMap<String, String>)) -> Vec<CorrelationHit> {
        let set = Arc::clone(&self.set);
        let mut hits = Vec::new();
        let mut queue = VecDeque::from([first]);
        while let Some((hit, carried)) = queue.pop_front() {
            for (outer, input) in set.hit_routes(hit.correlation) {
                let spec = &set.specs[*outer as usize];
                let name = format!("correlation:{}", hit.id);
                let lookup = |field: &str| carried.get(field).cloned();
                match read(spec, *input, hit.window_end_us, &name, &lookup) {
                    Some((group, item)) => hits.extend(self.apply((*outer, hit.scope.clone(), group), item)),
                    None => self.stats.ungrouped += 1,
                }
            }
            hits.insert(0, hit);
        }
        hits
    }
}

/// The group and what is kept of an event; `None` if a field to group by is missing.
fn read(
    spec: &Spec,
    input: u16,
    time_us: i64,
    event: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Option<(Vec<String>, Item)> {
    let from = &spec.inputs[input as usize];
    let first = |columns: &Vec<String>| columns.iter().find_map(|c| lookup(c));
    let group: Option<Vec<String>> = from.group.iter().map(first).collect();
    // Several value fields count as one: all of them have to be there.
    let values: Option<Vec<String>> = from.values.iter().map(first).collect();
    let value = values.filter(|v| !v.is_empty()).map(|v| v.join("\u{1f}"));
    let carry = from.carry.iter().map(first).collect();
    Some((group?, Item { time_us, event: event.to_owned(), input, value, carry }))
}
