//! Findings line by line, for `companyos dlp scan`.
//!
//! A line that is a JSON object with a string `text` is judged by that text, any other line by
//! itself. Lines are read one at a time, so files of any size can be read.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::{finding::Finding, scanner::Scanner};

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One JSON object a line.
    JsonLines,
}

/// One finding. The text itself is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineFinding {
    /// Line of the input, from 1.
    pub line: u64,
    /// Kind, such as `email`.
    #[serde(rename = "type")]
    pub kind: crate::Kind,
    /// First character of the text, from 0.
    pub start: usize,
    /// Character after the last.
    pub end: usize,
    /// Rule id.
    pub rule: String,
    /// How sure the rule is, 0 to 1.
    pub confidence: f64,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read.
    pub lines: u64,
    /// Findings written.
    pub findings: u64,
}

/// The findings of one line, which has the number `line`.
pub fn scan_line(line: u64, content: &str) -> Vec<LineFinding> {
    #[derive(Deserialize)]
    struct Labelled {
        text: String,
    }
    let labelled =
        content.trim_start().starts_with('{').then(|| serde_json::from_str::<Labelled>(content).ok()).flatten();
    let text = labelled.as_ref().map_or(content, |labelled| labelled.text.as_str());
    let findings = Scanner::new().scan(text);
    in_characters(text, &findings)
        .map(|(finding, start, end)| LineFinding {
            line,
            kind: finding.kind,
            start,
            end,
            rule: finding.rule.to_owned(),
            // Two digits, not the nearest float's seventeen.
            confidence: f64::from((finding.confidence * 100.0).round()) / 100.0,
        })
        .collect()
}

/// Reads every line of `reader` and writes what is found. Bytes that are no UTF-8 are read as U+FFFD.
pub fn scan_lines(mut reader: impl BufRead, mut writer: impl Write, format: Format) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let mut bytes = Vec::new();
    if format == Format::Table {
        writeln!(
            writer,
            "{:>8}  {:<12} {:>7} {:>7}  {:<24} {:>10}",
            "line", "type", "start", "end", "rule", "confidence"
        )?;
    }
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        summary.lines += 1;
        let content = String::from_utf8_lossy(&bytes);
        for found in scan_line(summary.lines, content.trim_end_matches(['\n', '\r'])) {
            summary.findings += 1;
            match format {
                Format::Table => writeln!(
                    writer,
                    "{:>8}  {:<12} {:>7} {:>7}  {:<24} {:>10.2}",
                    found.line,
                    found.kind.name(),
                    found.start,
                    found.end,
                    found.rule,
                    found.confidence
                )?,
                Format::JsonLines => {
                    serde_json::to_writer(&mut writer, &found)?;
                    writer.write_all(b"\n")?;
                }
            }
        }
    }
    writer.flush()?;
    Ok(summary)
}

/// Findings with their bounds counted in characters.
fn in_characters<'f>(text: &'f str, findings: &'f [Finding]) -> impl Iterator<Item = (&'f Finding, usize, usize)> {
    let (mut byte, mut count) = (0, 0);
    findings.iter().map(move |finding| {
        let mut upto = |end: usize| {
            count += text.get(byte..end).map_or(0, |part| part.chars().count());
            byte = end;
            count
        };
        let start = upto(finding.start);
        (finding, start, upto(finding.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_of_the_text_and_lines_of_the_file() {
        let input = "nothing\n{\"text\": \"Grüße an j\\u00f6rg@example.de\", \"id\": 1}\r\nü ann@example.com";
        let mut out = Vec::new();
        let summary = scan_lines(input.as_bytes(), &mut out, Format::JsonLines).unwrap();
        assert_eq!(summary, Summary { lines: 3, findings: 2 });
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        {"line":2,"type":"email","start":9,"end":24,"rule":"email.address","confidence":0.97}
        {"line":3,"type":"email","start":2,"end":17,"rule":"email.address","confidence":0.97}
        "#);
        let mut table = Vec::new();
        scan_lines(input.as_bytes(), &mut table, Format::Table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(table.lines().count(), 3);
        assert!(!table.contains("ann@"), "the report must not repeat what it found");
    }
}
