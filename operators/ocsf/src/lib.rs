//! Security events as OCSF: mappers, source authenticity, replay protection, clock skew.
