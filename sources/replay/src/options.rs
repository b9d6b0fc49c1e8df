//! What a replay is asked to do; one field for each argument of `companyos replay`.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

/// Arguments of a replay. [`ReplayOptions::new`] fills in the defaults.
#[derive(Clone)]
pub struct ReplayOptions {
    /// File to read.
    pub file: PathBuf,
    /// YAML map from the file's rows to events.
    pub map: PathBuf,
    /// Topic to produce to; none takes the name of the map's stream.
    pub topic: Option<String>,
    /// Kafka bootstrap servers, comma separated.
    pub brokers: String,
    /// Further librdkafka settings (SASL, TLS, batching, …), which win over this crate's own.
    pub kafka: BTreeMap<String, String>,
    /// How fast to send.
    pub speed: Speed,
    /// Longest single wait that [`Speed::Times`] may cause; longer gaps in the data are cut to it.
    pub max_pause: Option<Duration>,
    /// Continue after the last acknowledged row of an earlier run.
    pub resume: bool,
    /// Stop at the first row that cannot be mapped, instead of sending it as it is.
    pub strict: bool,
    /// Count and report rows that are too large, instead of stopping at the first.
    pub skip_oversized: bool,
    /// Stop after this many rows of the file have been read in this run.
    pub limit: Option<u64>,
    /// Folder of the checkpoint file; none puts it beside `file`.
    pub state_dir: Option<PathBuf>,
    /// Most rows that may be sent and not yet acknowledged.
    pub max_in_flight: usize,
    /// Most bytes that may be sent and not yet acknowledged.
    pub max_in_flight_bytes: usize,
    /// Largest row accepted, in bytes, uncompressed.
    pub max_row_bytes: usize,
    /// How often the checkpoint file is written while rows are acknowledged.
    pub checkpoint_interval: Duration,
    /// How long to wait for the broker's first answer, and after a shutdown for its last ones.
    pub broker_timeout: Duration,
    /// Show a progress bar on standard error if that is a terminal.
    pub progress: bool,
}

impl ReplayOptions {
    /// Options for replaying `file` by `map` to `brokers`, everything else by default.
    pub fn new(file: impl Into<PathBuf>, map: impl Into<PathBuf>, brokers: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            map: map.into(),
            topic: None,
            brokers: brokers.into(),
            kafka: BTreeMap::new(),
            speed: Speed::Max,
            max_pause: None,
            resume: false,
            strict: false,
            skip_oversized: false,
            limit: None,
            state_dir: None,
            max_in_flight: 10_000,
            max_in_flight_bytes: 32 << 20,
            max_row_bytes: 8 << 20,
            checkpoint_interval: Duration::from_secs(1),
            broker_timeout: Duration::from_secs(30),
            progress: true,
        }
    }
}

// Settings hold passwords, so only their names are shown.
impl fmt::Debug for ReplayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayOptions")
            .field("file", &self.file)
            .field("map", &self.map)
            .field("topic", &self.topic)
            .field("brokers", &self.brokers)
            .field("kafka", &self.kafka.keys().collect::<Vec<_>>())
            .field("speed", &self.speed)
            .field("max_pause", &self.max_pause)
            .field("resume", &self.resume)
            .field("strict", &self.strict)
            .field("skip_oversized", &self.skip_oversized)
            .field("limit", &self.limit)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// How fast events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Speed {
    /// As fast as the broker takes them.
    #[default]
    Max,
    /// At the pace of the events' own times, this many times as fast.
    Times(f64),
}

/// A speed that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("speed {0:?}: expected \"max\" or a number greater than 0, such as 1, 60 or 0.5")]
pub struct SpeedError(String);

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
            _ => Err(SpeedError(text.to_owned())),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Max => f.write_str("max"),
            Speed::Times(times) => write!(f, "{times}"),
        }
    }
}

/// Reads `name=value` as a librdkafka setting, for a repeatable command-line argument.
///
/// The error names the setting, never its value.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected name=value, such as security.protocol=SSL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_max_or_positive() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("60".parse(), Ok(Speed::Times(60.0)));
        assert_eq!("0.5x".parse(), Ok(Speed::Times(0.5)));
        for bad in ["", "0", "-1", "inf", "NaN", "fast"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_do_not_show_in_debug_output() {
        let mut options = ReplayOptions::new("f", "m", "b");
        options.kafka.extend([parse_setting("sasl.password=hunter=2").unwrap()]);
        assert_eq!(options.kafka["sasl.password"], "hunter=2");
        assert!(!format!("{options:?}").contains("hunter"));
        assert!(!parse_setting("=hunter").unwrap_err().contains("hunter"));
    }
}
