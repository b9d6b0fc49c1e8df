//! Refuses statements so deep that walking them could exhaust a thread's stack.
//!
//! The parser bounds what nests in brackets. What it does not bound are chains: `1+1+1…`,
//! `UNION … UNION`, joins. Each becomes a tree as deep as the chain is long, and a stack overflow
//! ends the process, not the query. So the links are counted in the text, before anything recurses.

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use crate::error::QueryError;

/// Most operators, set operations and the like in one statement.
const MAX_LINKS: usize = 300;
/// Most tables and subqueries in one statement.
const MAX_RELATIONS: usize = 60;

/// Counts the links of a statement's chains.
pub(crate) fn check_depth(sql: &str) -> Result<(), QueryError> {
    // A text that has no tokens is the parser's to refuse, with the place of the fault.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut links, mut relations, mut in_from) = (0, 0, InFrom::default());
    for token in &tokens {
        relations += usize::from(in_from.next_relation(token));
        links += usize::from(is_link(token));
    }
    let refuse = |what: &str, limit: usize| {
        Err(QueryError::NotAllowed(format!("the statement has more than {limit} {what}; split it up")))
    };
    match (links > MAX_LINKS, relations > MAX_RELATIONS) {
        (true, _) => refuse("operators", MAX_LINKS),
        (_, true) => refuse("tables and subqueries", MAX_RELATIONS),
        _ => Ok(()),
    }
}

/// Everything but names, values, commas and brackets, which make no chains.
fn is_link(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::DIV
                | Keyword::XOR
                | Keyword::OVERLAPS
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::MINUS
                | Keyword::WHEN
                | Keyword::PIVOT
                | Keyword::UNPIVOT
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::Placeholder(_)
        | Token::EOF => false,
        _ => true,
    }
}

/// Tells where a FROM list names another table: at FROM, at JOIN, and at commas of its level.
#[derive(Default)]
struct InFrom {
    /// One entry per open bracket: whether a FROM list is being read in it.
    levels: Vec<bool>,
    top: bool,
}

impl InFrom {
    fn next_relation(&mut self, token: &Token) -> bool {
        match token {
            Token::LParen => self.levels.push(std::mem::take(&mut self.top)),
            Token::RParen => self.top = self.levels.pop().unwrap_or_default(),
            Token::Comma => return self.top,
            Token::Word(word) => match word.keyword {
                Keyword::FROM => {
                    self.top = true;
                    return true;
                }
                Keyword::JOIN | Keyword::SELECT | Keyword::VALUES | Keyword::TABLE | Keyword::APPLY => {
                    self.top = word.keyword == Keyword::JOIN && self.top;
                    return true;
                }
                Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER
                | Keyword::LIMIT
                | Keyword::QUALIFY
                | Keyword::WINDOW
                | Keyword::LATERAL => {
                    // LATERAL stays within its list.
                    self.top = word.keyword == Keyword::LATERAL && self.top;
                }
                _ => {}
            },
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_fine_and_long_chains_are_not() {
        let list = format!("SELECT a FROM t WHERE a IN ({}1) ORDER BY a, b", "1, ".repeat(10_000));
        check_depth(&list).unwrap();
        check_depth(&format!("SELECT {}a FROM t", "f(a), ".repeat(1_000))).unwrap();
        for chain in [
            format!("SELECT 1{}", "+1".repeat(400)),
            format!("SELECT a{} FROM t", "::int".repeat(400)),
            format!("SELECT a{}", " IS NULL".repeat(400)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(400)),
            format!("SELECT 1 FROM t{}", ", t".repeat(100)),
            format!("SELECT 1 FROM t{}", " CROSS JOIN t".repeat(100)),
        ] {
            assert!(matches!(check_depth(&chain), Err(QueryError::NotAllowed(_))), "{chain:.40}");
        }
    }
}
