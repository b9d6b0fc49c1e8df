//! Databases in MaxMind's format: places and networks of addresses, from files as a rule set names them.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use companyos_detect::{DetectOperator, Locator, Place, RuleBook};
use maxminddb_writer::{Database, metadata::IpVersion, paths::IpAddrWithMask};
use serde::Serialize;
use serde_json::{Value, json};

use crate::operating::found;

#[derive(Serialize)]
struct City {
    location: Location,
}

#[derive(Serialize)]
struct Location {
    latitude: f64,
    longitude: f64,
}

#[derive(Serialize)]
struct Network {
    autonomous_system_number: u32,
}

const LONDON: Location = Location { latitude: 51.5, longitude: -0.12 };
const NEW_YORK: Location = Location { latitude: 40.7, longitude: -74.0 };

/// A database as MaxMind's own tools write it, with what the networks stand for.
fn write(path: &Path, version: IpVersion, kind: &str, entries: Vec<(&str, impl Serialize)>) {
    let mut database = Database::default();
    database.metadata.ip_version = version;
    database.metadata.database_type = kind.to_owned();
    database.metadata.binary_format_major_version = 2;
    for (network, value) in entries {
        let value = database.insert_value(value).unwrap();
        database.insert_node(network.parse::<IpAddrWithMask>().unwrap(), value);
    }
    database.write_to(fs::File::create(path).unwrap()).unwrap();
}

fn places(folder: &Path) {
    let cities = vec![("203.0.113.0/24", City { location: LONDON }), ("198.51.100.0/24", City { location: NEW_YORK })];
    write(&folder.join("places.mmdb"), IpVersion::V4, "GeoLite2-City", cities);
}

fn book(folder: &Path, config: &str) -> Arc<RuleBook> {
    fs::write(folder.join("detections.yaml"), format!("rules: []\n{config}")).unwrap();
    Arc::new(RuleBook::load(folder).unwrap())
}

fn rules(book: Arc<RuleBook>, events: &[Value]) -> BTreeSet<String> {
    found(&mut DetectOperator::new(book).unwrap(), events).into_iter().map(|f| f.rule_id).collect()
}

fn login(at: &str, ip: &str) -> Value {
    json!({"signal_type": "login_success", "actor": "ann", "at": at, "evidence": {"ip": ip}})
}

#[test]
fn logins_are_too_far_apart_by_their_addresses_alone() {
    let folder = tempfile::tempdir().unwrap();
    places(folder.path());
    let far = [login("0s", "203.0.113.7"), login("10m", "198.51.100.7")];
    let travelled = BTreeSet::from(["stateful.impossible_travel".to_owned()]);
    assert_eq!(rules(book(folder.path(), "places: places.mmdb"), &far), travelled);
    assert_eq!(rules(book(folder.path(), ""), &far), BTreeSet::new(), "nobody knows where they are");
    let near = [login("0s", "203.0.113.7"), login("10m", "203.0.113.200")];
    assert_eq!(rules(book(folder.path(), "places: places.mmdb"), &near), BTreeSet::new());
    // What is in no network of the database has no place.
    let nowhere = [login("0s", "203.0.113.7"), login("10m", "192.0.2.1")];
    assert_eq!(rules(book(folder.path(), "places: places.mmdb"), &nowhere), BTreeSet::new());
}

#[test]
fn two_addresses_of_one_network_are_one_place_for_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let network = |autonomous_system_number| Network { autonomous_system_number };
    let networks =
        vec![("203.0.113.0/24", network(64500)), ("198.51.100.0/24", network(64500)), ("192.0.2.0/24", network(64501))];
    write(&folder.path().join("networks.mmdb"), IpVersion::V4, "GeoLite2-ASN", networks);
    let used = |at: &str, ip: &str| json!({"signal_type": "api_call", "actor": "ann", "at": at, "evidence": {"ip": ip, "session_id": "s1"}});
    let same = [used("0s", "203.0.113.7"), used("1m", "198.51.100.7")];
    let reused = BTreeSet::from(["stateful.session_reuse".to_owned()]);
    assert_eq!(rules(book(folder.path(), "networks: networks.mmdb"), &same), BTreeSet::new());
    assert_eq!(rules(book(folder.path(), ""), &same), reused, "without the database they are two");
    let other = [used("0s", "203.0.113.7"), used("1m", "192.0.2.7")];
    assert_eq!(rules(book(folder.path(), "networks: networks.mmdb"), &other), reused);
}

#[test]
fn addresses_of_version_six_and_broken_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("six.mmdb");
    write(&path, IpVersion::V6, "GeoLite2-City", vec![("2001:db8::/32", City { location: LONDON })]);
    let locator = Locator::open(&path).unwrap();
    assert_eq!(locator.place("2001:db8:1::5".parse().unwrap()), Place::new(51.5, -0.12));
    assert_eq!(locator.place("2001:db9::5".parse().unwrap()), None);
    assert_eq!(locator.asn("2001:db8:1::5".parse().unwrap()), None, "a database of places knows no networks");

    fs::write(folder.path().join("places.mmdb"), b"not a database").unwrap();
    fs::write(folder.path().join("detections.yaml"), "rules: []\nplaces: places.mmdb\n").unwrap();
    let error = RuleBook::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("places.mmdb"), "{error}");
}
