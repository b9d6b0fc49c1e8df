//! Bytes to columns, without a value tree: each event is scanned once in place, its fields are read
//! by the rule of their type, and its row is appended only if all of it is right.
//!
//! Nothing pushed is lost and nothing fails: an event becomes a row or a [`Refusal`]. Whether it is
//! one or the other depends on the record alone, so that reading it again decides the same.

use std::{borrow::Cow, sync::Arc};

use companyos_schemas::{Field, FieldType, Stream, payload_hash, quarantine::Reason};

use crate::{
    cloud_event,
    coerce::{Word, day_of, epoch, float, identifier, integer, is_blank, rfc3339, trim},
    columns::{Columns, Lineage, Value},
    config::DecodeConfig,
    json::{Kind, Nesting, Node, Scanner, Span, SyntaxError, unescape_into},
    record::Record,
    record_log::{Logged, RecordLog, waives},
    refusal::{Claim, Identity, Refusal, Reject, RowSource},
    stage::{MAX_FIELDS, Stage},
};

/// Member of `payload` that unknown top-level fields are kept under.
const UNKNOWN: &str = "_unknown";
/// Longest `event_id` repeated in a quarantine row, in bytes.
const MAX_QUARANTINED_ID: usize = 256;
/// Longest header carried along with a row; ours are far shorter.
const MAX_HEADER_BYTES: usize = 1 << 10;

/// What the decoder has made of the records of an epoch.
pub(crate) struct Intake {
    pub columns: Columns,
    /// Where each row of `columns` came from.
    pub sources: Vec<RowSource>,
    pub refusals: Vec<Refusal>,
    pub log: RecordLog,
}

impl Intake {
    pub fn new(stream: Stream, topic: Arc<str>, partition: i32) -> Self {
        Self {
            columns: Columns::new(stream, topic, partition),
            sources: Vec::new(),
            refusals: Vec::new(),
            log: RecordLog::default(),
        }
    }
}

/// Decodes the events of one stream.
pub(crate) struct Decoder {
    stream: Stream,
    fields: &'static [Field],
    config: DecodeConfig,
    /// Text for an absent field, by field.
    defaults: Vec<Option<String>>,
    known: KnownFields,
    stage: Stage,
    values: [Value; MAX_FIELDS],
    /// Texts of the current event that differ from how they stand in it.
    scratch: String,
    unescaped: String,
    /// The event inside a CloudEvent.
    converted: String,
    elements: Vec<Span>,
    nesting: Nesting,
}

/// Positions of the fields that the decoder treats specially.
struct KnownFields {
    event_id: usize,
    occurred_at: usize,
    tenant: usize,
    env: usize,
    region: usize,
    payload: Option<usize>,
    payload_hash: Option<usize>,
}

/// What is the same for all events of a record.
#[derive(Clone, Copy)]
struct Context<'r> {
    record: u32,
    offset: i64,
    ingested_at: i64,
    timestamp_ms: Option<i64>,
    trace_id: Option<&'r str>,
    origin: Option<&'r str>,
    waive: Option<&'r str>,
    cloud_event: bool,
}

impl Decoder {
    pub fn new(stream: Stream, config: DecodeConfig) -> Self {
        let fields = stream.fields();
        let position = |name: &str| stream.field_index(name);
        Self {
            stream,
            fields,
            defaults: fields.iter().map(|f| config.defaults.get(f.name).cloned()).collect(),
            config,
            known: KnownFields {
                event_id: position("event_id").unwrap_or_default(),
                occurred_at: position("occurred_at").unwrap_or_default(),
                tenant: position("tenant").unwrap_or_default(),
                env: position("env").unwrap_or_default(),
                region: position("region").unwrap_or_default(),
                payload: position("payload"),
                payload_hash: position("payload_hash"),
            },
            stage: Stage::new(stream),
            values: [Value::default(); MAX_FIELDS],
            scratch: String::new(),
            unescaped: String::new(),
            converted: String::new(),
            elements: Vec::new(),
            nesting: Nesting::default(),
        }
    }

    /// Decodes one record; none of its events is lost. Tombstones are the caller's.
    pub fn push(&mut self, record: &Record<'_>, value: &[u8], ingested_at: i64, intake: &mut Intake) {
        match &record.headers.cloud_event {
            None => {
                let cloud_event = cloud_event::is_structured(record.headers.content_type);
                self.record(record, value, cloud_event, Ok(()), ingested_at, intake);
            }
            Some(headers) => {
                let content_type = record.headers.content_type;
                let (text, verdict) = cloud_event::from_binary(headers, content_type, value);
                // Data that could not be taken over as text may still name a region.
                let verdict = verdict.map_err(|reject| refused(reject, Identity::search(value)));
                self.record(record, text.as_bytes(), true, verdict, ingested_at, intake);
            }
        }
    }

    fn record(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        cloud_event: bool,
        verdict: Result<(), Refused>,
        ingested_at: i64,
        intake: &mut Intake,
    ) {
        let trace_id = record.headers.traceparent.and_then(trace_id);
        // Every event of the record repeats them, so that long ones would multiply.
        let [origin, waive] =
            [record.headers.origin, record.headers.waive].map(|header| header.filter(|h| h.len() <= MAX_HEADER_BYTES));
        let logged = Logged { offset: record.offset, ingested_at, value, trace_id, origin, waive };
        let context = Context {
            record: intake.log.push(logged),
            offset: record.offset,
            ingested_at,
            timestamp_ms: record.timestamp_ms.filter(|ms| *ms >= 0),
            trace_id,
            origin,
            waive,
            cloud_event,
        };
        let decoded = verdict
            .and_then(|()| self.whole(value, context, intake).map_err(|reject| refused(reject, Identity::default())));
        if let Err(refused) = decoded {
            let (reject, identity) = *refused;
            let source = RowSource { record: context.record, index: 0, span: Span::new(0, value.len()) };
            let identity = identity.and(Identity::search(value));
            intake.refusals.push(Refusal { source, reject, identity });
        }
    }

    /// Decodes a value; an error refuses all of it.
    fn whole(&mut self, value: &[u8], context: Context<'_>, intake: &mut Intake) -> Result<(), Reject> {
        if value.is_empty() {
            return Err(Reject::new(Reason::EmptyValue, "the value has no bytes"));
        }
        let limit = self.config.max_event_bytes;
        if value.len() > limit {
            let detail = format!("{} bytes; at most {limit} are allowed", value.len());
            return Err(Reject::new(Reason::TooLarge, detail));
        }
        let text = std::str::from_utf8(value)
            .map_err(|e| Reject::new(Reason::InvalidUtf8, format!("not UTF-8 at byte {}", e.valid_up_to())))?;
        let mut scanner = Scanner::new(value, 0);
        scanner.skip_space();
        let start = scanner.position();
        match scanner.peek() {
            Some(b'{') => {
                let extent = self.stage.read(text, start).map_err(invalid_json)?;
                Scanner::new(value, extent.end).end().map_err(invalid_json)?;
                let source = RowSource { record: context.record, index: 0, span: Span::new(0, value.len()) };
                self.event(text, extent.depth, source, context, intake);
                Ok(())
            }
            Some(b'[') => self.array(text, start, context, intake),
            None => Err(Reject::new(Reason::EmptyValue, "the value is nothing but white space")),
            Some(_) => {
                let node = scanner.value(&mut self.nesting).map_err(invalid_json)?;
                scanner.end().map_err(invalid_json)?;
                Err(Reject::new(
                    Reason::NotAnObject,
                    format!("expected an object or an array, found {}", node.kind.name()),
                ))
            }
        }
    }

    /// Decodes the events of an array. All of it must be JSON before any of it counts; after that
    /// each event stands for itself.
    fn array(&mut self, text: &str, start: usize, context: Context<'_>, intake: &mut Intake) -> Result<(), Reject> {
        let mut elements = std::mem::take(&mut self.elements);
        elements.clear();
        let found = self.elements_of(text, start, &mut elements);
        if found.is_ok() {
            for (index, span) in elements.iter().enumerate() {
                let source = RowSource { record: context.record, index: index as i32, span: *span };
                self.element(text, source, context, intake);
            }
        }
        self.elements = elements;
        found
    }

    fn elements_of(&mut self, text: &str, start: usize, elements: &mut Vec<Span>) -> Result<(), Reject> {
        let mut scanner = Scanner::new(text.as_bytes(), start);
        scanner.open(b'[').map_err(invalid_json)?;
        scanner.skip_space();
        if scanner.peek() == Some(b']') {
            return Err(Reject::new(Reason::NotAnObject, "an array without events"));
        }
        loop {
            let node = scanner.value(&mut self.nesting).map_err(invalid_json)?;
            if elements.len() == self.config.max_events_per_record {
                let detail = format!("an array of more than {} events", self.config.max_events_per_record);
                return Err(Reject::new(Reason::TooLarge, detail));
            }
            elements.push(node.outer());
            scanner.skip_space();
            match scanner.peek() {
                Some(b',') => {
                    scanner.advance(1);
                    scanner.skip_space();
                }
                Some(b']') => {
                    scanner.advance(1);
                    return scanner.end().map_err(invalid_json);
                }
                _ => return Err(invalid_json(scanner.error("expected ',' or ']'"))),
            }
        }
    }

    fn element(&mut self, text: &str, source: RowSource, context: Context<'_>, intake: &mut Intake) {
        let start = source.span.start as usize;
        let mut scanner = Scanner::new(text.as_bytes(), start);
        let reject = match scanner.peek() {
            Some(b'{') => match self.stage.read(text, start) {
                Ok(extent) => return self.event(text, extent.depth, source, context, intake),
                Err(error) => invalid_json(error),
            },
            _ => {
                let kind = scanner.value(&mut self.nesting).map(|node| node.kind).unwrap_or_default();
                Reject::new(Reason::NotAnObject, format!("expected an object, found {}", kind.name()))
            }
        };
        let identity = Identity::search(source.span.of(text).as_bytes());
        intake.refusals.push(Refusal { source, reject, identity });
    }

    /// Makes a row or a refusal of the staged object.
    fn event(&mut self, text: &str, depth: usize, source: RowSource, context: Context<'_>, intake: &mut Intake) {
        let outcome = if depth > self.config.max_depth {
            let detail = format!("nested {depth} levels deep; at most {} are allowed", self.config.max_depth);
            Err(refused(Reject::new(Reason::TooDeep, detail), Identity::search(source.span.of(text).as_bytes())))
        } else if context.cloud_event || cloud_event::looks_like_one(&self.stage, self.stream, text) {
            self.cloud_event(text, source, context, intake)
        } else {
            self.row(text, source, context, intake)
        };
        if let Err(refused) = outcome {
            let (reject, identity) = *refused;
            intake.refusals.push(Refusal { source, reject, identity });
        }
    }

    fn cloud_event(
        &mut self,
        text: &str,
        source: RowSource,
        context: Context<'_>,
        intake: &mut Intake,
    ) -> Result<(), Refused> {
        let refuse = |reject| refused(reject, Identity::search(source.span.of(text).as_bytes()));
        if let Some(field) = self.stage.duplicate() {
            return Err(refuse(duplicate(field)));
        }
        let mut converted = std::mem::take(&mut self.converted);
        let outcome = cloud_event::envelope(&self.stage, self.stream, text, context.timestamp_ms, &mut converted)
            .map_err(refuse)
            .and_then(|()| match self.stage.read(&converted, 0) {
                Ok(_) => self.row(&converted, source, context, intake),
                Err(error) => Err(refuse(invalid_json(error))),
            });
        self.converted = converted;
        outcome
    }

    fn row(&mut self, text: &str, source: RowSource, context: Context<'_>, intake: &mut Intake) -> Result<(), Refused> {
        if let Some(field) = self.stage.duplicate() {
            return Err(refused(duplicate(field), Identity::search(text.as_bytes())));
        }
        match self.values(text, context) {
            Ok(day) => {
                let lineage = Lineage {
                    offset: context.offset,
                    index: source.index,
                    ingested_at: context.ingested_at,
                    trace_id: context.trace_id,
                    origin: context.origin,
                };
                intake.columns.push(&self.values, text, &self.scratch, day, lineage);
                intake.sources.push(source);
                Ok(())
            }
            Err(reject) => Err(refused(reject, self.identity(text))),
        }
    }

    /// Reads every field of the staged event into `values`; the event's day.
    fn values(&mut self, text: &str, context: Context<'_>) -> Result<i32, Reject> {
        self.scratch.clear();
        for index in 0..self.fields.len() {
            let value = self.value(index, text)?;
            if value == Value::Null && self.fields[index].required {
                let detail = match self.stage.cell(index).kind {
                    Kind::Absent => "required and absent",
                    Kind::Null => "required and null",
                    _ => "required and blank",
                };
                return Err(Reject::of_field(Reason::MissingField, self.fields[index].name, detail));
            }
            self.values[index] = value;
        }
        let occurred_at = match self.values[self.known.occurred_at] {
            Value::Integer(micros) => micros,
            _ => return Err(Reject::of_field(Reason::MissingField, "occurred_at", "required and absent")),
        };
        self.check_clock(occurred_at, context)?;
        self.check_hash(text, context)?;
        if !self.stage.unknown().is_empty() {
            self.keep_unknown(text);
        }
        Ok(day_of(occurred_at))
    }

    /// Reads one field; [`Value::Null`] if it is absent, null or blank and has no default.
    #[inline]
    fn value(&mut self, index: usize, text: &str) -> Result<Value, Reject> {
        let field = &self.fields[index];
        let cell = self.stage.cell(index);
        let content = match cell.kind {
            Kind::Absent | Kind::Null => "",
            Kind::Plain | Kind::Number => cell.span.of(text),
            Kind::Escaped => {
                self.unescaped.clear();
                unescape_into(cell.span.of(text), &mut self.unescaped);
                &self.unescaped
            }
            _ => "",
        };
        let is_text = matches!(cell.kind, Kind::Plain | Kind::Escaped);
        if field.ty == FieldType::Json {
            return Ok(match (cell.kind, &self.defaults[index]) {
                (Kind::Absent | Kind::Null, None) => Value::Null,
                (Kind::Absent | Kind::Null, Some(default)) => keep(default, &mut self.scratch),
                _ => Value::Event(cell.outer()),
            });
        }
        // Absent, null and blank are the same: the default, if there is one.
        let missing = matches!(cell.kind, Kind::Absent | Kind::Null) || is_text && is_blank(content);
        let (content, is_text, in_event) = match &self.defaults[index] {
            _ if !missing => (content, is_text, cell.kind == Kind::Plain),
            Some(default) => (default.as_str(), true, false),
            None => return Ok(Value::Null),
        };
        let wrong = |expected: &str| wrong_type(field.name, expected, cell);
        match field.ty {
            FieldType::Text => {
                if !is_text {
                    return Err(wrong("a string"));
                }
                let trimmed = trim(content);
                Ok(if in_event { Value::Event(within(trimmed, text)) } else { keep(trimmed, &mut self.scratch) })
            }
            FieldType::Identifier => {
                if !is_text {
                    return Err(wrong("a string"));
                }
                let path = index == self.known.tenant || index == self.known.env || index == self.known.region;
                let start = self.scratch.len();
                match identifier(content, path, &mut self.scratch) {
                    Word::Clean if in_event => Ok(Value::Event(cell.span)),
                    Word::Clean => Ok(keep(content, &mut self.scratch)),
                    Word::Folded => Ok(Value::Scratch(Span::new(start, self.scratch.len()))),
                    Word::Blank => Ok(Value::Null),
                    Word::Invalid(problem) => {
                        Err(Reject::of_field(Reason::InvalidValue, field.name, format!("no identifier: {problem}")))
                    }
                }
            }
            FieldType::Enum(words) => {
                if !is_text {
                    return Err(wrong("a string"));
                }
                if in_event && words.contains(&content) {
                    return Ok(Value::Event(cell.span));
                }
                match words.iter().find(|word| word.eq_ignore_ascii_case(trim(content))) {
                    Some(word) => Ok(keep(word, &mut self.scratch)),
                    None => {
                        let detail = format!("not one of {}", words.join(", "));
                        Err(Reject::of_field(Reason::InvalidValue, field.name, detail))
                    }
                }
            }
            FieldType::Timestamp => {
                const EXPECTED: &str = "an RFC 3339 time with an offset or an epoch number";
                let content = trim(content);
                let time = match cell.kind {
                    _ if is_text => rfc3339(content).or_else(|| float(content).and_then(|_| epoch(content))),
                    Kind::Number => epoch(content),
                    _ => return Err(wrong(EXPECTED)),
                };
                time.map(Value::Integer).ok_or_else(|| {
                    Reject::of_field(
                        Reason::InvalidValue,
                        field.name,
                        format!("{} that is not {EXPECTED}", given(cell)),
                    )
                })
            }
            FieldType::Float => {
                if !is_text && cell.kind != Kind::Number {
                    return Err(wrong("a finite number"));
                }
                float(trim(content)).map(Value::Float).ok_or_else(|| wrong("a finite number"))
            }
            FieldType::Integer => {
                if !is_text && cell.kind != Kind::Number {
                    return Err(wrong("an integer of 64 bits"));
                }
                integer(trim(content)).map(Value::Integer).ok_or_else(|| wrong("an integer of 64 bits"))
            }
            FieldType::Json => Ok(Value::Null),
        }
    }

    /// Judges the producer's clock against the record's timestamp, which reading it again does not
    /// change.
    fn check_clock(&self, occurred_at: i64, context: Context<'_>) -> Result<(), Reject> {
        let reference = context.timestamp_ms.map_or(context.ingested_at, |ms| ms.saturating_mul(1_000));
        let allowed_ahead = micros(self.config.max_future_skew_seconds);
        let allowed_behind = micros(self.config.max_age_days.saturating_mul(86_400));
        let ahead = occurred_at.saturating_sub(reference);
        let (reason, distance, side, allowed) = if ahead > allowed_ahead {
            (Reason::ClockSkewFuture, ahead, "after", allowed_ahead)
        } else if ahead.saturating_neg() > allowed_behind {
            (Reason::ClockSkewPast, ahead.saturating_neg(), "before", allowed_behind)
        } else {
            return Ok(());
        };
        if waives(context.waive, reason.as_str()) {
            return Ok(());
        }
        let [distance, allowed] = [distance, allowed].map(|micros| micros / 1_000_000);
        let detail = format!("{distance} s {side} the record's timestamp; at most {allowed} s are allowed");
        Err(Reject::of_field(reason, "occurred_at", detail).by_rule(reason.as_str()))
    }

    fn check_hash(&self, text: &str, context: Context<'_>) -> Result<(), Reject> {
        let Some(claimed) = self.known.payload_hash.and_then(|index| match self.values[index] {
            Value::Event(span) => Some(span.of(text)),
            Value::Scratch(span) => Some(span.of(&self.scratch)),
            _ => None,
        }) else {
            return Ok(());
        };
        let payload = self.known.payload.map(|index| self.stage.cell(index));
        let sent = payload.filter(|cell| cell.kind != Kind::Absent).map(|cell| cell.outer().of(text));
        let reason = Reason::PayloadHashMismatch;
        if payload_hash::verify(claimed, sent) || waives(context.waive, reason.as_str()) {
            return Ok(());
        }
        let detail = "the payload does not have this SHA-256, neither as sent nor in canonical form";
        Err(Reject::of_field(reason, "payload_hash", detail).by_rule(reason.as_str()))
    }

    /// Puts unknown top-level fields into the payload, as text.
    #[cold]
    fn keep_unknown(&mut self, text: &str) {
        let Some(payload) = self.known.payload else { return };
        let cell = self.stage.cell(payload);
        let out = &mut self.scratch;
        let start = out.len();
        match cell.kind {
            Kind::Absent | Kind::Null => out.push('{'),
            Kind::Object => {
                let object = cell.span.of(text);
                let body = object.strip_suffix('}').unwrap_or(object).trim_end();
                out.push_str(body);
                if body != "{" {
                    out.push(',');
                }
            }
            _ => out.extend(["{\"_value\":", cell.outer().of(text), ","]),
        }
        out.extend(["\"", UNKNOWN, "\":"]);
        let mut separator = '{';
        for member in self.stage.unknown() {
            out.push(separator);
            separator = ',';
            out.push_str(member.span().of(text));
        }
        out.push_str("}}");
        self.values[payload] = Value::Scratch(Span::new(start, out.len()));
    }

    /// What the staged event says about itself, where that can be read.
    fn identity(&mut self, text: &str) -> Identity {
        let known = [self.known.tenant, self.known.env, self.known.region];
        let [tenant, env, region] = known.map(|index| self.claim(index, text));
        let event_id = match self.value(self.known.event_id, text) {
            Ok(Value::Event(span)) => Some(shortened(span.of(text))),
            Ok(Value::Scratch(span)) => Some(shortened(span.of(&self.scratch))),
            _ => None,
        };
        let occurred_at = match self.value(self.known.occurred_at, text) {
            Ok(Value::Integer(micros)) => Some(micros),
            _ => None,
        };
        Identity { tenant, env, region, event_id, occurred_at }
    }

    fn claim(&mut self, index: usize, text: &str) -> Claim {
        match self.value(index, text) {
            Ok(Value::Event(span)) => Claim::Named(span.of(text).to_owned()),
            Ok(Value::Scratch(span)) => Claim::Named(span.of(&self.scratch).to_owned()),
            Ok(_) => Claim::Absent,
            Err(_) => Claim::Unclear,
        }
    }
}

/// Why an event becomes no row, and whose it is; boxed, since most events become one.
type Refused = Box<(Reject, Identity)>;

fn refused(reject: Reject, identity: Identity) -> Refused {
    Box::new((reject, identity))
}

fn keep(text: &str, scratch: &mut String) -> Value {
    let start = scratch.len();
    scratch.push_str(text);
    Value::Scratch(Span::new(start, scratch.len()))
}

/// Where `part`, a slice of `text`, lies in it.
#[inline]
fn within(part: &str, text: &str) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    Span::new(start, start + part.len())
}

fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_QUARANTINED_ID)).unwrap_or_default().to_owned()
}

fn invalid_json(error: SyntaxError) -> Reject {
    Reject::new(Reason::InvalidJson, format!("{} at byte {}", error.what, error.at))
}

fn duplicate(field: &'static str) -> Reject {
    Reject::of_field(Reason::DuplicateField, field, "stands twice in the event")
}

fn wrong_type(field: &'static str, expected: &str, cell: Node) -> Reject {
    Reject::of_field(Reason::WrongType, field, format!("expected {expected}, found {}", given(cell)))
}

/// What stands in the event, by its type alone.
fn given(cell: Node) -> Cow<'static, str> {
    match cell.kind {
        Kind::Absent | Kind::Null => Cow::Borrowed("a default"),
        Kind::Plain | Kind::Escaped => Cow::Owned(format!("a string of {} bytes", cell.span.end - cell.span.start)),
        kind => Cow::Borrowed(kind.name()),
    }
}

/// The trace id of a W3C `traceparent`; none if it is malformed or all zeros.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    (valid && trace.bytes().any(|b| b != b'0')).then_some(trace)
}
