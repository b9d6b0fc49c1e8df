//! The exact recognizers, each run only where an anchor or a keyword says that it may match.

pub(crate) mod bank;
pub(crate) mod card;
pub(crate) mod context;
pub(crate) mod email;
pub(crate) mod entropy;
pub(crate) mod keyword;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod phone;
pub(crate) mod provider;
pub(crate) mod secret;
pub(crate) mod ssn;
