//! SIGINT and SIGTERM as a token every role listens to.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGINT or SIGTERM. A second one ends the process at
/// once, for whoever does not want to wait for the drain.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked {
                eprintln!("companyos: asked twice, leaving without draining");
                std::process::exit(130);
            }
            asked = true;
            tracing::info!("shutting down");
            cancel.cancel();
        }
    });
    Ok(token)
}
