//! Finds person data and secrets in text and JSON, and masks, tokenizes, drops or refuses them by
//! policy.

mod anchors;
mod finding;
mod recognize;
mod scanner;

pub use finding::{Finding, Kind};
pub use scanner::Scanner;
