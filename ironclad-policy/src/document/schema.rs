//! The JSON Schema of policy files, made of the types that read them.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::Document;

/// The JSON Schema of policy files, as JSON: for editors and for programs that write policy files.
///
/// It knows keys, types and words. Of what it lets pass the reader still refuses names that nothing
/// has, prefixes with host bits, and rules that contradict themselves.
pub fn schema() -> String {
    format!("{:#}\n", value())
}

fn value() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    amend(&mut schema);
    schema
}

/// Says how large numbers may be, and removes defaults that a file cannot have.
fn amend(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            let is_nothing = |default: &Value| {
                default.is_null() || default.as_array().is_some_and(Vec::is_empty)
            };
            if keys.get("default").is_some_and(is_nothing) {
                keys.remove("default");
            }
            if keys.get("format").is_some_and(|format| format == "uint32") {
                keys.entry("maximum").or_insert_with(|| u32::MAX.into());
            }
            keys.values_mut().for_each(amend);
        }
        Value::Array(items) => items.iter_mut().for_each(amend),
        _ => {}
    }
}

/// One value or a list, which may be empty.
pub(super) struct AnyOf<T>(PhantomData<T>);

/// One value or a list, which has at least one.
pub(super) struct SomeOf<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for AnyOf<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("AnyOf_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl<T: JsonSchema> JsonSchema for SomeOf<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("SomeOf_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

/// Types that are written in one word: their schema is a few lines.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident: $schema:tt)*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )*
    };
}

words! {
    /// Of packets that nothing matches.
    Verdict: { "type": "string", "enum": ["allow", "drop"] }
    /// Of sockets that nothing matches.
    SocketVerdict: { "type": "string", "enum": ["allow", "deny"] }
    /// Of packets.
    Action: { "type": "string", "enum": ["drop", "allow", "log"] }
    /// Of lists.
    BadLines: { "type": "string", "enum": ["strict", "lenient"] }
    /// Of two letters.
    Country: { "type": "string", "pattern": "^[A-Za-z]{2}$" }
    /// A user or a group.
    Account: { "type": ["integer", "string"], "minimum": 0, "maximum": 4_294_967_294u32 }
    /// One port or a range.
    Ports: {
        "type": ["integer", "string"],
        "minimum": 0,
        "maximum": 65535,
        "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"
    }
    /// By name or number.
    Protocol: {
        "anyOf": [
            {
                "type": "string",
                "enum": [
                    "tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "raw", "packet"
                ]
            },
            { "type": "integer", "minimum": 0, "maximum": 255 }
        ]
    }
    /// Of packets, by name or number.
    IpProtocol: {
        "anyOf": [
            {
                "type": "string",
                "enum": ["tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite"]
            },
            { "type": "integer", "minimum": 0, "maximum": 255 }
        ]
    }
    /// With a unit.
    Time: { "type": "string", "pattern": "^[0-9]+[smhd]$" }
    /// Bytes, or a text with a unit.
    Bytes: { "type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+( ?[KMG]iB)?$" }
    /// A prefix's length.
    Length: { "type": "string", "pattern": "^/[0-9]{1,3}$" }
    /// In hexadecimal.
    Sha256: { "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" }
    /// In hundredths.
    Percent: { "type": "integer", "minimum": 0, "maximum": 100 }
    /// What a limit counts.
    Tokens: { "type": "integer", "minimum": 1, "maximum": 1_000_000 }
}

#[cfg(test)]
mod tests;
