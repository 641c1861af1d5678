use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::tests::{WHOLE, examples};
use super::super::tree::{Kind, NodeId, Scalar, Tree};
use super::super::{Document, Problem};
use super::{schema, value};

/// As an editor sees it.
fn json_of(tree: &Tree, id: NodeId) -> Value {
    match &tree.node(id).kind {
        Kind::Scalar { text, is_plain } => match Scalar::of(text, *is_plain) {
            Scalar::Null => Value::Null,
            Scalar::Bool(answer) => answer.into(),
            Scalar::Unsigned(number) => number.into(),
            Scalar::Signed(number) => number.into(),
            Scalar::Text(text) => text.into(),
        },
        Kind::List(items) => items.iter().map(|item| json_of(tree, *item)).collect(),
        Kind::Map(entries) => {
            let entry = |(key, value): &(NodeId, NodeId)| {
                (tree.key(*key).to_owned(), json_of(tree, *value))
            };
            Value::Object(entries.iter().map(entry).collect())
        }
    }
}

/// What of JSON Schema our schema has. A word that is not known here fails a test, so that none is
/// taken for granted.
struct Validator<'a> {
    root: &'a Value,
    /// Where a text is wanted, any word is one: so it is to the reader, but not to an editor.
    words_are_texts: bool,
}

impl Validator<'_> {
    fn is(&self, value: &Value, name: &Value) -> bool {
        let is_word = value.is_boolean() || value.is_number();
        match name.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "string" => value.is_string() || self.words_are_texts && is_word,
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("what is {other}?"),
        }
    }

    fn errors(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let Value::Object(keys) = schema else { panic!("{schema}") };
        let one = |keyword: &String, rule| self.keyword(keys, keyword, rule, value, at);
        keys.iter().flat_map(|(keyword, rule)| one(keyword, rule)).collect()
    }

    fn keyword(
        &self,
        keys: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
    ) -> Vec<String> {
        let number = value.as_i64();
        let fits = match keyword {
            "$schema" | "title" | "description" | "default" | "format" | "$defs" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                return self.errors(self.root.pointer(pointer).unwrap(), value, at);
            }
            "type" => match rule {
                Value::Array(any) => any.iter().any(|name| self.is(value, name)),
                name => self.is(value, name),
            },
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => number.is_none_or(|number| number >= rule.as_i64().unwrap()),
            "maximum" => number.is_none_or(|number| number <= rule.as_i64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| !items.is_empty()),
            "pattern" => value.as_str().is_none_or(|text| matches(text, rule.as_str().unwrap())),
            "anyOf" | "oneOf" => {
                let fits = |schema: &&Value| self.errors(schema, value, at).is_empty();
                let count = rule.as_array().unwrap().iter().filter(fits).count();
                count == 1 || count > 1 && keyword == "anyOf"
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                let one = |(i, item)| self.errors(rule, item, &format!("{at}[{i}]"));
                return items.flat_map(one).collect();
            }
            "required" => {
                let mut keys = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                !value.is_object() || keys.all(|key| value.get(key).is_some())
            }
            "properties" => {
                let known = rule.as_object().unwrap().iter();
                let there = known.filter_map(|(key, schema)| Some((key, schema, value.get(key)?)));
                let one = |(key, schema, value): (&String, _, _)| {
                    self.errors(schema, value, &format!("{at}.{key}"))
                };
                return there.flat_map(one).collect();
            }
            "additionalProperties" => {
                let known = keys.get("properties").and_then(Value::as_object);
                let is_other =
                    |(key, _): &(&String, &Value)| !known.is_some_and(|k| k.contains_key(*key));
                let others = value.as_object().into_iter().flatten().filter(is_other);
                let one = |(key, value): (&String, &Value)| match rule {
                    Value::Bool(false) => vec![format!("{at}.{key}: unknown")],
                    schema => self.errors(schema, value, &format!("{at}.{key}")),
                };
                return others.flat_map(one).collect();
            }
            other => panic!("what is {other}?"),
        };
        if fits { Vec::new() } else { vec![format!("{at}: {value} is not {keyword} {rule}")] }
    }
}

fn matches(text: &str, pattern: &str) -> bool {
    let port =
        |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match pattern {
        "^[A-Za-z]{2}$" => text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()),
        "^[0-9]{1,5}(-[0-9]{1,5})?$" => text.splitn(2, '-').all(port),
        "^[0-9]+[smhd]$" => text.strip_suffix(['s', 'm', 'h', 'd']).is_some_and(digits),
        "^[0-9]+( ?[KMG]iB)?$" => {
            let number = ["KiB", "MiB", "GiB"].iter().find_map(|unit| text.strip_suffix(unit));
            digits(number.map_or(text, |number| number.strip_suffix(' ').unwrap_or(number)))
        }
        "^/[0-9]{1,3}$" => text.strip_prefix('/').is_some_and(|n| n.len() < 4 && digits(n)),
        "^[0-9A-Fa-f]{64}$" => text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        other => panic!("what is {other}?"),
    }
}

fn errors_of(schema: &Value, text: &str) -> Vec<String> {
    let tree = Tree::parse(text, 0).unwrap();
    Validator { root: schema, words_are_texts: false }.errors(
        schema,
        &json_of(&tree, tree.root()),
        "",
    )
}

#[test]
fn the_shipped_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.schema.json");
    let made = schema();
    if std::env::var_os("IRONCLAD_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let Ok(shipped) = std::fs::read_to_string(&path) else {
        println!("SKIP the_shipped_schema_is_that_of_the_types: no {}", path.display());
        return;
    };
    assert!(
        shipped == made,
        "docs/policy.schema.json is stale, make it anew: \
         IRONCLAD_WRITE_SCHEMA=1 cargo test -p ironclad-policy --features schema schema"
    );
}

#[test]
fn examples_conform() {
    let schema = value();
    for (place, text) in examples() {
        assert_eq!(errors_of(&schema, &text), [""; 0], "{place}");
    }
}

/// The words that the schema has were written by hand: the reader names the same.
#[test]
fn words_are_those_of_the_reader() {
    let schema = value();
    for (text, pointer) in [
        ("default: x", "/properties/default/enum"),
        ("malformed: x", "/properties/malformed/enum"),
        ("sets: [{ action: x }]", "/$defs/DocumentSet/properties/action/enum"),
        ("feeds: { a: { format: x } }", "/$defs/DocumentFeedFormat/oneOf"),
        ("feeds: { a: { if-missing: x } }", "/$defs/DocumentIfMissing/oneOf"),
        ("sets: [{ bad-lines: x }]", "/$defs/DocumentSet/properties/bad-lines/enum"),
        (
            "rules: [{ protocol: x }]",
            "/$defs/DocumentRule/properties/protocol/anyOf/0/anyOf/0/enum",
        ),
        ("files: [{ operations: x }]", "/$defs/DocumentFileOps/oneOf"),
        ("files: [{ action: x }]", "/$defs/FileAction/oneOf"),
        ("socket-defaults: { out: x }", "/$defs/DocumentSocketDefaults/properties/out/enum"),
    ] {
        let error = Document::parse("p", text).unwrap_err();
        let Problem::UnknownValue { expected, .. } = error.problem() else { panic!("{error}") };
        let words = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        let expected = expected.iter().filter(|word| !word.contains(' '));
        let expected: Vec<_> = expected.map(|word| Value::from(*word)).collect();
        // Those that have a description each are objects.
        let words = words.as_array().unwrap().iter().map(|word| word.get("const").unwrap_or(word));
        assert_eq!(words.cloned().collect::<Vec<_>>(), expected, "{text}");
    }
}

/// Every way to put one other value into a document, to leave a key out, or to add one.
fn mutants(value: &Value) -> Vec<Value> {
    let mut out = vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(70_000),
        json!(5_000_000_000u64),
        json!(""),
        json!("x"),
        json!("de"),
        json!("tcp"),
        json!("80-81"),
        json!([]),
        json!(["x"]),
        json!([1, 2]),
        json!([[]]),
        json!({}),
        json!({"x": 1}),
    ];
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.extend(mutants(item).into_iter().map(|mutant| {
                    let mut items = items.clone();
                    items[i] = mutant;
                    Value::Array(items)
                }));
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                let mut without = entries.clone();
                without.remove(key);
                out.push(Value::Object(without));
                out.extend(mutants(entry).into_iter().map(|mutant| {
                    let mut entries = entries.clone();
                    entries.insert(key.clone(), mutant);
                    Value::Object(entries)
                }));
            }
            let mut more = entries.clone();
            more.insert("unknown-key".to_owned(), json!(1));
            out.push(Value::Object(more));
        }
        _ => {}
    }
    out
}

/// JSON is YAML: what one of them takes by its types, the other takes, too.
#[test]
fn schema_and_reader_agree_on_mutants() {
    agree_on_mutants_of(WHOLE, 300, 1000);
}

#[cfg(all(unix, feature = "feed"))]
#[test]
fn schema_and_reader_agree_on_mutants_of_feeds() {
    agree_on_mutants_of(super::super::tests::FEEDS, 60, 500);
}

fn agree_on_mutants_of(text: &str, least_taken: u32, least_refused: u32) {
    let schema = value();
    let tree = Tree::parse(text, 0).unwrap();
    let whole = json_of(&tree, tree.root());
    let (mut taken, mut refused) = (0, 0);
    for mutant in mutants(&whole) {
        let text = mutant.to_string();
        let errors = |words_are_texts| {
            Validator { root: &schema, words_are_texts }.errors(&schema, &mutant, "")
        };
        match Document::parse("p", &text) {
            Ok(_) => {
                taken += 1;
                assert_eq!(errors(true), [""; 0], "{text}");
            }
            Err(error) => {
                refused += 1;
                let is_of_types = match error.problem() {
                    Problem::UnknownKey { .. } | Problem::MissingKey { .. } => true,
                    Problem::UnknownValue { .. } => true,
                    Problem::Value(what) => {
                        what.starts_with("found ") || what.starts_with("the list is empty")
                    }
                    _ => false,
                };
                assert!(!is_of_types || !errors(false).is_empty(), "{error}: {text}");
            }
        }
    }
    assert!(taken > least_taken && refused > least_refused, "{taken} taken, {refused} refused");
}
