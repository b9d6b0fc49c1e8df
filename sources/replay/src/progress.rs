//! The progress bar: how far, how fast, how long still.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error; shows nothing where that is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: std::time::Instant,
}

impl Progress {
    /// A bar up to `total` (bytes or rows).
    pub(crate) fn new(total: u64, in_bytes: bool, shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let extent = if in_bytes { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len} rows" };
        let template = format!("{{bar:30}} {{percent:>3}}% {extent} · {{msg}} · {{elapsed}} gone, {{eta}} to go");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self { bar, started: std::time::Instant::now() }
    }

    /// Moves the bar to `position`, with `rows` acknowledged in this run.
    pub(crate) fn update(&self, position: u64, rows: u64) {
        let rate = rows as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.bar.set_message(format!("{rows} rows, {rate:.0}/s"));
        self.bar.set_position(position);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
