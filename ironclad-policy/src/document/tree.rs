//! YAML as a tree that knows where everything stands.
//!
//! The tree has no room for what policies have no use for (tags, several documents, keys that are
//! not text), and it is bounded while it grows, so that no text can make it large or deep.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::fault::Fault;
use super::place::{KeyPath, Place, Step, former};
use super::problem::Problem;
use super::text::shown;
use crate::list::encoded;

/// Items of lists and mappings, each time that an alias repeats them.
pub(super) const MAX_ITEMS: usize = 250_000;
/// Lists and mappings within each other: a policy needs five.
const MAX_DEPTH: usize = 32;

/// The number of a node.
pub(super) type NodeId = u32;

/// Aliases are nodes that have several parents.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    /// Collections within each other, itself included.
    depth: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar { text: Box<str>, is_plain: bool },
    List(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
}

/// A plain scalar by the core schema of YAML 1.2: `no` is a text, so is `010`.
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    pub(super) fn of(text: &'a str, is_plain: bool) -> Self {
        if !is_plain {
            return Self::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        let based = |prefix, base| {
            let digits = text.strip_prefix(prefix)?;
            let is_digit = digits.chars().all(|c| c.is_digit(base));
            u64::from_str_radix(digits, base).ok().filter(|_| is_digit)
        };
        if let Some(number) = based("0x", 16).or_else(|| based("0o", 8)) {
            return Self::Unsigned(number);
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        // YAML 1.1 took them for octal.
        let is_doubtful = digits.len() > 1 && digits.starts_with('0');
        if is_doubtful || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Self::Text(text);
        }
        match (text.parse(), text.parse()) {
            (Ok(number), _) => Self::Unsigned(number),
            (_, Ok(number)) => Self::Signed(number),
            _ => Self::Text(text),
        }
    }
}

/// A collection that is still open.
struct Open {
    anchor: usize,
    node: Node,
    /// The key whose value comes next.
    key: Option<NodeId>,
}

struct Builder {
    /// Lines of the file that stand before the text.
    before: u32,
    nodes: Vec<Node>,
    anchors: HashMap<usize, NodeId>,
    open: Vec<Open>,
    root: Option<NodeId>,
}

impl Tree {
    /// `before` is how many lines of the file stand before the text: places are those of the file.
    pub(super) fn parse(text: &str, before: u32) -> Result<Self, Fault> {
        if let Some((at, character)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
            let what = format!(
                "the character U+{:04X}, which YAML does not have: write it as `\\u{:04x}` in double quotes",
                u32::from(character),
                u32::from(character)
            );
            return Err(syntax_at(what, &text[..at]).down(before));
        }
        let (nodes, anchors, open) = (Vec::new(), HashMap::new(), Vec::new());
        let mut builder = Builder { before, nodes, anchors, open, root: None };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| syntax(&error, text).down(before))?;
            let place = place(&span.start).down(before);
            builder.event(event, span).map_err(|fault| fault.at(place, KeyPath::default))?;
        }
        match builder.root {
            Some(root) if !builder.nodes[root as usize].is_nothing() => {
                Ok(Self { nodes: builder.nodes, root })
            }
            _ => Err(Fault::new(Problem::Empty)),
        }
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// The text of a key.
    pub(super) fn key(&self, id: NodeId) -> &str {
        match &self.node(id).kind {
            Kind::Scalar { text, .. } => text,
            Kind::List(_) | Kind::Map(_) => "",
        }
    }

    fn value(&self, map: &[(NodeId, NodeId)], key: &str) -> Option<(NodeId, NodeId)> {
        map.iter().find(|(id, _)| self.key(*id) == key).copied()
    }

    /// Where the steps lead, and those that lead there: one value in place of a list of it has no
    /// position.
    pub(super) fn find(&self, steps: impl IntoIterator<Item = Step>) -> (Place, KeyPath) {
        let (mut at, mut path) = (self.root, KeyPath::default());
        for step in steps {
            let found = match (&self.node(at).kind, &step) {
                (Kind::Map(map), Step::Key(key)) => self
                    .value(map, key)
                    .or_else(|| self.value(map, former(key)?))
                    .map(|(written, value)| (Step::from(self.key(written)), value)),
                (Kind::List(items), Step::Index(index)) => {
                    items.get(*index).map(|item| (step, *item))
                }
                (_, Step::Index(_)) => continue,
                _ => None,
            };
            let Some((written, value)) = found else { break };
            path.0.push(written);
            at = value;
        }
        (self.node(at).place, path)
    }

    /// Where the key of an outer mapping stands.
    pub(super) fn find_key(&self, outer: &str, key: &str) -> Option<Place> {
        let Kind::Map(map) = &self.node(self.root).kind else { return None };
        let Kind::Map(map) = &self.node(self.value(map, outer)?.1).kind else { return None };
        Some(self.node(self.value(map, key)?.0).place)
    }
}

impl Node {
    fn is_nothing(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, is_plain } => {
                matches!(Scalar::of(text, *is_plain), Scalar::Null)
            }
            Kind::Map(map) => map.is_empty(),
            Kind::List(_) => false,
        }
    }
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let place = place(&span.start).down(self.before);
        let node = |kind| Node { place, depth: 0, kind };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(unfit("a second document begins here: a policy is one"))
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
            Event::Scalar(.., Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag)) => {
                let tag = shown(&format!("{}{}", tag.handle, tag.suffix));
                Err(unfit(format_args!("the tag `{tag}` is not of the format")))
            }
            Event::Scalar(text, style, anchor, None) => {
                let is_plain = style == ScalarStyle::Plain;
                let kind = Kind::Scalar { text: text.as_ref().into(), is_plain };
                let id = self.add(anchor, node(kind))?;
                self.place_in_parent(id)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(&id) => self.place_in_parent(id),
                None => Err(unfit("an alias within what it stands for")),
            },
            Event::SequenceStart(anchor, None) => self.begin(anchor, node(Kind::List(Vec::new()))),
            Event::MappingStart(anchor, None) => self.begin(anchor, node(Kind::Map(Vec::new()))),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, node, .. }) => {
                    self.no_key_twice(&node)?;
                    let id = self.add(anchor, node)?;
                    self.place_in_parent(id)
                }
                None => Err(unfit("something ends that has not begun")),
            },
        }
    }

    fn begin(&mut self, anchor: usize, node: Node) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::new(Problem::TooDeep));
        }
        self.open.push(Open { anchor, node: Node { depth: 1, ..node }, key: None });
        Ok(())
    }

    fn add(&mut self, anchor: usize, node: Node) -> Result<NodeId, Fault> {
        // A key and its value are one item.
        if self.nodes.len() > 2 * MAX_ITEMS {
            return Err(Fault::new(Problem::TooManyItems { limit: MAX_ITEMS }));
        }
        let id = self.nodes.len() as NodeId;
        self.nodes.push(node);
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        Ok(id)
    }

    fn place_in_parent(&mut self, id: NodeId) -> Result<(), Fault> {
        let Node { depth, kind, .. } = &self.nodes[id as usize];
        if self.open.len() + depth > MAX_DEPTH {
            return Err(Fault::new(Problem::TooDeep));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(id);
            return Ok(());
        };
        parent.node.depth = parent.node.depth.max(depth + 1);
        match &mut parent.node.kind {
            Kind::List(items) => items.push(id),
            Kind::Map(entries) => match parent.key.take() {
                Some(key) => entries.push((key, id)),
                None if matches!(kind, Kind::Scalar { .. }) => parent.key = Some(id),
                None => return Err(unfit("a key is a word, neither a list nor a mapping")),
            },
            Kind::Scalar { .. } => {}
        }
        Ok(())
    }

    fn no_key_twice(&self, node: &Node) -> Result<(), Fault> {
        let Kind::Map(map) = &node.kind else { return Ok(()) };
        let mut seen: HashMap<&str, Place> = HashMap::with_capacity(map.len());
        for (id, _) in map {
            let Node { place, kind: Kind::Scalar { text, .. }, .. } = &self.nodes[*id as usize]
            else {
                continue;
            };
            if let Some(first) = seen.insert(text, *place) {
                let problem = Problem::DuplicateKey { key: shown(text), first: first.line };
                return Err(Fault::new(problem).at(*place, KeyPath::default));
            }
        }
        Ok(())
    }
}

fn unfit(what: impl std::fmt::Display) -> Fault {
    Fault::new(Problem::Syntax(what.to_string()))
}

fn syntax(error: &ScanError, text: &str) -> Fault {
    // Of brackets the reader has a limit of its own, which is above ours.
    let problem = match error.info() {
        info if info.starts_with("recursion limit") => Problem::TooDeep,
        info => Problem::Syntax(shown(info)),
    };
    // Of a comment or a directive the reader counts bytes: its end may seem to be behind the line.
    let mut place = place(error.marker());
    let text = text.replace("\r\n", "\n");
    let line = text.split(['\n', '\r']).nth(place.line as usize - 1).unwrap_or_default();
    place.column = place.column.min(number(line.chars().count()).saturating_add(1));
    Fault::new(problem).at(place, KeyPath::default)
}

/// The text of a file.
pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, Fault> {
    if let Some((format, command)) = encoded(&bytes) {
        return Err(unfit(format_args!(
            "it is {format}, not text in UTF-8: convert it first, e.g. with `{command}`"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (before, rest) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let byte = rest.first().copied().unwrap_or_default();
        let what = format!("byte 0x{byte:02x}, which is no UTF-8: policies are text in UTF-8");
        syntax_at(what, &String::from_utf8_lossy(before))
    })
}

/// What is wrong behind a text.
fn syntax_at(what: String, before: &str) -> Fault {
    let before = before.replace("\r\n", "\n");
    let mut lines = before.split(['\n', '\r']);
    let last = lines.next_back().unwrap_or_default();
    let line = number(lines.count()).saturating_add(1);
    let column = number(last.chars().count()).saturating_add(1);
    Fault::new(Problem::Syntax(what)).at(Place { line, column }, KeyPath::default)
}

/// YAML 1.2.2, 5.1.
fn is_printable(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' | '\u{85}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        other => !other.is_control(),
    }
}

fn place(marker: &Marker) -> Place {
    Place { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
