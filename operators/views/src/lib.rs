//! Materialized views in SQL: planning, partial and final aggregates.
