//! Reading JSON text in place: a strict scanner that never recurses, and string unescaping.

mod scan;
mod text;

pub(crate) use scan::{Kind, Nesting, Node, Scanner, Span, SyntaxError};
pub(crate) use text::{quote_into, unescape_into};
