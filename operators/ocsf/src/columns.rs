//! What to look for in an event of one source, and the columns that hold what was found.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, ListArray, StringArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field},
};

use crate::{
    OcsfError, SourceKind,
    mapping::{Attr, COMPUTED, From, mapper},
    scan::Trie,
    sources::openssh,
};

/// The fields that events of one source are searched for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub payload: Trie,
    pub evidence: Trie,
    pub lineage: Trie,
    slots: HashMap<String, usize>,
}

impl Plan {
    /// A plan that has what the source's classes and status need.
    pub(crate) fn new(kind: SourceKind) -> Self {
        let mut plan =
            Self { payload: Trie::new(), evidence: Trie::new(), lineage: Trie::new(), slots: HashMap::new() };
        if kind == SourceKind::OpenSsh {
            plan.want_all(openssh::LINE_PATHS);
        }
        plan.want_all(mapper(kind).needs);
        plan
    }

    pub(crate) fn want_all(&mut self, paths: &[&str]) {
        for path in paths {
            self.want(path);
        }
    }

    pub(crate) fn want_attr(&mut self, from: &From) {
        match from {
            From::First(paths) | From::When(paths, _) | From::Derived(paths, _) => self.want_all(paths),
            From::Const(_) => {}
        }
    }

    /// Wants a vendor's field. Table columns (`$x`) and parts of OpenSSH lines need no search.
    pub(crate) fn want(&mut self, path: &str) -> usize {
        if let Some(&slot) = self.slots.get(path) {
            return slot;
        }
        let slot = self.slots.len();
        self.slots.insert(path.to_owned(), slot);
        if path.starts_with('$') || path.starts_with("sshd.") {
            return slot;
        }
        let id = slot as u32;
        if let Some(rest) = path.strip_prefix("payload.") {
            self.payload.insert(rest, id);
        } else if let Some(rest) = path.strip_prefix("evidence.") {
            self.evidence.insert(rest, id);
        } else if let Some(rest) = path.strip_prefix("lineage.") {
            self.lineage.insert(rest, id);
        } else {
            let path = path.strip_prefix("unmapped.").unwrap_or(path);
            self.payload.insert(path, id);
            self.evidence.insert(path, id);
        }
        slot
    }

    pub(crate) fn slot(&self, path: &str) -> Option<usize> {
        self.slots.get(path).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// What a wanted name means for a source.
#[derive(Debug, Clone)]
pub(crate) enum Resolved {
    /// One of [`COMPUTED`].
    Computed(&'static str),
    /// The first of these attributes of the source's table that the event has, or else the slot,
    /// which is the vendor's field of that name.
    Field(Vec<&'static Attr>, usize),
}

/// Resolves a name for a source and adds to the plan what it needs.
pub(crate) fn resolve(name: &str, kind: SourceKind, plan: &mut Plan) -> Resolved {
    if let Some(computed) = COMPUTED.into_iter().find(|c| *c == name) {
        return Resolved::Computed(computed);
    }
    let slot = plan.want(name);
    let same = |attr: &str| attr == name || (attr.contains("[]") && attr.replace("[]", "") == name);
    // An attribute may stand in the table once for each group of classes.
    let attrs: Vec<&'static Attr> = mapper(kind).attrs.iter().filter(|attr| same(attr.name)).collect();
    attrs.iter().for_each(|attr| plan.want_attr(&attr.from));
    Resolved::Field(attrs, slot)
}

/// A column that grows row by row; it is a list only if some row gave it more than one value.
#[derive(Debug, Default)]
pub(crate) struct ColumnBuilder {
    text: String,
    value_ends: Vec<i32>,
    row_ends: Vec<i32>,
    several: bool,
    overflow: bool,
}

impl ColumnBuilder {
    pub(crate) fn push(&mut self, value: &str) {
        self.text.push_str(value);
        match i32::try_from(self.text.len()) {
            Ok(end) => self.value_ends.push(end),
            Err(_) => self.overflow = true,
        }
    }

    pub(crate) fn end_row(&mut self) {
        let end = i32::try_from(self.value_ends.len()).unwrap_or(i32::MAX);
        let before = self.row_ends.last().copied().unwrap_or(0);
        self.several |= end - before > 1;
        self.row_ends.push(end);
    }

    pub(crate) fn finish(self, name: &str, integer: bool) -> Result<ArrayRef, OcsfError> {
        if self.overflow {
            return Err(OcsfError::TooLarge(name.to_owned()));
        }
        let filled: Vec<bool> =
            std::iter::once(&0).chain(&self.row_ends).zip(&self.row_ends).map(|(from, to)| to > from).collect();
        if integer {
            let values = StringArray::try_new(offsets(&self.value_ends), Buffer::from(self.text.as_bytes()), None)?;
            let first = std::iter::once(&0).chain(&self.row_ends).zip(&filled);
            let numbers = first.map(|(&from, &some)| {
                some.then(|| values.value(usize::try_from(from).unwrap_or(0)).parse::<i64>().ok()).flatten()
            });
            return Ok(Arc::new(numbers.collect::<Int64Array>()));
        }
        let nulls = Some(NullBuffer::from(filled));
        let text = Buffer::from_vec(self.text.into_bytes());
        if self.several {
            let values = StringArray::try_new(offsets(&self.value_ends), text, None)?;
            let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
            return Ok(Arc::new(ListArray::try_new(item, offsets(&self.row_ends), Arc::new(values), nulls)?));
        }
        let ends: Vec<i32> = self
            .row_ends
            .iter()
            .map(|&end| usize::try_from(end - 1).ok().and_then(|last| self.value_ends.get(last)).copied().unwrap_or(0))
            .collect();
        Ok(Arc::new(StringArray::try_new(offsets(&ends), text, nulls)?))
    }
}

/// Offsets that begin with zero; the ends only ever grow.
fn offsets(ends: &[i32]) -> OffsetBuffer<i32> {
    OffsetBuffer::new(std::iter::once(0).chain(ends.iter().copied()).collect::<Vec<i32>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    #[test]
    fn text_lists_and_numbers() {
        let build = |rows: &[&[&str]]| {
            let mut builder = ColumnBuilder::default();
            for row in rows {
                row.iter().for_each(|v| builder.push(v));
                builder.end_row();
            }
            builder
        };
        let text = build(&[&[], &["a"], &[], &["bc"]]).finish("x", false).unwrap();
        assert_eq!(text.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("a"), None, Some("bc")]);
        let list = build(&[&["a", "b"], &[], &["c"]]).finish("x", false).unwrap();
        let list = list.as_list::<i32>();
        assert_eq!((list.value(0).len(), list.is_null(1), list.value(2).len()), (2, true, 1));
        let numbers = build(&[&["12"], &[], &["x"], &["3", "4"]]).finish("x", true).unwrap();
        assert_eq!(
            numbers.as_primitive::<arrow::datatypes::Int64Type>().iter().collect::<Vec<_>>(),
            [Some(12), None, None, Some(3)]
        );
        assert_eq!(build(&[]).finish("x", false).unwrap().len(), 0);
    }
}
