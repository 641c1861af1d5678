//! Rust of the headers' contents.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::forms::{ENUMS, Form, MORE_DERIVES, SECRET, Variants};
use super::parse::{Enum, Field, Header, Item, Struct, Value};
use super::prose;
use crate::failure::{Context, Failure, Result};

const DERIVES: [&str; 10] = [
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "PartialEq",
    "Eq",
    "FromBytes",
    "IntoBytes",
    "Immutable",
    "KnownLayout",
];

/// `Default` is implemented for arrays of at most so many elements.
const DEFAULT_MAX: u64 = 32;

/// What a name of C stands for.
#[derive(Debug)]
pub(super) struct Names {
    /// Constants: the name in Rust, as documentation links to it, and the value.
    pub(super) constants: BTreeMap<String, (String, u64)>,
    /// Enums: the link in documentation, or the pattern of the constants' names.
    pub(super) enums: BTreeMap<String, String>,
    /// Structs: the name in Rust and the fields.
    pub(super) structs: BTreeMap<String, (String, Vec<String>)>,
    /// Structs without `Default`.
    without_default: Vec<String>,
    /// Constants of the type `usize`, which are lengths of arrays.
    lengths: Vec<String>,
}

/// The module's text.
pub(super) fn module(headers: &[Header]) -> Result<String> {
    let mut names = Names::read(headers)?;
    let mut text = String::from(
        "// Made by `cargo xtask abi` of bpf-src/include/ironclad/abi: do not edit.\n\n\
         use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};\n",
    );
    let mut layouts = String::new();
    for header in headers {
        let _ = write!(text, "\n// {}\n", header.name);
        text += "//\n";
        for line in header.doc.lines() {
            text += format!("// {line}").trim_end();
            text += "\n";
        }
        for item in &header.items {
            match item {
                Item::Enum(it) => enumeration(&mut text, it, &names)?,
                Item::Struct(it) if it.is_union => {}
                Item::Struct(it) => {
                    structure(&mut text, it, &mut names)?;
                    layouts += &layout(it);
                }
            }
        }
    }
    let _ = write!(text, "\nlayouts! {{\n{layouts}}}\n");
    Ok(text)
}

impl Names {
    fn read(headers: &[Header]) -> Result<Self> {
        let mut names = Self {
            constants: BTreeMap::new(),
            enums: BTreeMap::new(),
            structs: BTreeMap::new(),
            without_default: Vec::new(),
            lengths: Vec::new(),
        };
        for item in headers.iter().flat_map(|header| &header.items) {
            match item {
                Item::Enum(it) => names.add_enum(it)?,
                Item::Struct(it) if it.is_union => {}
                Item::Struct(it) => {
                    let fields = it.fields.iter().map(|field| field.name.clone()).collect();
                    names.structs.insert(it.name.clone(), (camel(&it.name), fields));
                }
            }
        }
        Ok(names)
    }

    fn add_enum(&mut self, it: &Enum) -> Result<()> {
        let form = form(it)?;
        let mut value = 0;
        let mut patterns = Vec::new();
        for constant in &it.constants {
            value = match &constant.value {
                Value::Next => value + 1,
                Value::Product(factors) => self.product(factors).context(&it.place)?,
            };
            let is_length = match form {
                Form::Constants { kind, .. } => kind == "usize",
                Form::Enum(_) => constant.value == Value::Next,
            };
            let name = match form {
                Form::Enum(variants) if constant.value != Value::Next => {
                    format!("{}::{}", variants.name, variant(variants, &constant.name, it)?)
                }
                Form::Enum(_) => without("IC_", &constant.name, it)?.to_owned(),
                Form::Constants { prefix, .. } => without(prefix, &constant.name, it)?.to_owned(),
            };
            if is_length {
                self.lengths.push(constant.name.clone());
            }
            patterns.push(name.clone());
            if self.constants.insert(constant.name.clone(), (name, value)).is_some() {
                return Err(Failure::new(format!("{}: a second {}", it.place, constant.name)));
            }
        }
        let link = match form {
            Form::Enum(variants) => format!("[`{}`]", variants.name),
            Form::Constants { .. } => pattern(&it.name, &patterns),
        };
        self.enums.insert(it.name.clone(), link);
        Ok(())
    }

    /// The value of a product of numbers and constants.
    fn product(&self, factors: &[String]) -> Result<u64> {
        factors.iter().map(|factor| self.number(factor)).product()
    }

    fn number(&self, word: &str) -> Result<u64> {
        let parsed = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        };
        match self.constants.get(word) {
            Some((_, value)) => Ok(*value),
            None => parsed.context(format_args!("'{word}' is neither a number nor a constant")),
        }
    }

    /// An array's length, by name where there is one.
    fn length(&self, word: &str) -> Result<String> {
        if self.lengths.iter().any(|name| name == word) {
            return Ok(self.constants[word].0.clone());
        }
        Ok(self.number(word)?.to_string())
    }
}

/// The link for all constants of an enum: their common beginning.
fn pattern(name: &str, constants: &[String]) -> String {
    let [first, rest @ ..] = constants else { return format!("`enum {name}`") };
    if rest.is_empty() {
        return format!("[`{first}`]");
    }
    let is_common = |end: &usize| rest.iter().all(|other| other.starts_with(&first[..*end]));
    let ends: Vec<_> = first.match_indices('_').map(|(at, _)| at + 1).collect();
    match ends.into_iter().rev().find(is_common) {
        Some(end) => format!("`{}*`", &first[..end]),
        None => format!("`enum {name}`"),
    }
}

fn form(it: &Enum) -> Result<Form> {
    let found = ENUMS.iter().find(|(name, _)| *name == it.name);
    found.map(|(_, form)| *form).context(format_args!(
        "{}: enum {} has no line in xtask/src/abi/forms.rs",
        it.place, it.name
    ))
}

fn without<'a>(prefix: &str, constant: &'a str, it: &Enum) -> Result<&'a str> {
    constant
        .strip_prefix(prefix)
        .context(format_args!("{}: {constant} does not begin with {prefix}", it.place))
}

fn variant(variants: Variants, constant: &str, it: &Enum) -> Result<String> {
    Ok(camel_words(without(variants.prefix, constant, it)?))
}

/// `SockEvent` of `ic_sock_event`.
fn camel(name: &str) -> String {
    camel_words(name.trim_start_matches("ic_"))
}

fn camel_words(words: &str) -> String {
    let capitalised = words.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    });
    capitalised.collect()
}

fn enumeration(text: &mut String, it: &Enum, names: &Names) -> Result<()> {
    text.push('\n');
    match form(it)? {
        Form::Enum(variants) => numbered(text, it, variants, names)?,
        Form::Constants { kind, .. } => {
            if let Some(doc) = &it.doc {
                *text += &prose::comment(&format!("enum {}: {doc}", it.name));
                *text += "\n";
            }
            for constant in &it.constants {
                let Value::Product(factors) = &constant.value else {
                    return Err(Failure::new(format!(
                        "{}: {} has no value",
                        it.place, constant.name
                    )));
                };
                let value = match factors.as_slice() {
                    [number] if !number.starts_with("IC_") => number.clone(),
                    _ => names.constants[&constant.name].1.to_string(),
                };
                let name = &names.constants[&constant.name].0;
                *text += &prose::doc(&constant.doc, 0, names);
                let _ = writeln!(text, "pub const {name}: {kind} = {value};");
            }
        }
    }
    Ok(())
}

/// An enum of Rust, and the constants that count its variants.
fn numbered(text: &mut String, it: &Enum, form: Variants, names: &Names) -> Result<()> {
    let doc = it.doc.as_ref().context(format_args!("{}: the enum has no comment", it.place))?;
    *text += "numbered! {\n";
    *text += &prose::doc(doc, 4, names);
    let _ = write!(text, "    ///\n    /// `enum {}` in C.\n", it.name);
    if !form.is_exhaustive {
        *text += "    #[non_exhaustive]\n";
    }
    let _ = writeln!(text, "    {} {{", form.name);
    let mut counts = String::new();
    for constant in &it.constants {
        let (_, value) = &names.constants[&constant.name];
        if constant.value == Value::Next {
            let (name, _) = &names.constants[&constant.name];
            counts += &prose::doc(&constant.doc, 0, names);
            let _ = writeln!(counts, "pub const {name}: usize = {value};");
            continue;
        }
        let words = without(form.prefix, &constant.name, it)?;
        let shown: String = words.to_ascii_lowercase().replace('_', &form.separator.to_string());
        *text += &prose::doc(&constant.doc, 8, names);
        let _ = writeln!(text, "        {} = {value}, \"{shown}\";", camel_words(words));
    }
    *text += "    }\n}\n";
    *text += &counts;
    Ok(())
}

fn structure(text: &mut String, it: &Struct, names: &mut Names) -> Result<()> {
    let name = camel(&it.name);
    let mut has_default = true;
    let mut fields = String::new();
    for field in &it.fields {
        let (kind, is_default) = field_type(field, names).context(&field.place)?;
        has_default &= is_default;
        fields += &prose::doc(&field.doc, 4, names);
        if field.name.starts_with('_') {
            fields += "    #[doc(hidden)]\n";
        }
        let _ = writeln!(fields, "    pub {}: {kind},", field.name);
    }
    if !has_default {
        names.without_default.push(it.name.clone());
    }
    let is_secret = SECRET.contains(&it.name.as_str());
    let more = MORE_DERIVES.iter().find(|(name, _)| *name == it.name);
    let mut derives: Vec<_> = DERIVES
        .into_iter()
        .filter(|derive| has_default || *derive != "Default")
        .filter(|derive| !is_secret || *derive != "Debug")
        .collect();
    if let Some((_, more)) = more {
        let at = derives.iter().position(|derive| *derive == "FromBytes").unwrap_or_default();
        derives.splice(at..at, more.iter().copied());
    }
    let size = names.length(&it.size).context(&it.place)?;
    text.push('\n');
    *text += &prose::doc(&it.doc, 0, names);
    let _ = write!(text, "///\n/// `struct {}` in C.\n", it.name);
    *text += &derive(&derives);
    let _ = write!(text, "#[repr(C)]\npub struct {name} {{\n{fields}}}\n");
    let _ = writeln!(text, "const _: () = assert!(size_of::<{name}>() == {size});");
    Ok(())
}

/// As rustfmt writes it.
fn derive(traits: &[&str]) -> String {
    let list = traits.join(", ");
    if list.len() + "#[derive()]".len() < 98 {
        format!("#[derive({list})]\n")
    } else if list.len() + "    ,".len() <= 100 {
        format!("#[derive(\n    {list},\n)]\n")
    } else {
        let lines: String = traits.iter().map(|it| format!("    {it},\n")).collect();
        format!("#[derive(\n{lines})]\n")
    }
}

/// The type of a field, and whether it implements `Default`.
///
/// Big-endian numbers are bytes in Rust. Two `__be64` are an IPv6 address and one array of bytes.
fn field_type(field: &Field, names: &Names) -> Result<(String, bool)> {
    let mut lengths = field.lengths.clone();
    let mut has_default = true;
    let mut kind = match field.kind.as_str() {
        "__u8" => "u8".to_owned(),
        "__u16" => "u16".to_owned(),
        "__u32" => "u32".to_owned(),
        "__u64" => "u64".to_owned(),
        "__s32" => "i32".to_owned(),
        "__s64" => "i64".to_owned(),
        "__be16" => "[u8; 2]".to_owned(),
        "__be32" => "[u8; 4]".to_owned(),
        "__be64" => {
            let words = lengths.pop().context("a __be64 that is not an array")?;
            format!("[u8; {}]", 8 * names.number(&words)?)
        }
        "struct bpf_spin_lock" => "u32".to_owned(),
        other => {
            let name = other.strip_prefix("struct ");
            let found = name.and_then(|name| names.structs.get(name));
            let (rust, _) =
                found.context(format_args!("the type '{other}' has no form in Rust"))?;
            has_default =
                !names.without_default.iter().any(|without| Some(without.as_str()) == name);
            rust.clone()
        }
    };
    for length in lengths.iter().rev() {
        has_default &= names.number(length)? <= DEFAULT_MAX;
        kind = format!("[{kind}; {}]", names.length(length)?);
    }
    Ok((kind, has_default))
}

/// The line of a struct in the table that a test compares with the BTF.
fn layout(it: &Struct) -> String {
    let fields: Vec<_> = it.fields.iter().map(|field| field.name.as_str()).collect();
    let text = prose::wrap(&fields.join(", "), 92);
    let lines: String = text.iter().map(|line| format!("        {line}\n")).collect();
    format!("    {} = {} {{\n{lines}    }}\n", it.name, camel(&it.name))
}
