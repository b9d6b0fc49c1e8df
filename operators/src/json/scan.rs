//! A strict RFC 8259 scanner over borrowed bytes.
//!
//! It says what each value is and where it stands, and checks everything it passes over: grammar,
//! control characters, escapes, surrogate pairs. Nesting is kept on a bit stack in the heap, so a
//! million opening brackets cost a hundred kilobytes and no thread stack. (sonic-rs's skipping
//! parser, the obvious alternative, recurses per level and does not look inside `\u` escapes.)

/// A stretch of the scanned text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The stretch of `text` this span was taken from; empty if it is not one of `text`'s.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Nothing was read here.
    #[default]
    Absent,
    Null,
    True,
    False,
    Number,
    /// A string without escapes; the span lies between its quotes.
    Plain,
    /// A string with escapes; the span lies between its quotes.
    Escaped,
    Object,
    Array,
}

impl Kind {
    /// The JSON type's name, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Absent => "nothing",
            Kind::Null => "null",
            Kind::True | Kind::False => "a boolean",
            Kind::Number => "a number",
            Kind::Plain | Kind::Escaped => "a string",
            Kind::Object => "an object",
            Kind::Array => "an array",
        }
    }
}

/// One value: what it is and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Node {
    pub kind: Kind,
    pub span: Span,
}

impl Node {
    /// The span of the value with its quotes, if it is a string.
    pub fn outer(self) -> Span {
        match self.kind {
            Kind::Plain | Kind::Escaped => Span { start: self.span.start - 1, end: self.span.end + 1 },
            _ => self.span,
        }
    }
}

/// Where and why the text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub at: usize,
    pub what: &'static str,
}

/// Which of the open brackets are objects: one bit a level.
#[derive(Debug, Default)]
pub(crate) struct Nesting {
    top: u64,
    below: Vec<u64>,
    depth: usize,
}

impl Nesting {
    fn clear(&mut self) {
        self.top = 0;
        self.below.clear();
        self.depth = 0;
    }

    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.below.push(self.top);
            self.top = 0;
        }
        self.top = self.top << 1 | u64::from(object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.top >>= 1;
        self.depth -= 1;
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.top = self.below.pop().unwrap_or_default();
        }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.top & 1 == 1
    }
}

/// Reads one text from front to back.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Brackets open around what is scanned, not counted in `nesting`.
    outer_depth: usize,
    deepest: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner that starts at byte `at`.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, pos: at, outer_depth: 0, deepest: 0 }
    }

    pub fn position(&self) -> usize {
        self.pos
    }

    /// How many brackets were open at once, at most, so far.
    pub fn deepest(&self) -> usize {
        self.deepest
    }

    /// The bytes not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        self.pos += bytes;
    }

    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.pos += 1;
        }
    }

    /// Reads `bracket`, which must come next, and counts it as one more level around what follows.
    pub fn open(&mut self, bracket: u8) -> Result<(), SyntaxError> {
        self.expect(bracket, if bracket == b'{' { "expected '{'" } else { "expected '['" })?;
        self.outer_depth += 1;
        self.deepest = self.deepest.max(self.outer_depth);
        Ok(())
    }

    /// Reads `byte`, which must come next.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.peek() == Some(byte) {
            self.pos += 1;
            return Ok(());
        }
        Err(self.error(what))
    }

    /// Fails unless nothing but white space is left.
    #[inline]
    pub fn end(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        if self.pos == self.bytes.len() {
            return Ok(());
        }
        Err(self.error("text after the end of the value"))
    }

    /// An error at the current position; the end of the text is always named as such.
    pub fn error(&self, what: &'static str) -> SyntaxError {
        let what = if self.pos >= self.bytes.len() { "the text ends too early" } else { what };
        SyntaxError { at: self.pos.min(self.bytes.len()), what }
    }

    /// Reads the value that comes next; white space before it must have been skipped.
    #[inline]
    pub fn value(&mut self, nesting: &mut Nesting) -> Result<Node, SyntaxError> {
        let start = self.pos;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(open @ (b'{' | b'[')) => {
                self.container(nesting)?;
                let kind = if open == b'{' { Kind::Object } else { Kind::Array };
                Ok(Node { kind, span: Span::new(start, self.pos) })
            }
            _ => self.scalar(),
        }
    }

    /// Reads a string; the next byte must be its opening quote.
    #[inline]
    pub fn string(&mut self) -> Result<Node, SyntaxError> {
        self.expect(b'"', "expected a string")?;
        let start = self.pos;
        let mut kind = Kind::Plain;
        loop {
            while let Some(chunk) = self.rest().first_chunk::<8>() {
                let stops = stops(u64::from_le_bytes(*chunk));
                if stops != 0 {
                    self.pos += stops.trailing_zeros() as usize / 8;
                    break;
                }
                self.pos += 8;
            }
            match self.peek() {
                Some(b'"') => {
                    let span = Span::new(start, self.pos);
                    self.pos += 1;
                    return Ok(Node { kind, span });
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.error("a control character inside a string")),
                Some(_) => self.pos += 1,
                None => return Err(self.error("")),
            }
        }
    }

    #[cold]
    fn escape(&mut self) -> Result<(), SyntaxError> {
        let start = self.pos;
        let escape = match self.rest() {
            [b'\\', b'u', ..] => self.unicode_escape()?,
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => {
                self.pos += 2;
                return Ok(());
            }
            _ => return Err(SyntaxError { at: start, what: "an invalid escape" }),
        };
        let lone = SyntaxError { at: start, what: "a lone surrogate" };
        match escape {
            0xd800..=0xdbff => match self.rest() {
                [b'\\', b'u', ..] => match self.unicode_escape()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(lone),
                },
                _ => Err(lone),
            },
            0xdc00..=0xdfff => Err(lone),
            _ => Ok(()),
        }
    }

    fn unicode_escape(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.rest().get(2..6).unwrap_or_default();
        let mut code = 0;
        for digit in digits {
            let Some(value) = char::from(*digit).to_digit(16) else { break };
            code = code << 4 | value;
            self.pos += 1;
        }
        if digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit) {
            self.pos += 2;
            return Ok(code);
        }
        Err(self.error("an invalid escape"))
    }

    /// Reads a number or a literal.
    #[inline]
    fn scalar(&mut self) -> Result<Node, SyntaxError> {
        let start = self.pos;
        let kind = match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                Kind::Number
            }
            Some(b'n') => self.literal(b"null", Kind::Null)?,
            Some(b't') => self.literal(b"true", Kind::True)?,
            Some(b'f') => self.literal(b"false", Kind::False)?,
            _ => return Err(self.error("expected a value")),
        };
        Ok(Node { kind, span: Span::new(start, self.pos) })
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Kind, SyntaxError> {
        if self.rest().starts_with(word) {
            self.pos += word.len();
            return Ok(kind);
        }
        Err(self.error("expected a value"))
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        match self.peek() {
            Some(b'0') => self.pos += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.peek() {
            self.pos += 1;
        }
        if self.pos == start {
            return Err(self.error("expected a digit"));
        }
        Ok(())
    }

    /// Reads an object or an array with everything inside, without recursion.
    fn container(&mut self, nesting: &mut Nesting) -> Result<(), SyntaxError> {
        nesting.clear();
        'opened: loop {
            let object = self.peek() == Some(b'{');
            self.pos += 1;
            nesting.push(object);
            self.deepest = self.deepest.max(self.outer_depth + nesting.depth);
            self.skip_space();
            if self.peek() == Some(if object { b'}' } else { b']' }) {
                self.pos += 1;
                nesting.pop();
            } else if self.member(object)? {
                continue 'opened;
            }
            // After a value: the container goes on, or ends and is itself a value of its parent.
            while nesting.depth != 0 {
                self.skip_space();
                let object = nesting.in_object();
                match self.peek() {
                    Some(b',') => {
                        self.pos += 1;
                        self.skip_space();
                        if self.member(object)? {
                            continue 'opened;
                        }
                    }
                    Some(b'}') if object => {
                        self.pos += 1;
                        nesting.pop();
                    }
                    Some(b']') if !object => {
                        self.pos += 1;
                        nesting.pop();
                    }
                    _ if object => return Err(self.error("expected ',' or '}'")),
                    _ => return Err(self.error("expected ',' or ']'")),
                }
            }
            return Ok(());
        }
    }

    /// Reads a member (with its key, in an object). True if its value opens a container, which is
    /// then left for the caller.
    #[inline]
    fn member(&mut self, object: bool) -> Result<bool, SyntaxError> {
        if object {
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key"));
            }
            self.string()?;
            self.colon()?;
        }
        match self.peek() {
            Some(b'{' | b'[') => return Ok(true),
            Some(b'"') => self.string()?,
            _ => self.scalar()?,
        };
        Ok(false)
    }

    /// Reads the colon after a key and the white space around it.
    #[inline]
    pub fn colon(&mut self) -> Result<(), SyntaxError> {
        self.skip_space();
        self.expect(b':', "expected ':'")?;
        self.skip_space();
        Ok(())
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Marks the high bit of every byte that ends a plain stretch of a string: `"`, `\` and control
/// characters. Bytes above the first mark may be marked wrongly; the first never is.
#[inline]
fn stops(x: u64) -> u64 {
    let quote = x ^ (ONES * b'"' as u64);
    let backslash = x ^ (ONES * b'\\' as u64);
    let marks = (x.wrapping_sub(ONES * 0x20) & !x)
        | (quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash);
    marks & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &[u8]) -> Result<(Node, usize), SyntaxError> {
        let mut scanner = Scanner::new(text, 0);
        scanner.skip_space();
        let node = scanner.value(&mut Nesting::default())?;
        scanner.end()?;
        Ok((node, scanner.deepest()))
    }

    #[test]
    fn names_the_position_of_what_is_wrong() {
        for (text, at, what) in [
            (r#"{"a":1,}"#, 7, "expected a key"),
            (r#"{"a" 1}"#, 5, "expected ':'"),
            (r#"{"a":1]"#, 6, "expected ',' or '}'"),
            (r#"[1 2]"#, 3, "expected ',' or ']'"),
            (r#"[1,]"#, 3, "expected a value"),
            (r#"{"a":NaN}"#, 5, "expected a value"),
            (r#"01"#, 1, "text after the end of the value"),
            (r#"1."#, 2, "the text ends too early"),
            (r#"-"#, 1, "the text ends too early"),
            (r#"-x"#, 1, "expected a digit"),
            (r#""\q""#, 1, "an invalid escape"),
            (r#""\u12x4""#, 3, "an invalid escape"),
            (r#""\ud800""#, 1, "a lone surrogate"),
            (r#""\ud800A""#, 1, "a lone surrogate"),
            (r#""\udc00""#, 1, "a lone surrogate"),
            ("\"a\u{1}\"", 2, "a control character inside a string"),
            (r#"{"a":"b"#, 7, "the text ends too early"),
            ("", 0, "the text ends too early"),
        ] {
            assert_eq!(scan(text.as_bytes()).map(|_| ()), Err(SyntaxError { at, what }), "{text}");
        }
    }

    #[test]
    fn a_million_levels_need_no_stack() {
        let deep = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
        assert_eq!(scan(&deep).unwrap().1, 1_000_000);
        let mut mixed = br#"{"a":["#.repeat(500);
        mixed.extend(b"1");
        mixed.extend(br#"]}"#.repeat(500));
        assert_eq!(scan(&mixed).unwrap().1, 1000);
        mixed[3_001] = b'}';
        assert!(scan(&mixed).is_err());
    }

    /// serde_json, with its number range errors left out: `1e999` is JSON.
    fn reference(text: &str) -> bool {
        serde_json::from_str::<serde_json::Value>(text).is_ok()
    }

    fn jsonish() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"\\u00e9\\n\""),
            Just("\"\\ud83d\\ude00\""),
            Just("\"\\ud83d\""),
            Just("1"),
            Just("-0.5e+3"),
            Just("01"),
            Just("true"),
            Just("null"),
            Just("nul"),
            Just(" "),
            Just("\n"),
            Just("\"key with a longer text inside\""),
            Just("\"\\x\""),
        ];
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn accepts_what_serde_json_accepts(text in jsonish()) {
            prop_assert_eq!(scan(text.as_bytes()).is_ok(), reference(&text));
        }

        #[test]
        fn accepts_generated_values(depth in 0usize..200, text in "\\PC*", number in any::<f64>()) {
            let mut value = serde_json::json!({"t": text, "n": number, "l": [text, null, true]});
            for level in 0..depth % 100 {
                value = if level % 2 == 0 { serde_json::json!([value]) } else { serde_json::json!({ "v": value }) };
            }
            let written = serde_json::to_string_pretty(&value).unwrap();
            let (node, deepest) = scan(written.as_bytes()).unwrap();
            prop_assert_eq!(node.span, Span::new(0, written.len()));
            prop_assert_eq!(deepest, depth % 100 + 2);
        }
    }
}
