//! What is asked, and what of it a view can answer.

use std::fmt;

/// A query of Nexmark, or the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs, reason = "Nexmark's own names")]
pub enum Question {
    Q0,
    Q1,
    Q2,
    Q3,
    Q4,
    Q5,
    Q7,
    Q8,
    Q11,
    Mix,
}

impl Question {
    /// All, in their order.
    pub const ALL: [Question; 10] = [
        Question::Q0,
        Question::Q1,
        Question::Q2,
        Question::Q3,
        Question::Q4,
        Question::Q5,
        Question::Q7,
        Question::Q8,
        Question::Q11,
        Question::Mix,
    ];

    /// Whether a view is kept for it; without an aggregate there is nothing to keep.
    pub fn has_view(self) -> bool {
        !matches!(self, Question::Q0 | Question::Q1 | Question::Q2 | Question::Mix)
    }

    /// What Nexmark asks, and how near our way of asking comes to it.
    pub fn about(name: &str) -> &'static str {
        match name {
            "q0" => "pass through. Ours: the stream table itself, so ingestion alone",
            "q1" => "currency conversion. Ours: ingestion, then one query of the whole table, written as Parquet",
            "q2" => "bids on some auctions. Ours: ingestion, then one query of the whole table, written as Parquet",
            "q3" => "sellers in three states: join. Ours: a fold over persons and auctions by person; same answer",
            "q4" => {
                "mean winning price by category: join. Ours: a fold by auction, the mean when reading. Both without \
                 Nexmark's condition that the bid came while the auction was open, which compares two events"
            }
            "q5" => "hot items: hop window and top. Ours: counts by hop window, the top when reading; same answer",
            "q7" => "highest bid: window joined with bids. Ours: the last bid by price of each window; same answer",
            "q8" => "new sellers: windowed join. Ours: a fold by window and person that saw both kinds; same answer",
            "q11" => "bids by session. Ours: the same",
            _ => {
                "adoption by day, feature and role; burn of a shipped SLO; rules. Ours: 82 shipped rules with their \
                 correlations and the stateful detectors; Flink: those rules that are simple predicates, and four of \
                 the seven burn windows, without budgets or alerts"
            }
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Question::Q0 => "q0",
            Question::Q1 => "q1",
            Question::Q2 => "q2",
            Question::Q3 => "q3",
            Question::Q4 => "q4",
            Question::Q5 => "q5",
            Question::Q7 => "q7",
            Question::Q8 => "q8",
            Question::Q11 => "q11",
            Question::Mix => "mix",
        };
        f.write_str(name)
    }
}
