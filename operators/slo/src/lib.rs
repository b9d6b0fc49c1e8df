//! Service level objectives: OpenSLO, burn rates, alerts.
