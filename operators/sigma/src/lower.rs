//! From a parsed rule to a condition over atoms. What cannot be evaluated is refused here, with the reason.

use std::collections::HashMap;

use ipnet::IpNet;
use rsigma_parser::ast::{ConditionExpr, Detection, DetectionItem, Detections, Modifier, Quantifier, SelectorPattern};
use rsigma_parser::{SigmaString, SigmaValue};

use crate::atom::{Atoms, Bits, Compare, FieldRef, Node, RefHow, Test};
use crate::batch::{KEYWORDS, LogSource};
use crate::encode;
use crate::field_index::Expression;
use crate::glob::{Glob, Piece};
use crate::mapping::FieldMapping;

/// Why a rule is refused, and the text in the rule that it is about.
pub(crate) struct Unsupported {
    pub about: String,
    pub reason: String,
}

fn refuse<T>(about: &str, reason: impl Into<String>) -> Result<T, Unsupported> {
    Err(Unsupported { about: about.to_owned(), reason: reason.into() })
}

pub(crate) struct Lowering<'a> {
    pub atoms: &'a mut Atoms,
    pub mapping: &'a FieldMapping,
    pub source: &'a LogSource,
}

/// How a field's modifiers change its values.
#[derive(Default)]
struct Shaping {
    starts: bool,
    ends: bool,
    contains: bool,
    cased: bool,
    all: bool,
    neq: bool,
    regex: bool,
    flags: String,
    cidr: bool,
    exists: bool,
    expand: bool,
    field_ref: bool,
    compare: Option<Compare>,
    encodings: Vec<Modifier>,
}

impl Lowering<'_> {
    /// The condition of a detection section; several conditions are alternatives.
    pub fn detections(&mut self, detections: &Detections) -> Result<Node, Unsupported> {
        if detections.timeframe.is_some() {
            return refuse("timeframe", "a timeframe in a detection is the old form of a correlation");
        }
        let mut named: HashMap<&str, Node> = HashMap::new();
        for (name, detection) in &detections.named {
            named.insert(name, self.detection(name, detection)?);
        }
        let each: Result<Vec<Node>, _> = detections.conditions.iter().map(|c| condition(c, &named)).collect();
        let each = each?;
        if each.is_empty() {
            return refuse("condition", "there is no condition");
        }
        Ok(Node::any(each))
    }

    fn detection(&mut self, name: &str, detection: &Detection) -> Result<Node, Unsupported> {
        match detection {
            Detection::AllOf(items) if items.is_empty() => refuse(name, format!("detection '{name}' is empty")),
            Detection::AllOf(items) => {
                Ok(Node::all(items.iter().map(|item| self.item(item)).collect::<Result<_, _>>()?))
            }
            Detection::AnyOf(parts) if parts.is_empty() => refuse(name, format!("detection '{name}' is empty")),
            Detection::AnyOf(parts) => {
                Ok(Node::any(parts.iter().map(|part| self.detection(name, part)).collect::<Result<_, _>>()?))
            }
            Detection::And(parts) => {
                Ok(Node::all(parts.iter().map(|part| self.detection(name, part)).collect::<Result<_, _>>()?))
            }
            Detection::Keywords(values) if values.is_empty() => refuse(name, format!("detection '{name}' is empty")),
            Detection::Keywords(values) => {
                let field = self.atoms.field(KEYWORDS);
                let each: Result<Vec<Node>, _> = values
                    .iter()
                    .map(|value| self.value(name, field, value, &Shaping { contains: true, ..Shaping::default() }))
                    .collect();
                Ok(Node::any(each?))
            }
            Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {
                refuse(name, "array quantifiers are not part of the Sigma specification")
            }
        }
    }

    fn item(&mut self, item: &DetectionItem) -> Result<Node, Unsupported> {
        let name = item.field.name.as_deref().map(|n| n.replace("\\[", "[").replace("\\]", "]"));
        let about = name.clone().unwrap_or_else(|| "|".to_owned());
        let mut shaping = shaping(&about, &item.field.modifiers)?;
        if item.values.is_empty() {
            return refuse(&about, format!("field '{about}' has no values"));
        }
        let columns = match &name {
            Some(name) => self.mapping.columns(self.source, name),
            None => {
                if !(shaping.regex || shaping.starts || shaping.ends) {
                    shaping.contains = true;
                }
                vec![KEYWORDS.to_owned()]
            }
        };
        let fields: Vec<u32> = columns.iter().map(|column| self.atoms.field(column)).collect();
        let absent = || Node::all(fields.iter().map(|f| Node::Null(*f)).collect());
        let mut each = Vec::new();
        for value in &item.values {
            if shaping.exists {
                let present = match value {
                    SigmaValue::Bool(yes) => *yes,
                    // `yes` and `no` are booleans in the YAML that many rules were written for.
                    SigmaValue::String(s) if is_one_of(&s.original, ["true", "yes", "on"]) => true,
                    SigmaValue::String(s) if is_one_of(&s.original, ["false", "no", "off"]) => false,
                    _ => return refuse(&about, "exists wants true or false"),
                };
                each.push(if present { absent().not() } else { absent() });
                continue;
            }
            if matches!(value, SigmaValue::Null) {
                each.push(absent());
                continue;
            }
            for_each_expanded(self.mapping, &about, value, &shaping, |values| {
                let mut any = Vec::new();
                for value in values {
                    for field in &fields {
                        any.push(if shaping.field_ref {
                            self.field_ref(&about, *field, value, &shaping)?
                        } else {
                            self.value(&about, *field, value, &shaping)?
                        });
                    }
                }
                each.push(Node::any(any));
                Ok(())
            })?;
        }
        let linked = if shaping.all { Node::all(each) } else { Node::any(each) };
        // A field that is not there does not differ from anything.
        Ok(if shaping.neq { Node::And(vec![absent().not(), linked.not()]) } else { linked })
    }

    fn field_ref(
        &mut self,
        about: &str,
        field: u32,
        value: &SigmaValue,
        shaping: &Shaping,
    ) -> Result<Node, Unsupported> {
        let SigmaValue::String(other) = value else { return refuse(about, "fieldref wants the name of a field") };
        let how = match (shaping.contains, shaping.starts, shaping.ends) {
            (true, _, _) => RefHow::Contains,
            (_, true, _) => RefHow::Starts,
            (_, _, true) => RefHow::Ends,
            _ => RefHow::Equal,
        };
        let columns = self.mapping.columns(self.source, &other.original);
        let mut any = Vec::new();
        for column in columns {
            let other = self.atoms.field(&column);
            any.push(self.atoms.field_ref(FieldRef { field, other, how, cased: shaping.cased }));
        }
        Ok(Node::any(any))
    }

    fn value(&mut self, about: &str, field: u32, value: &SigmaValue, shaping: &Shaping) -> Result<Node, Unsupported> {
        if let Some(compare) = shaping.compare {
            let number = match value {
                SigmaValue::Integer(n) => Some(*n as f64),
                SigmaValue::Float(n) => Some(*n),
                SigmaValue::String(s) => s.original.trim().parse().ok(),
                _ => None,
            };
            return match number.filter(|n: &f64| n.is_finite()) {
                Some(number) => Ok(self.atoms.test(field, Test::Number(compare, Bits::new(number)))),
                None => refuse(about, format!("'{value}' is not a number to compare with")),
            };
        }
        let text = match value {
            SigmaValue::String(text) => text.clone(),
            other => SigmaString::from_raw(&scalar_text(other)),
        };
        if shaping.regex {
            let flags = if shaping.flags.is_empty() { String::new() } else { format!("(?{})", shaping.flags) };
            let pattern = format!("{flags}{}", text.original);
            return match Expression::new(&pattern) {
                Ok(_) => Ok(self.atoms.test(field, Test::Regex(pattern))),
                Err(error) => refuse(about, format!("regular expression '{}': {error}", text.original)),
            };
        }
        if shaping.cidr {
            let written = text.original.trim();
            let net = written.parse::<IpNet>().or_else(|_| written.parse::<std::net::IpAddr>().map(IpNet::from));
            return match net {
                Ok(net) => Ok(self.atoms.test(field, Test::Cidr(net.trunc()))),
                Err(_) => refuse(about, format!("'{written}' is not a network")),
            };
        }
        let globs = encoded(about, Glob::from_parts(&text.parts), &shaping.encodings)?;
        let mut any = Vec::new();
        for mut glob in globs {
            if shaping.contains || shaping.ends {
                glob.open_start();
            }
            if shaping.contains || shaping.starts {
                glob.open_end();
            }
            let glob = glob.normalized(shaping.cased);
            any.push(self.atoms.test(field, Test::Text { glob, cased: shaping.cased }));
        }
        Ok(Node::any(any))
    }
}

fn is_one_of(text: &str, words: [&str; 3]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A number or boolean as columns spell it.
fn scalar_text(value: &SigmaValue) -> String {
    match value {
        SigmaValue::Integer(n) => n.to_string(),
        SigmaValue::Float(n) => n.to_string(),
        SigmaValue::Bool(b) => b.to_string(),
        _ => String::new(),
    }
}

fn shaping(about: &str, modifiers: &[Modifier]) -> Result<Shaping, Unsupported> {
    let mut s = Shaping::default();
    for modifier in modifiers {
        match modifier {
            Modifier::Contains => s.contains = true,
            Modifier::StartsWith => s.starts = true,
            Modifier::EndsWith => s.ends = true,
            Modifier::All => s.all = true,
            Modifier::Cased => s.cased = true,
            Modifier::Neq => s.neq = true,
            Modifier::Re => s.regex = true,
            Modifier::IgnoreCase => s.flags.push('i'),
            Modifier::Multiline => s.flags.push('m'),
            Modifier::DotAll => s.flags.push('s'),
            Modifier::Cidr => s.cidr = true,
            Modifier::Exists => s.exists = true,
            Modifier::Expand => s.expand = true,
            Modifier::FieldRef => s.field_ref = true,
            Modifier::Lt => s.compare = Some(Compare::Lt),
            Modifier::Lte => s.compare = Some(Compare::Lte),
            Modifier::Gt => s.compare = Some(Compare::Gt),
            Modifier::Gte => s.compare = Some(Compare::Gte),
            Modifier::Base64
            | Modifier::Base64Offset
            | Modifier::Wide
            | Modifier::Utf16
            | Modifier::Utf16be
            | Modifier::WindAsh => s.encodings.push(*modifier),
            Modifier::Minute | Modifier::Hour | Modifier::Day | Modifier::Week | Modifier::Month | Modifier::Year => {
                return refuse(about, "modifiers that take a part of a date are not supported");
            }
        }
    }
    let affixes = s.contains || s.starts || s.ends;
    let kinds = [s.regex, s.cidr, s.exists, s.field_ref, s.compare.is_some()];
    if kinds.iter().filter(|k| **k).count() > 1 {
        return refuse(about, "modifiers re, cidr, exists, fieldref and comparisons exclude one another");
    }
    if affixes && (s.regex || s.cidr || s.exists || s.compare.is_some()) {
        return refuse(about, "contains, startswith and endswith only apply to text");
    }
    if !s.encodings.is_empty() && kinds.iter().any(|k| *k) {
        return refuse(about, "encodings only apply to text");
    }
    if !s.flags.is_empty() && !s.regex {
        return refuse(about, "modifiers i, m and s only apply to re");
    }
    Ok(s)
}

/// Replaces `%name%` where the `expand` modifier asks for it; several values stand for any of them.
fn for_each_expanded(
    mapping: &FieldMapping,
    about: &str,
    value: &SigmaValue,
    shaping: &Shaping,
    mut then: impl FnMut(&[SigmaValue]) -> Result<(), Unsupported>,
) -> Result<(), Unsupported> {
    let text = match value {
        SigmaValue::String(text) if shaping.expand => text,
        _ => return then(std::slice::from_ref(value)),
    };
    let mut done = vec![String::new()];
    let mut rest = text.original.as_str();
    while let Some(at) = rest.find('%') {
        // After an even number of backslashes those are escaped, and the sign is not.
        if rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            done.iter_mut().for_each(|d| {
                d.push_str(&rest[..at - 1]);
                d.push('%');
            });
            rest = &rest[at + 1..];
            continue;
        }
        let Some(len) = rest[at + 1..].find('%') else { break };
        let name = &rest[at + 1..at + 1 + len];
        let Some(values) = mapping.values(name) else {
            return refuse(about, format!("placeholder '%{name}%' has no values in the configuration"));
        };
        let before = &rest[..at];
        done = done.iter().flat_map(|d| values.iter().map(move |v| format!("{d}{before}{v}"))).collect();
        rest = &rest[at + len + 2..];
    }
    let values: Vec<SigmaValue> = done
        .into_iter()
        .map(|d| format!("{d}{rest}"))
        .map(|d| SigmaValue::String(if shaping.regex { SigmaString::from_raw(&d) } else { SigmaString::new(&d) }))
        .collect();
    then(&values)
}

/// A value between two encodings: text until something makes bytes of it.
enum Encoded {
    Text(Glob),
    Bytes(Vec<u8>),
}

fn encoded(about: &str, glob: Glob, encodings: &[Modifier]) -> Result<Vec<Glob>, Unsupported> {
    let mut values = vec![Encoded::Text(glob)];
    for encoding in encodings {
        let mut next = Vec::new();
        for value in values {
            if *encoding == Modifier::WindAsh {
                let Encoded::Text(glob) = value else { return refuse(about, "windash cannot follow utf16") };
                next.extend(respelled(about, glob)?.into_iter().map(Encoded::Text));
                continue;
            }
            let bytes = match value {
                Encoded::Bytes(bytes) => bytes,
                Encoded::Text(glob) => {
                    let Some(text) = glob.plain() else {
                        return refuse(about, "a value with wildcards cannot be encoded");
                    };
                    match encoding {
                        Modifier::Wide => encode::utf16le(&text),
                        Modifier::Utf16be => encode::utf16be(&text),
                        Modifier::Utf16 => encode::utf16_with_mark(&text),
                        _ => text.into_bytes(),
                    }
                }
            };
            match encoding {
                Modifier::Base64 => next.push(Encoded::Text(Glob::literal(&encode::base64(&bytes)))),
                Modifier::Base64Offset => {
                    let parts = encode::base64_offsets(&bytes);
                    next.extend(parts.iter().map(|part| Encoded::Text(Glob::literal(part))));
                }
                _ => next.push(Encoded::Bytes(bytes)),
            }
        }
        values = next;
    }
    let text = |value| match value {
        Encoded::Text(glob) => Ok(glob),
        Encoded::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Glob::literal(&text)),
            Err(_) => refuse(about, "utf16 of this value is not text; base64 or base64offset has to follow"),
        },
    };
    values.into_iter().map(text).collect()
}

fn respelled(about: &str, glob: Glob) -> Result<Vec<Glob>, Unsupported> {
    let mut spellings = vec![Glob(Vec::new())];
    for piece in glob.0 {
        let options = match &piece {
            Piece::Lit(text) => match encode::windash(text) {
                Some(options) => options.into_iter().map(Piece::Lit).collect(),
                None => return refuse(about, "windash: more than five flags in one value"),
            },
            other => vec![other.clone()],
        };
        let with = |glob: &Glob, option: &Piece| Glob(glob.0.iter().chain([option]).cloned().collect());
        spellings = spellings.iter().flat_map(|g| options.iter().map(|o| with(g, o)).collect::<Vec<_>>()).collect();
        if spellings.len() > 3125 {
            return refuse(about, "windash: more than five flags in one value");
        }
    }
    Ok(spellings)
}

/// `*` stands for any text, at any place and any number of times.
fn name_fits(pattern: &str, name: &str) -> bool {
    let mut pieces = Vec::new();
    for (n, text) in pattern.split('*').enumerate() {
        if n > 0 {
            pieces.push(Piece::Many);
        }
        pieces.push(Piece::Lit(text.to_owned()));
    }
    Glob(pieces).normalized(true).fits(name)
}

fn condition(expr: &ConditionExpr, named: &HashMap<&str, Node>) -> Result<Node, Unsupported> {
    let many = |parts: &[ConditionExpr]| parts.iter().map(|p| condition(p, named)).collect::<Result<Vec<_>, _>>();
    match expr {
        ConditionExpr::And(parts) => Ok(Node::all(many(parts)?)),
        ConditionExpr::Or(parts) => Ok(Node::any(many(parts)?)),
        ConditionExpr::Not(part) => Ok(condition(part, named)?.not()),
        ConditionExpr::Identifier(name) => match named.get(name.as_str()) {
            Some(node) => Ok(node.clone()),
            None => refuse("condition", format!("the condition names '{name}', which is not a detection")),
        },
        ConditionExpr::Selector { quantifier, pattern } => {
            let mut chosen: Vec<&str> = match pattern {
                SelectorPattern::Them => named.keys().filter(|n| !n.starts_with('_')).copied().collect(),
                SelectorPattern::Pattern(p) => named.keys().filter(|n| name_fits(p, n)).copied().collect(),
            };
            chosen.sort_unstable();
            if chosen.is_empty() {
                return refuse("condition", format!("'{quantifier} of {pattern}' names no detection"));
            }
            let nodes: Vec<Node> = chosen.iter().map(|name| named[name].clone()).collect();
            Ok(match quantifier {
                Quantifier::Any => Node::any(nodes),
                Quantifier::All => Node::all(nodes),
                Quantifier::Count(n) => Node::AtLeast(*n as usize, nodes),
            })
        }
    }
}
