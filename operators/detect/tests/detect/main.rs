//! Detections as they run: what ships, and how rules are operated.

mod operating;
mod shipped;
