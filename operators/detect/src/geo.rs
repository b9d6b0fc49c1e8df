//! Where an address is, and how far apart two places are.

use std::{fmt, net::IpAddr, path::Path};

use maxminddb::{Reader, geoip2, path};
use serde::{Deserialize, Serialize};

/// A point on Earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Latitude, north positive.
    pub latitude: f64,
    /// Longitude, east positive.
    pub longitude: f64,
}

impl Place {
    /// A place, if the numbers are one. (0, 0) is what broken locators say, so it is none.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let valid = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        (valid && (latitude, longitude) != (0.0, 0.0)).then_some(Self { latitude, longitude })
    }

    /// Kilometres along the great circle, on a sphere of Earth's mean radius (haversine; within 0.5 %).
    pub fn kilometres_to(self, other: Self) -> f64 {
        const RADIUS: f64 = 6371.0088;
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = ((b - a) / 2.0).sin();
        let half_lon = ((other.longitude - self.longitude).to_radians() / 2.0).sin();
        let h = half_lat * half_lat + a.cos() * b.cos() * half_lon * half_lon;
        2.0 * RADIUS * h.sqrt().min(1.0).asin()
    }
}

/// A database in MaxMind's format that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("location database {path}: {problem}")]
pub struct LocatorError {
    path: String,
    problem: String,
}

/// Looks addresses up in a database in MaxMind's format (City for places, ASN for networks).
pub struct Locator {
    reader: Reader<Vec<u8>>,
}

impl Locator {
    /// Reads the database into memory.
    pub fn open(path: &Path) -> Result<Self, LocatorError> {
        let reader = Reader::open_readfile(path)
            .map_err(|e| LocatorError { path: path.display().to_string(), problem: e.to_string() })?;
        Ok(Self { reader })
    }

    /// The place of an address, if the database has one.
    pub fn place(&self, ip: IpAddr) -> Option<Place> {
        let city = self.reader.lookup(ip).ok()?.decode::<geoip2::City<'_>>().ok()??;
        Place::new(city.location.latitude?, city.location.longitude?)
    }

    /// The autonomous system of an address, if the database has it.
    pub fn asn(&self, ip: IpAddr) -> Option<u32> {
        self.reader.lookup(ip).ok()?.decode_path(&path!["autonomous_system_number"]).ok()?
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_agree_with_published_ones() {
        // London Heathrow to New York JFK: 5,540 km (great circle, WGS84 5,555 km).
        let heathrow = Place::new(51.4700, -0.4543).unwrap();
        let kennedy = Place::new(40.6413, -73.7781).unwrap();
        let km = heathrow.kilometres_to(kennedy);
        assert!((km - 5540.0).abs() < 10.0, "{km}");
        // A quarter of the meridian.
        let pole = Place::new(90.0, 0.0).unwrap().kilometres_to(Place::new(0.0, 10.0).unwrap());
        assert!((pole - 10_007.56).abs() < 0.1, "{pole}");
        // Across the date line the short way: 2 degrees on the equator.
        let short = Place::new(0.0, 179.0).unwrap().kilometres_to(Place::new(0.0, -179.0).unwrap());
        assert!((short - 222.39).abs() < 0.01, "{short}");
    }

    #[test]
    fn nonsense_is_no_place() {
        assert_eq!(Place::new(0.0, 0.0), None);
        assert_eq!(Place::new(91.0, 0.0), None);
        assert_eq!(Place::new(f64::NAN, 1.0), None);
    }

    #[test]
    fn a_missing_database_is_named() {
        let error = Locator::open(Path::new("no/such.mmdb")).unwrap_err().to_string();
        assert!(error.contains("no/such.mmdb"), "{error}");
    }
}
