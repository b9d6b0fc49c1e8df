//! What a correlator tells as changed is enough to go on from, and no more than what changed.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use companyos_sigma::{
    CorrelationSet, Correlator, CorrelatorConfig, CorrelatorHead, CorrelatorPart, FieldMapping, Loaded, RuleSet,
};
use proptest::prelude::*;

const S: i64 = 1_000_000;

/// A count that fires at once, one that can only be told when its window is over, and one built on the first.
fn set(timespan: &str) -> Arc<CorrelationSet> {
    let text = format!(
        "title: fail\nname: fail\nlogsource: {{}}\ndetection: {{s: {{k: fail}}, condition: s}}\n---\n\
         title: many\nname: many\ncorrelation: {{type: event_count, rules: [fail], group-by: [user], timespan: {timespan}, condition: {{gte: 3}}}}\n---\n\
         title: few\nname: few\ncorrelation: {{type: event_count, rules: [fail], group-by: [user], timespan: 7s, condition: {{lte: 1}}}}\n---\n\
         title: twice\nname: twice\ncorrelation: {{type: event_count, rules: [many], group-by: [user], timespan: 60s, condition: {{gte: 2}}}}\n"
    );
    let loaded = Loaded::from_text("c.yml", &text);
    let (rules, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
    assert!(refused.is_empty() && loaded.refused.is_empty(), "{refused:?} {:?}", loaded.refused);
    let (set, refused) = CorrelationSet::compile(&loaded, &rules, &FieldMapping::default());
    assert!(refused.is_empty(), "{refused:?}");
    Arc::new(set)
}

fn fail(correlator: &mut Correlator, user: &str, second: i64) -> usize {
    let name = format!("{user}@{second}");
    correlator.on_match("t", 0, second * S, &name, &|field| (field == "user").then(|| user.to_owned())).len()
}

fn held(correlator: &Correlator) -> BTreeMap<String, CorrelatorPart> {
    correlator.parts().collect()
}

/// Applies changes to what was stored before, as a chain of snapshots does.
#[derive(Default)]
struct Store(BTreeMap<String, CorrelatorPart>);

impl Store {
    fn take(&mut self, correlator: &mut Correlator) -> usize {
        let changes = correlator.take_changes();
        let count = changes.len();
        for (key, part) in changes {
            match part {
                Some(part) => drop(self.0.insert(key, part)),
                None => drop(self.0.remove(&key)),
            }
        }
        count
    }

    fn restored(&self, head: CorrelatorHead, set: &Arc<CorrelationSet>, config: &CorrelatorConfig) -> Correlator {
        let mut correlator = Correlator::new(Arc::clone(set), config.clone());
        assert!(correlator.restore_head(head));
        self.0.iter().for_each(|(key, part)| correlator.put(key, Some(part.clone())));
        correlator
    }
}

#[derive(Debug, Clone)]
enum Step {
    Fail(u8, i64),
    Advance(i64),
    Store,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u8, 0..40i64).prop_map(|(user, second)| Step::Fail(user, second)),
        2 => (0..60i64).prop_map(Step::Advance),
        2 => Just(Step::Store),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens in between, the stored changes add up to the state, and hits are those of a correlator that
    /// was never stored.
    #[test]
    fn changes_add_up_to_the_state(
        steps in prop::collection::vec(step(), 0..80),
        hold in prop_oneof![Just(0), Just(5)],
    ) {
        let config = CorrelatorConfig { hold_us: hold * S, allowed_lateness_us: 10 * S, ..Default::default() };
        let set = set("10s");
        let mut whole = Correlator::new(Arc::clone(&set), config.clone());
        let mut other = Correlator::new(Arc::clone(&set), config.clone());
        let mut store = Store::default();
        for step in steps {
            match step {
                Step::Fail(user, second) => {
                    let user = format!("u{user}");
                    prop_assert_eq!(fail(&mut whole, &user, second), fail(&mut other, &user, second));
                }
                Step::Advance(to) => prop_assert_eq!(whole.advance(to * S), other.advance(to * S)),
                Step::Store => drop(store.take(&mut other)),
                Step::Restart => {
                    store.take(&mut other);
                    other = store.restored(other.head(), &set, &config);
                }
            }
        }
        store.take(&mut other);
        prop_assert_eq!(&store.0, &held(&other));
        prop_assert_eq!(held(&whole), held(&store.restored(other.head(), &set, &config)));
        prop_assert_eq!(whole.head(), other.head());
    }
}

#[test]
fn only_what_changed_is_told() {
    let mut correlator = Correlator::new(set("10s"), CorrelatorConfig::default());
    for user in 0..1000 {
        fail(&mut correlator, &format!("u{user}"), 1);
    }
    let mut store = Store::default();
    assert_eq!(store.take(&mut correlator), 2000, "a group of each of the two correlations");
    assert_eq!(store.take(&mut correlator), 0);
    fail(&mut correlator, "u7", 2);
    // The same again is no change.
    fail(&mut correlator, "u7", 2);
    assert_eq!(store.take(&mut correlator), 2);
    correlator.advance(200 * S);
    assert_eq!(store.take(&mut correlator), 2000, "all of it is forgotten, and told so");
    assert!(store.0.is_empty());
}

#[test]
fn a_reload_keeps_what_is_unchanged_and_tells_what_is_gone() {
    let (old, new) = (set("10s"), set("20s"));
    let config = CorrelatorConfig::default();
    let mut correlator = Correlator::new(old, config.clone());
    let mut store = Store::default();
    fail(&mut correlator, "ann", 1);
    store.take(&mut correlator);
    fail(&mut correlator, "bob", 1);
    correlator.reload(Arc::clone(&new), config.clone());
    assert_eq!(correlator.stats().groups, 2, "the correlation `few` goes on for both");
    store.take(&mut correlator);
    assert_eq!(store.0, held(&correlator), "the old groups of `many` are no longer stored");
    // Stored by the old definition, read by the new one: left out, and told as gone.
    let mut kept = Store::default();
    let mut first = Correlator::new(set("10s"), config.clone());
    fail(&mut first, "ann", 1);
    kept.take(&mut first);
    let mut second = kept.restored(first.head(), &new, &config);
    assert_eq!(second.stats().groups, 1);
    kept.take(&mut second);
    assert_eq!(kept.0.len(), 1);
}
