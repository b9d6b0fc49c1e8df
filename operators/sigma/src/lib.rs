//! Sigma rules and correlations, evaluated over columns.
