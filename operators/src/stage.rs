//! One event's members, found and sorted by field, before anything is read into a column.
//!
//! Producers write their fields in the same order event after event, so after each field the one
//! that followed it last time is tried first: one comparison instead of a search.

use companyos_schemas::{Field, Stream};

use crate::json::{Kind, Nesting, Node, Scanner, Span, SyntaxError, unescape_into};

/// More fields than any stream has.
pub(crate) const MAX_FIELDS: usize = 24;

/// The members of one object.
pub(crate) struct Stage {
    fields: &'static [Field],
    /// Each field's name in quotes, as it stands in an event.
    names: Vec<Box<[u8]>>,
    /// By field, and at the end for the first member: the field that came next last time.
    successors: [u8; MAX_FIELDS + 1],
    cells: [Node; MAX_FIELDS],
    unknown: Vec<Member>,
    duplicate: Option<&'static str>,
    nesting: Nesting,
    key: String,
}

/// A member whose key is no field of the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub key: Node,
    pub value: Node,
}

impl Member {
    /// The whole member, from the key's opening quote to the value's end.
    pub fn span(&self) -> Span {
        Span { start: self.key.outer().start, end: self.value.outer().end }
    }
}

/// Where an object ended and how deep it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub end: usize,
    pub depth: usize,
}

impl Stage {
    pub fn new(stream: Stream) -> Self {
        let fields = stream.fields();
        debug_assert!(fields.len() <= MAX_FIELDS);
        let mut successors = [0; MAX_FIELDS + 1];
        for (field, successor) in successors.iter_mut().enumerate() {
            *successor = (field as u8 + 1) % fields.len() as u8;
        }
        successors[MAX_FIELDS] = 0;
        Self {
            fields,
            names: fields.iter().map(|f| format!("\"{}\"", f.name).into_bytes().into_boxed_slice()).collect(),
            successors,
            cells: [Node::default(); MAX_FIELDS],
            unknown: Vec::new(),
            duplicate: None,
            nesting: Nesting::default(),
            key: String::new(),
        }
    }

    /// Reads the object at byte `at` of `text`. Whatever an earlier object left is forgotten.
    pub fn read(&mut self, text: &str, at: usize) -> Result<Extent, SyntaxError> {
        self.cells = [Node::default(); MAX_FIELDS];
        self.unknown.clear();
        self.duplicate = None;
        let mut scanner = Scanner::new(text.as_bytes(), at);
        scanner.open(b'{')?;
        scanner.skip_space();
        if scanner.peek() == Some(b'}') {
            scanner.advance(1);
            return Ok(Extent { end: scanner.position(), depth: 1 });
        }
        let mut before = MAX_FIELDS;
        loop {
            let guess = self.successors[before];
            let name = self.names.get(usize::from(guess)).map(|name| &**name).unwrap_or_default();
            if !name.is_empty() && scanner.rest().starts_with(name) {
                scanner.advance(name.len());
                scanner.colon()?;
                let value = scanner.value(&mut self.nesting)?;
                before = usize::from(guess);
                self.set(before, value);
            } else {
                if scanner.peek() != Some(b'"') {
                    return Err(scanner.error("expected a key"));
                }
                let key = scanner.string()?;
                scanner.colon()?;
                let value = scanner.value(&mut self.nesting)?;
                match self.lookup(key, text) {
                    Some(field) => {
                        self.successors[before] = field as u8;
                        before = field;
                        self.set(field, value);
                    }
                    None => self.unknown.push(Member { key, value }),
                }
            }
            scanner.skip_space();
            match scanner.peek() {
                Some(b',') => {
                    scanner.advance(1);
                    scanner.skip_space();
                }
                Some(b'}') => {
                    scanner.advance(1);
                    return Ok(Extent { end: scanner.position(), depth: scanner.deepest() });
                }
                _ => return Err(scanner.error("expected ',' or '}'")),
            }
        }
    }

    #[inline]
    fn set(&mut self, field: usize, value: Node) {
        if self.cells[field].kind != Kind::Absent {
            self.duplicate = self.duplicate.or(Some(self.fields[field].name));
        }
        self.cells[field] = value;
    }

    fn lookup(&mut self, key: Node, text: &str) -> Option<usize> {
        let name = match key.kind {
            Kind::Escaped => {
                self.key.clear();
                unescape_into(key.span.of(text), &mut self.key);
                self.key.as_str()
            }
            _ => key.span.of(text),
        };
        self.fields.iter().position(|field| field.name == name)
    }

    /// The value of a field; [`Kind::Absent`] if the event does not have it.
    #[inline]
    pub fn cell(&self, field: usize) -> Node {
        self.cells[field]
    }

    /// Members that are not in the contract, in the event's order.
    pub fn unknown(&self) -> &[Member] {
        &self.unknown
    }

    /// The first field of the contract that stands twice.
    pub fn duplicate(&self) -> Option<&'static str> {
        self.duplicate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'t>(stage: &Stage, text: &'t str, field: &str) -> &'t str {
        stage.cell(Stream::ProductEvents.field_index(field).unwrap()).span.of(text)
    }

    #[test]
    fn finds_fields_in_any_order_and_spelling() {
        let mut stage = Stage::new(Stream::ProductEvents);
        for text in [
            r#"{"event_id":"1","role":"a","x":[1],"tenant":"t"}"#,
            r#"{"tenant" : "t", "x" :[1], "\u0072ole":"a", "event_id":"1" }"#,
            r#"{"event_id":"1","role":"a","x":[1],"tenant":"t"}"#,
        ] {
            let extent = stage.read(text, 0).unwrap();
            assert_eq!((extent.end, extent.depth), (text.len(), 2));
            assert_eq!(["event_id", "tenant", "role", "region"].map(|f| value(&stage, text, f)), ["1", "t", "a", ""]);
            assert_eq!(stage.unknown().len(), 1);
            assert!(stage.unknown()[0].span().of(text).starts_with("\"x\""));
            assert_eq!(stage.duplicate(), None);
        }
        stage.read(r#"{"role":"a","tenant":1,"role":"b","tenant":2}"#, 0).unwrap();
        assert_eq!(stage.duplicate(), Some("role"));
    }

    #[test]
    fn every_stream_fits() {
        for stream in Stream::ALL {
            assert!(stream.fields().len() <= MAX_FIELDS, "{stream}");
        }
    }
}
