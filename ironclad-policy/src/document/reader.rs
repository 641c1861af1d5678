//! From the tree to the types, by serde.

use std::cell::Cell;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::fault::Fault;
use super::place::Trail;
use super::problem::Problem;
use super::tree::{Kind, MAX_ITEMS, NodeId, Scalar, Tree};

/// Bytes of words, each time that an alias repeats them: four times those of the longest file.
const MAX_TEXT: usize = 16 << 20;
/// The name of a tuple struct that a list is read as, and one value as a list of it.
pub(super) const ONE_OR_MANY: &str = "one or many";

/// A tree that is being read, and what may still be read of it: a few bytes of aliases are many.
pub(super) struct Reader<'t> {
    tree: &'t Tree,
    items: Cell<usize>,
    text: Cell<usize>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(tree: &'t Tree) -> Self {
        Self { tree, items: Cell::new(MAX_ITEMS), text: Cell::new(MAX_TEXT) }
    }

    pub(super) fn root(&self) -> Value<'_> {
        Value { reader: self, node: self.tree.root(), trail: &Trail::Root }
    }

    fn item(&self) -> Result<()> {
        let left = self.items.get().checked_sub(1);
        let too_many = || Fault::new(Problem::TooManyItems { limit: MAX_ITEMS });
        self.items.set(left.ok_or_else(too_many)?);
        Ok(())
    }

    fn text(&self, text: &str) -> Result<()> {
        let left = self.text.get().checked_sub(text.len());
        let too_much = || Fault::new(Problem::TooMuchText { limit: MAX_TEXT });
        self.text.set(left.ok_or_else(too_much)?);
        Ok(())
    }
}

/// A node, and the keys that lead to it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    reader: &'a Reader<'a>,
    node: NodeId,
    trail: &'a Trail<'a>,
}

type Result<T> = std::result::Result<T, Fault>;

impl<'a> Value<'a> {
    fn kind(&self) -> &'a Kind {
        &self.reader.tree.node(self.node).kind
    }

    /// What goes wrong here and does not know where it is, is here. Types may find fault with what
    /// the reader gave them, after it has: the caller that requests a value adds the place.
    fn placed<T>(self, result: Result<T>) -> Result<T> {
        let place = self.reader.tree.node(self.node).place;
        result.map_err(|fault| fault.at(place, || self.trail.path()))
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.kind() {
            Kind::Scalar { text, is_plain } => {
                self.reader.text(text)?;
                match Scalar::of(text, *is_plain) {
                    Scalar::Null => visitor.visit_unit(),
                    Scalar::Bool(answer) => visitor.visit_bool(answer),
                    Scalar::Unsigned(number) => visitor.visit_u64(number),
                    Scalar::Signed(number) => visitor.visit_i64(number),
                    Scalar::Text(text) => visitor.visit_str(text),
                }
            }
            Kind::List(items) => visitor.visit_seq(Items { value: self, items, next: 0 }),
            Kind::Map(entries) => visitor.visit_map(Entries { value: self, entries, next: 0 }),
        }
    }

    /// A number is a text, too, where a text is wanted.
    fn str<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.scalar() {
            Some(text) => {
                self.reader.text(text)?;
                visitor.visit_str(text)
            }
            None => self.any(visitor),
        }
    }

    /// The text of a scalar that is not null.
    fn scalar(&self) -> Option<&'a str> {
        match self.kind() {
            Kind::Scalar { text, is_plain } => match Scalar::of(text, *is_plain) {
                Scalar::Null => None,
                _ => Some(text),
            },
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.kind(), Kind::Scalar { .. }) && self.scalar().is_none()
    }

    fn one_or_many<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.kind() {
            Kind::List(items) => visitor.visit_seq(Items { value: self, items, next: 0 }),
            Kind::Scalar { .. } | Kind::Map(_) => visitor.visit_seq(Only(Some(self))),
        }
    }
}

macro_rules! by_any {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.placed(self.any(visitor))
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Fault;

    by_any! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64 deserialize_char deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_seq deserialize_map deserialize_ignored_any
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.placed(self.str(visitor))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.placed(self.str(visitor))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.placed(self.str(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.is_null() {
            true => self.placed(visitor.visit_none()),
            false => self.placed(visitor.visit_some(self)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.placed(self.any(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.placed(visitor.visit_newtype_struct(self))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.placed(self.any(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        match name {
            ONE_OR_MANY => self.placed(self.one_or_many(visitor)),
            _ => self.placed(self.any(visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.placed(match self.kind() {
            // Serde would take the keys in their order.
            Kind::List(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &visitor)),
            Kind::Scalar { .. } | Kind::Map(_) => self.any(visitor),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.placed(match self.scalar() {
            Some(text) => {
                let text: StrDeserializer<'_, Fault> = text.into_deserializer();
                visitor.visit_enum(text)
            }
            // None of ours has a variant with anything in it.
            None => Err(Fault::value("found no word, expected one")),
        })
    }
}

/// The one item of a list that was written without brackets.
struct Only<'a>(Option<Value<'a>>);

impl<'de> SeqAccess<'de> for Only<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(value) = self.0.take() else { return Ok(None) };
        value.placed(value.reader.item())?;
        value.placed(seed.deserialize(value)).map(Some)
    }
}

struct Items<'a> {
    value: Value<'a>,
    items: &'a [NodeId],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(&node) = self.items.get(self.next) else { return Ok(None) };
        let Value { reader, trail, .. } = self.value;
        let trail = Trail::Index(trail, self.next);
        self.next += 1;
        let value = Value { reader, node, trail: &trail };
        value.placed(reader.item())?;
        value.placed(seed.deserialize(value)).map(Some)
    }
}

struct Entries<'a> {
    value: Value<'a>,
    entries: &'a [(NodeId, NodeId)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(&(key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let Value { reader, trail, .. } = self.value;
        let key = Value { reader, node: key, trail };
        key.placed(reader.item())?;
        key.placed(seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        let Some(&(key, node)) = self.entries.get(self.next) else {
            return Err(Fault::value("no value"));
        };
        self.next += 1;
        let Value { reader, trail, .. } = self.value;
        let trail = Trail::Key(trail, reader.tree.key(key));
        let value = Value { reader, node, trail: &trail };
        value.placed(seed.deserialize(value))
    }
}
