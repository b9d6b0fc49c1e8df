//! The reading thread: file to rows to events, a few batches ahead of the sender.

use tokio::sync::mpsc;

use crate::{
    RowProblem, StopReason,
    map::{Converter, Event},
    rows::{Content, Row, RowError, RowErrorKind, RowSource},
};

const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
const BATCHES_AHEAD: usize = 4;

/// What comes from the reading thread. The last item is never `Rows`.
pub(crate) enum Feed {
    /// Rows in order.
    Rows(Vec<Prepared>),
    /// The end of the file, or the limit.
    End {
        /// Whether rows may be left in the file.
        limited: bool,
    },
    /// Nothing can follow.
    Failed(StopReason),
}

/// A row ready to be sent.
pub(crate) struct Prepared {
    /// Line it starts on.
    pub line: u64,
    /// What to do with it.
    pub content: Prepare,
}

/// What to do with a row.
pub(crate) enum Prepare {
    /// Send the event.
    Event(Event),
    /// Send the bytes as they are.
    Raw(Vec<u8>, RowProblem),
    /// Nothing.
    Blank,
    /// Too large to be sent; says how large and what the limit is.
    TooLarge(String),
}

/// What to read.
pub(crate) struct Plan {
    /// Rows of the file to pass over.
    pub skip: u64,
    /// Rows to read after that.
    pub limit: Option<u64>,
    /// Whether an unmapped row ends it.
    pub strict: bool,
    /// For messages.
    pub max_row_bytes: usize,
}

/// Starts the thread. It ends when the file does, or when the receiver is dropped.
pub(crate) fn spawn(source: Box<dyn RowSource>, converter: Converter, plan: Plan) -> mpsc::Receiver<Feed> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    // A thread of its own: it blocks on the disk and computes, and a replay of days would otherwise
    // hold a slot of the runtime's blocking pool.
    std::thread::spawn(move || {
        let mut batch = Batch { rows: Vec::new(), bytes: 0, sender };
        let last = read(source, &converter, &plan, &mut batch);
        if let Some(last) = last {
            let sent = batch.flush();
            // No receiver means nobody wants to know how it ended.
            let _ = sent.and_then(|()| batch.sender.blocking_send(last).map_err(|_| Gone));
        }
    });
    receiver
}

struct Gone;

struct Batch {
    rows: Vec<Prepared>,
    bytes: usize,
    sender: mpsc::Sender<Feed>,
}

impl Batch {
    fn push(&mut self, row: Prepared, bytes: usize) -> Result<(), Gone> {
        self.rows.push(row);
        self.bytes += bytes;
        match self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.bytes = 0;
        match std::mem::take(&mut self.rows) {
            rows if rows.is_empty() => Ok(()),
            rows => self.sender.blocking_send(Feed::Rows(rows)).map_err(|_| Gone),
        }
    }
}

/// Reads to the end; gives what to say last, or none if nobody listens any more.
fn read(mut source: Box<dyn RowSource>, converter: &Converter, plan: &Plan, batch: &mut Batch) -> Option<Feed> {
    let failed = |e: RowError| {
        Some(Feed::Failed(match e.kind {
            RowErrorKind::Io(source) => StopReason::Read { row: e.row, line: e.line, source },
            RowErrorKind::TooLarge => {
                let reason = format!("no end of it within {} bytes", plan.max_row_bytes);
                StopReason::TooLarge { line: e.line, reason }
            }
        }))
    };
    if let Err(e) = source.skip(plan.skip) {
        return failed(e);
    }
    let mut left = plan.limit;
    loop {
        if left == Some(0) {
            return Some(Feed::End { limited: true });
        }
        left = left.map(|left| left - 1);
        let row = match source.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => return Some(Feed::End { limited: false }),
            Err(e) => return failed(e),
        };
        let (line, bytes) = (row.line, row.raw.len());
        let content = prepare(row, converter, plan);
        if let (true, Prepare::Raw(_, problem)) = (plan.strict, &content) {
            return Some(Feed::Failed(StopReason::Unmapped { line, problem: problem.clone() }));
        }
        if batch.push(Prepared { line, content }, bytes).is_err() {
            return None;
        }
    }
}

fn prepare(row: Row, converter: &Converter, plan: &Plan) -> Prepare {
    match row.content {
        Content::Blank => Prepare::Blank,
        Content::TooLarge(bytes) => {
            Prepare::TooLarge(format!("{bytes} bytes where {} are allowed", plan.max_row_bytes))
        }
        _ => match converter.convert(&row) {
            Ok(event) => Prepare::Event(event),
            Err(problem) => Prepare::Raw(row.raw, problem),
        },
    }
}
