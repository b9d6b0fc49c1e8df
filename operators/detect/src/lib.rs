//! Security detections: rules, stateful detectors, findings and the operation of rules.
