//! The prompt: statements over several lines up to a semicolon, with history across sessions.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use rustyline::{DefaultEditor, error::ReadlineError};

use super::{Format, output::Output, source::Source};

const HELP: &str = "\
End a statement with a semicolon. Other words:
  tables   the tables you can query
  help     this
  quit     leave (so does Ctrl-D)";

/// Reads and runs statements until the end of input.
pub async fn run(source: Source, format: Format) -> Result<ExitCode> {
    let history = history_file();
    let mut editor = DefaultEditor::new()?;
    if let Some(path) = &history {
        // No history yet is the usual reason.
        let _ = editor.load_history(path);
    }
    println!("companyos sql: end statements with a semicolon; help for more");
    let mut pending = String::new();
    loop {
        let prompt = if pending.is_empty() { "sql> " } else { "...> " };
        // The editor blocks on the terminal, which must not hold up the runtime.
        let (back, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(prompt);
            (editor, line)
        })
        .await?;
        editor = back;
        match line {
            Ok(line) => match take(&mut pending, &line) {
                Step::More => {}
                Step::Quit => break,
                Step::Help => println!("{HELP}"),
                Step::Run(statement) => {
                    editor.add_history_entry(statement.as_str())?;
                    if let Err(error) = answer(&source, format, &statement).await {
                        eprintln!("error: {error:#}");
                    }
                }
            },
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        eprintln!("the history was not kept: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn answer(source: &Source, format: Format, statement: &str) -> Result<()> {
    Output::new(format, None)?.write(source.ask(statement).await?).await
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Quit,
    Help,
    Run(String),
}

/// What a line means, given the lines before it.
fn take(pending: &mut String, line: &str) -> Step {
    if pending.is_empty() {
        match line.trim().trim_end_matches(';') {
            "" => return Step::More,
            "quit" | "exit" | "\\q" => return Step::Quit,
            "help" | "\\h" | "\\?" => return Step::Help,
            "tables" | "\\d" => return Step::Run("SHOW TABLES".to_owned()),
            _ => {}
        }
    }
    if !pending.is_empty() {
        pending.push('\n');
    }
    pending.push_str(line);
    match pending.trim_end().strip_suffix(';') {
        Some(statement) => {
            let statement = statement.trim().to_owned();
            pending.clear();
            Step::Run(statement)
        }
        None => Step::More,
    }
}

/// `$XDG_STATE_HOME/companyos/sql_history`, by the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let folder = state.join("companyos");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        let mut pending = String::new();
        assert_eq!(take(&mut pending, "  "), Step::More);
        assert_eq!(take(&mut pending, "select 1"), Step::More);
        assert_eq!(take(&mut pending, "quit"), Step::More, "inside a statement it is part of it");
        assert_eq!(take(&mut pending, "+ 1 ; "), Step::Run("select 1\nquit\n+ 1".to_owned()));
        assert_eq!(take(&mut pending, "quit;"), Step::Quit);
        assert_eq!(take(&mut pending, "tables"), Step::Run("SHOW TABLES".to_owned()));
    }
}
