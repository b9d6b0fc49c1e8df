//! Statements about views: `CREATE [OR REPLACE] MATERIALIZED VIEW`, `DROP`, `SHOW`, `EXPLAIN`.

use std::time::Duration;

use datafusion::sql::sqlparser::{
    ast::{CreateTableOptions, Expr, ObjectType, Query, Spanned, SqlOption, Statement, Value},
    dialect::PostgreSqlDialect,
    parser::Parser,
    tokenizer::{Location, Token, Tokenizer},
};

use crate::ViewError;

/// One statement.
#[derive(Debug, Clone)]
pub enum ViewStatement {
    /// Makes a view, or another one of the same name.
    Create {
        /// Name: lower case letters, digits and `_`, at most 48.
        name: String,
        /// Whether an existing view is replaced.
        or_replace: bool,
        /// What follows `WITH`.
        options: ViewOptions,
        /// The query.
        query: Box<Query>,
        /// The whole statement as it was written.
        sql: String,
    },
    /// Removes a view.
    Drop {
        /// Name.
        name: String,
        /// Whether a missing view is no error.
        if_exists: bool,
    },
    /// Lists the views.
    Show,
    /// Shows the plans of a view that exists, or of a statement that would make one.
    Explain(Box<ExplainTarget>),
}

/// What is explained.
#[derive(Debug, Clone)]
pub enum ExplainTarget {
    /// A view by name.
    View(String),
    /// A `CREATE` statement.
    Create(ViewStatement),
}

/// `WITH (…)` of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewOptions {
    /// Windows that began longer ago than this are dropped when state is folded; none keeps all.
    pub retention: Option<Duration>,
    /// One line for people.
    pub comment: Option<String>,
}

/// Longest view name: it becomes part of a path.
const MAX_NAME: usize = 48;

/// Reads one statement.
pub fn parse(sql: &str) -> Result<ViewStatement, ViewError> {
    let mut all = parse_file(sql)?;
    match (all.pop(), all.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(ViewError::Syntax("there is no statement".to_owned())),
        _ => Err(ViewError::Syntax("one statement at a time".to_owned())),
    }
}

/// Reads the statements of a file, separated by semicolons.
pub fn parse_file(sql: &str) -> Result<Vec<ViewStatement>, ViewError> {
    let dialect = PostgreSqlDialect {};
    let syntax = |e: &dyn std::fmt::Display| ViewError::Syntax(e.to_string());
    let tokens = Tokenizer::new(&dialect, sql).tokenize_with_location().map_err(|e| syntax(&e))?;
    let mut statements = Vec::new();
    // Statement by statement, so that each keeps its own text; places count from the file's start.
    for part in tokens.split(|t| t.token == Token::SemiColon) {
        let blank = part.iter().all(|t| matches!(t.token, Token::Whitespace(_) | Token::EOF));
        if blank {
            continue;
        }
        let words: Vec<String> = part
            .iter()
            .filter_map(|t| match &t.token {
                Token::Word(word) => Some(word.value.clone()),
                _ => None,
            })
            .collect();
        let text: String = part.iter().map(|t| t.token.to_string()).collect::<String>().trim().to_owned();
        if let Some(statement) = short_form(&words) {
            statements.push(statement?);
            continue;
        }
        let explained = words.first().is_some_and(|w| w.eq_ignore_ascii_case("explain"));
        let mut rest = part.to_vec();
        if explained {
            let word = rest.iter().position(|t| matches!(t.token, Token::Word(_))).unwrap_or(0);
            rest.remove(word);
        }
        let parsed =
            Parser::new(&dialect).with_tokens_with_locations(rest).parse_statement().map_err(|e| syntax(&e))?;
        let statement = statement(parsed, text)?;
        statements.push(match explained {
            true => ViewStatement::Explain(Box::new(ExplainTarget::Create(statement))),
            false => statement,
        });
    }
    Ok(statements)
}

/// `SHOW MATERIALIZED VIEWS`, `EXPLAIN [MATERIALIZED VIEW] name`: not in the parser's grammar.
fn short_form(words: &[String]) -> Option<Result<ViewStatement, ViewError>> {
    let lower: Vec<String> = words.iter().map(|w| w.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let explain = |name: &str| {
        valid_name(name, Location::empty())?;
        Ok(ViewStatement::Explain(Box::new(ExplainTarget::View(name.to_owned()))))
    };
    match lower.as_slice() {
        ["show", "views"] | ["show", "materialized", "views"] => Some(Ok(ViewStatement::Show)),
        ["explain", name] => Some(explain(name)),
        ["explain", "view", name] | ["explain", "materialized", "view", name] => Some(explain(name)),
        _ => None,
    }
}

fn statement(parsed: Statement, sql: String) -> Result<ViewStatement, ViewError> {
    match parsed {
        Statement::CreateView(view) => {
            let at = view.name.span().start;
            if !view.materialized {
                return Err(ViewError::refused(at, "only CREATE MATERIALIZED VIEW is supported"));
            }
            if !view.columns.is_empty() {
                return Err(ViewError::refused(at, "name the columns in the query, with AS"));
            }
            let name = valid_name(&view.name.to_string(), at)?;
            let options = options(&view.options)?;
            Ok(ViewStatement::Create { name, or_replace: view.or_replace, options, query: view.query, sql })
        }
        Statement::Drop { object_type: ObjectType::MaterializedView | ObjectType::View, if_exists, names, .. } => {
            match names.as_slice() {
                [name] => Ok(ViewStatement::Drop { name: valid_name(&name.to_string(), name.span().start)?, if_exists }),
                _ => Err(ViewError::Syntax("drop one view at a time".to_owned())),
            }
        }
        _ => Err(ViewError::Syntax(
            "expected CREATE [OR REPLACE] MATERIALIZED VIEW, DROP MATERIALIZED VIEW, SHOW MATERIALIZED VIEWS or EXPLAIN"
                .to_owned(),
        )),
    }
}

fn valid_name(name: &str, at: Location) -> Result<String, ViewError> {
    let name = name.trim_matches('"').to_owned();
    let fits = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let taken = name.parse::<companyos_schemas::Stream>().is_ok() || name == companyos_schemas::quarantine::TABLE;
    match (fits, taken) {
        (true, false) => Ok(name),
        (true, true) => Err(ViewError::refused(at, format!("{name:?} is a stream's table"))),
        (false, _) => Err(ViewError::refused(
            at,
            format!("view name {name:?}: lower case letters, digits and _, at most {MAX_NAME}, a letter first"),
        )),
    }
}

fn options(given: &CreateTableOptions) -> Result<ViewOptions, ViewError> {
    let mut options = ViewOptions::default();
    let list = match given {
        CreateTableOptions::None => return Ok(options),
        CreateTableOptions::With(list) => list,
        _ => return Err(ViewError::Syntax("options are written WITH (name = 'value')".to_owned())),
    };
    for option in list {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(ViewError::Syntax(format!("option {option} has no value")));
        };
        let at = key.span.start;
        let text = match value {
            Expr::Value(v) => match &v.value {
                Value::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        match key.value.as_str() {
            "retention" => {
                let retention = humantime::parse_duration(&text)
                    .map_err(|e| ViewError::refused(at, format!("retention {text:?}: {e}")))?;
                options.retention = Some(retention);
            }
            "comment" => options.comment = Some(text),
            other => {
                return Err(ViewError::refused(at, format!("unknown option {other:?}; there are: comment, retention")));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str) -> String {
        parse(sql).unwrap_err().to_string()
    }

    #[test]
    fn statements_are_told_apart() {
        let sql = "-- why\nCREATE OR REPLACE MATERIALIZED VIEW v WITH (retention = '90 days', comment = 'x') AS SELECT 1;\
                   DROP MATERIALIZED VIEW IF EXISTS v; SHOW MATERIALIZED VIEWS; EXPLAIN v;\
                   EXPLAIN CREATE MATERIALIZED VIEW w AS SELECT 1;";
        let all = parse_file(sql).unwrap();
        let ViewStatement::Create { name, or_replace: true, options, sql, .. } = &all[0] else { panic!("{all:?}") };
        assert_eq!((name.as_str(), options.comment.as_deref()), ("v", Some("x")));
        assert_eq!(options.retention, Some(Duration::from_secs(90 * 86_400)));
        assert!(sql.starts_with("-- why") && sql.ends_with("SELECT 1"), "{sql}");
        assert!(matches!(&all[1], ViewStatement::Drop { if_exists: true, .. }));
        assert!(matches!(&all[2], ViewStatement::Show));
        assert!(matches!(&all[3], ViewStatement::Explain(t) if matches!(**t, ExplainTarget::View(_))));
        assert!(matches!(&all[4], ViewStatement::Explain(t) if matches!(**t, ExplainTarget::Create(_))));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert!(refused("CREATE VIEW v AS SELECT 1").contains("line 1, column 13: only CREATE MATERIALIZED"));
        assert!(refused("CREATE MATERIALIZED VIEW product_events AS SELECT 1").contains("is a stream's table"));
        assert!(
            refused("CREATE MATERIALIZED VIEW v WITH (retain = '1d') AS SELECT 1")
                .contains("unknown option \"retain\"")
        );
        assert!(refused("CREATE MATERIALIZED VIEW \"V 1\" AS SELECT 1").contains("lower case letters"));
        assert!(refused("SELECT 1").contains("expected CREATE"));
        assert!(refused("").contains("no statement"));
    }
}
