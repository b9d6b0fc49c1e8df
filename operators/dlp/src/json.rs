//! Rewrites JSON text in place: every string, key and number is looked at, what is not touched stays
//! byte for byte, and what comes out is JSON if what went in was.
//!
//! No value tree: one pass over the text with a stack of open brackets. A string with escapes is
//! looked at as it reads, not as it is written, and again if it holds JSON itself. The pass is lenient,
//! so that a cut or broken event can be masked too.

use memchr::memchr2;

use crate::{
    finding::{Finding, Kind},
    policy::Action,
    scanner::Scanner,
    verdict::{Effect, Field, Fired, Judge},
};

/// How deep JSON in strings of JSON is followed.
const MAX_NESTED: usize = 4;
/// Most times a text is looked at again after something in it was replaced.
const MAX_ROUNDS: usize = 4;

/// Rewrites by a judge's decisions and by the rules for fields.
pub(crate) struct Rewriter<'j, 'r> {
    pub judge: Judge<'r, 'j>,
    pub fields: &'j [&'r Field],
    /// Name of the column, the first part of every path.
    pub column: &'j str,
}

/// An open bracket.
struct Frame {
    object: bool,
    /// The last key read.
    key: String,
    /// Whether a key comes next.
    wants_key: bool,
    /// Where the output ended before the current member, its comma included.
    member: usize,
    /// Whether a member was written.
    any: bool,
}

impl<'r> Rewriter<'_, 'r> {
    /// The text rewritten; `None` if it stays as it is.
    pub fn json(&self, text: &str, fired: &mut Vec<Fired<'r>>) -> (Option<String>, Effect<'r>) {
        self.nested(text, fired, 0)
    }

    fn nested(&self, text: &str, fired: &mut Vec<Fired<'r>>, depth: usize) -> (Option<String>, Effect<'r>) {
        let mut current: Option<String> = None;
        let mut findings = Vec::new();
        for round in 0..MAX_ROUNDS {
            let source = current.as_deref().unwrap_or(text);
            Scanner::new().scan_into(source, &mut findings);
            let by_name = round == 0 && !self.fields.is_empty();
            if findings.is_empty() && !by_name && memchr::memchr(b'\\', source.as_bytes()).is_none() {
                break;
            }
            let mut repeats = Vec::new();
            let mut pass = Pass {
                rewriter: self,
                text: source,
                findings: &findings,
                next: 0,
                out: String::with_capacity(source.len() + 32),
                stack: Vec::new(),
                eat_comma: false,
                by_name,
                depth,
                changed: false,
                fired: if round == 0 { &mut *fired } else { &mut repeats },
            };
            let ended = pass.run();
            let (out, changed) = (pass.out, pass.changed);
            fired.extend(repeats.into_iter().filter(|f| f.action != Action::Allow));
            match ended {
                Effect::Dropped | Effect::Quarantined(_) => return (None, ended),
                _ if !changed => break,
                _ => current = Some(out),
            }
        }
        let effect = if current.is_some() { Effect::Changed } else { Effect::Same };
        (current, effect)
    }
}

/// One pass over one text.
struct Pass<'p, 'j, 'r> {
    rewriter: &'p Rewriter<'j, 'r>,
    text: &'p str,
    findings: &'p [Finding],
    /// The first finding that ends after what has been read.
    next: usize,
    out: String,
    stack: Vec<Frame>,
    /// Whether the next comma belonged to a member that is gone.
    eat_comma: bool,
    by_name: bool,
    depth: usize,
    changed: bool,
    fired: &'p mut Vec<Fired<'r>>,
}

impl<'r> Pass<'_, '_, 'r> {
    fn run(&mut self) -> Effect<'r> {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let effect = match byte {
                b'"' => {
                    let (inner_end, end, escaped) = string_end(bytes, at);
                    let effect = match self.stack.last() {
                        Some(frame) if frame.object && frame.wants_key => self.key(at + 1, inner_end, end, escaped),
                        _ => self.value(at, end, |pass| pass.string(at, inner_end, end, escaped)),
                    };
                    at = end;
                    effect
                }
                b'{' | b'[' => {
                    let field = self.field();
                    if let Some(field) = field {
                        let end = container_end(bytes, at);
                        let effect = self.named(field, at, end);
                        if effect == Effect::Same {
                            self.open(*byte);
                            at += 1;
                        } else {
                            self.skip(end);
                            at = end;
                        }
                        self.settle(effect)
                    } else {
                        self.open(*byte);
                        at += 1;
                        Effect::Same
                    }
                }
                b'}' | b']' => {
                    self.stack.pop();
                    self.eat_comma = false;
                    self.out.push(char::from(*byte));
                    at += 1;
                    Effect::Same
                }
                b',' => {
                    let end = self.out.len();
                    let eaten = std::mem::take(&mut self.eat_comma);
                    if let Some(frame) = self.stack.last_mut() {
                        frame.wants_key = frame.object;
                        frame.member = end;
                        frame.any = !eaten;
                    }
                    if !eaten {
                        self.out.push(',');
                    }
                    at += 1;
                    Effect::Same
                }
                b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                    self.out.push(char::from(*byte));
                    at += 1;
                    Effect::Same
                }
                _ => {
                    // A number, a literal, or something that is not JSON.
                    let rest = &bytes[at..];
                    let length = rest
                        .iter()
                        .position(|b| {
                            matches!(b, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\n' | b'\r' | b'\t')
                        })
                        .unwrap_or(rest.len());
                    let (start, end) = (at, at + length);
                    at = end;
                    self.value(start, end, |pass| pass.bare(start, end))
                }
            };
            match effect {
                Effect::Same | Effect::Changed => {}
                ended => return ended,
            }
        }
        Effect::Same
    }

    fn open(&mut self, byte: u8) {
        self.out.push(char::from(byte));
        let member = self.out.len();
        self.stack.push(Frame {
            object: byte == b'{',
            key: String::new(),
            wants_key: byte == b'{',
            member,
            any: false,
        });
    }

    /// The rule for the value that comes next, if its path has one.
    fn field(&self) -> Option<&'r Field> {
        if !self.by_name || self.depth > 0 {
            return None;
        }
        let keys = self.stack.iter().filter(|frame| frame.object).map(|frame| frame.key.as_str());
        let path: Vec<&str> = std::iter::once(self.rewriter.column).chain(keys).collect();
        self.rewriter.fields.iter().find(|field| field.pattern.matches(&path)).copied()
    }

    fn value(&mut self, start: usize, end: usize, scan: impl FnOnce(&mut Self) -> Effect<'r>) -> Effect<'r> {
        let effect = match self.field() {
            Some(field) => match self.named(field, start, end) {
                Effect::Same => scan(self),
                effect => {
                    self.skip(end);
                    effect
                }
            },
            None => scan(self),
        };
        self.settle(effect)
    }

    /// Does what a rule asks for with the value at `start..end`.
    fn named(&mut self, field: &'r Field, start: usize, end: usize) -> Effect<'r> {
        let raw = &self.text[start..end];
        if matches!(raw, "null" | "\"\"" | "{}" | "[]") {
            return Effect::Same;
        }
        let judge = &self.rewriter.judge;
        let action = judge.action(&field.rule, field.action);
        self.fired.push(Fired { rule: &field.rule, action });
        match action {
            Action::Allow => {
                // Whoever allows a field by name wants it as it is.
                self.out.push_str(raw);
                Effect::Changed
            }
            Action::Drop => Effect::Dropped,
            Action::Quarantine => Effect::Quarantined(&field.rule),
            Action::Mask | Action::Tokenize => {
                let decoded = decode(raw);
                self.out.push('"');
                judge.replace(field.kind, action, &decoded, &mut self.out);
                self.out.push('"');
                self.changed = true;
                Effect::Changed
            }
        }
    }

    /// Takes a member that must go out of the output.
    fn settle(&mut self, effect: Effect<'r>) -> Effect<'r> {
        if effect != Effect::Dropped {
            return effect;
        }
        self.changed = true;
        match self.stack.last_mut() {
            Some(frame) if frame.object => {
                self.out.truncate(frame.member);
                self.eat_comma = !frame.any;
                Effect::Changed
            }
            Some(_) => {
                self.out.push_str("null");
                Effect::Changed
            }
            None => Effect::Dropped,
        }
    }

    fn key(&mut self, start: usize, inner_end: usize, end: usize, escaped: bool) -> Effect<'r> {
        let raw = &self.text[start..inner_end];
        let key = if escaped { decode(&self.text[start - 1..end]) } else { raw.to_owned() };
        let mut replaced = None;
        if escaped || self.has_finding(end) {
            let mark = self.fired.len();
            let (text, effect) = self.rewriter.judge.text(&key, self.fired);
            match effect {
                Effect::Quarantined(_) => return effect,
                // A key cannot go without its value; its name is masked.
                Effect::Dropped => {
                    self.fired.truncate(mark);
                    self.fired.push(Fired { rule: "key.masked", action: Action::Mask });
                    replaced = Some("[masked:key]".to_owned());
                }
                _ => replaced = text,
            }
        }
        self.skip(end);
        self.write(replaced, start - 1, end);
        if let Some(frame) = self.stack.last_mut() {
            frame.key = key;
            frame.wants_key = false;
        }
        Effect::Same
    }

    fn string(&mut self, start: usize, inner_end: usize, end: usize, escaped: bool) -> Effect<'r> {
        if !escaped {
            let range = self.take(end);
            if range.is_empty() {
                self.out.push_str(&self.text[start..end]);
                return Effect::Same;
            }
            self.out.push('"');
            let inner = &self.text[start + 1..inner_end];
            let effect = self.rewriter.judge.pieces(inner, &self.findings[range], start + 1, &mut self.out, self.fired);
            if effect == Effect::Dropped {
                self.out.pop();
                return effect;
            }
            self.out.push_str(&self.text[inner_end..end]);
            self.changed |= effect == Effect::Changed;
            return effect;
        }
        self.skip(end);
        let decoded = decode(&self.text[start..end]);
        let looks_like_json = decoded.trim_start().starts_with(['{', '[']);
        let mut replaced = None;
        if looks_like_json && self.depth < MAX_NESTED {
            let (text, effect) = self.rewriter.nested(&decoded, self.fired, self.depth + 1);
            if matches!(effect, Effect::Quarantined(_) | Effect::Dropped) {
                return effect;
            }
            replaced = text;
        } else {
            // The key gives a value its context, as it does where there are no escapes.
            let key = self.stack.last().filter(|f| f.object).map(|f| f.key.as_str()).unwrap_or_default();
            let context = format!("\"{key}\":\"");
            // Of the same length, without what would end the quoted value.
            let plain = decoded.replace(['"', '\\'], "'").replace('\n', " ");
            let mut findings = Vec::new();
            Scanner::new().scan_into(&format!("{context}{plain}\""), &mut findings);
            findings.retain(|f| f.end > context.len());
            if !findings.is_empty() {
                let mut out = String::with_capacity(decoded.len());
                match self.rewriter.judge.pieces(&decoded, &findings, context.len(), &mut out, self.fired) {
                    Effect::Same => {}
                    Effect::Changed => {
                        replaced = Some(self.rewriter.judge.text(&out, &mut Vec::new()).0.unwrap_or(out))
                    }
                    ended => return ended,
                }
            }
        }
        self.write(replaced, start, end);
        Effect::Same
    }

    /// A value without quotes.
    fn bare(&mut self, start: usize, end: usize) -> Effect<'r> {
        let range = self.take(end);
        let raw = &self.text[start..end];
        let Some(finding) = self.findings[range].first() else {
            self.out.push_str(raw);
            return Effect::Same;
        };
        let judge = &self.rewriter.judge;
        let action = judge.action(finding.rule, judge.table[finding.kind.index()]);
        self.fired.push(Fired { rule: finding.rule, action });
        match action {
            Action::Allow => {
                self.out.push_str(raw);
                Effect::Same
            }
            Action::Drop => Effect::Dropped,
            Action::Quarantine => Effect::Quarantined(finding.rule),
            Action::Mask | Action::Tokenize => {
                self.out.push('"');
                judge.replace(Some(finding.kind), action, raw, &mut self.out);
                self.out.push('"');
                self.changed = true;
                Effect::Changed
            }
        }
    }

    /// Writes a string, replaced or as it stands.
    fn write(&mut self, replaced: Option<String>, start: usize, end: usize) {
        match replaced.and_then(|text| serde_json::to_string(&text).ok()) {
            Some(text) => {
                self.out.push_str(&text);
                self.changed = true;
            }
            None => self.out.push_str(&self.text[start..end]),
        }
    }

    fn has_finding(&self, end: usize) -> bool {
        self.findings.get(self.next).is_some_and(|f| f.start < end)
    }

    /// The findings that begin before `end`, once.
    fn take(&mut self, end: usize) -> std::ops::Range<usize> {
        let from = self.next;
        self.skip(end);
        from..self.next
    }

    fn skip(&mut self, end: usize) {
        while self.has_finding(end) {
            self.next += 1;
        }
    }
}

/// Where the string that opens at `start` ends, before and after its closing quote, and whether it has
/// escapes. One that is not closed ends with the text.
fn string_end(bytes: &[u8], start: usize) -> (usize, usize, bool) {
    let mut at = start + 1;
    let mut escaped = false;
    while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        let here = at + found;
        if bytes[here] == b'"' {
            return (here, here + 1, escaped);
        }
        escaped = true;
        at = here + 2;
    }
    (bytes.len(), bytes.len(), escaped)
}

/// Where the object or array that opens at `start` ends.
fn container_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = string_end(bytes, at).1;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// What a string says; what is no string, or a broken one, says itself.
fn decode(raw: &str) -> String {
    if let Ok(text) = serde_json::from_str::<String>(raw) {
        return text;
    }
    let inner = raw.trim_matches('"');
    match serde_json::from_str::<String>(&format!("\"{inner}\"")) {
        Ok(text) => text,
        Err(_) => inner.to_owned(),
    }
}

/// A mask for everything, for callers that want no policy.
pub(crate) const MASK_ALL: [Action; Kind::ALL.len()] = [Action::Mask; Kind::ALL.len()];
