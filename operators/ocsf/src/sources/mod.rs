//! The tables of attributes, one source each.

pub(crate) mod cloudtrail;
pub(crate) mod github;
pub(crate) mod kubernetes;
pub(crate) mod okta;
pub(crate) mod openssh;
pub(crate) mod own;
