use std::collections::BTreeMap;

use super::{Btf, Writer, extent};

/// Builds BTF as a compiler would.
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const PROTOTYPE: u32 = 13;
const ENUM64: u32 = 19;

impl Blob {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// A type with `rest` words behind it, `count` things in it; gives its number.
    fn ty(&mut self, kind: u32, name: &str, size_or_type: u32, count: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.words(&[name, kind << 24 | count, size_or_type]);
        self.words(rest);
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        self.ty(INT, name, size, 0, &[size * 8])
    }

    /// Members are name, type, offset in bits, width in bits of a bitfield or 0.
    fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32, u32)],
    ) -> u32 {
        const FLAG: u32 = 1 << 31;
        let fields: Vec<_> = members
            .iter()
            .flat_map(|&(name, ty, offset, bits)| [self.name(name), ty, bits << 24 | offset])
            .collect();
        let name = self.name(name);
        self.words(&[name, FLAG | kind << 24 | members.len() as u32, size]);
        self.words(&fields);
        self.count += 1;
        self.count
    }

    fn finish(mut self) -> Vec<u8> {
        self.name("");
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        bytes
    }
}

fn written(blob: Blob, names: &[&str]) -> (String, String) {
    written_partly(blob, names, &BTreeMap::new())
}

fn written_partly(
    blob: Blob,
    names: &[&str],
    partial: &BTreeMap<String, Vec<String>>,
) -> (String, String) {
    let btf = Btf::parse(&blob.finish()).unwrap();
    let mut writer = Writer::new(&btf, partial);
    for name in names {
        let known = [btf.composite(name), btf.typedef(name), btf.constant(name)];
        writer.define(known.into_iter().flatten().next().unwrap()).unwrap();
    }
    (writer.take(), writer.asserts().to_owned())
}

#[test]
fn what_is_contained_comes_first_and_what_is_pointed_to_stays_incomplete() {
    let mut blob = Blob::default();
    let u32_ = blob.int("unsigned int", 4);
    let word = blob.ty(TYPEDEF, "__u32", u32_, 0, &[]);
    let far = blob.composite(STRUCT, "far", 4, &[("x", word, 0, 0)]);
    let to_far = blob.ty(POINTER, "", far, 0, &[]);
    let near = blob.composite(STRUCT, "near", 8, &[("a", word, 0, 0), ("b", word, 32, 0)]);
    let nears = blob.ty(ARRAY, "", 0, 0, &[near, u32_, 2]);
    blob.composite(STRUCT, "root", 24, &[("far", to_far, 0, 0), ("nears", nears, 64, 0)]);
    let (text, asserts) = written(blob, &["root"]);
    assert_eq!(
        text,
        "struct far;\n\ntypedef unsigned int __u32;\n\nstruct near {\n\t__u32 a;\n\t__u32 b;\n};\n\n\
         struct root {\n\tstruct far *far;\n\tstruct near nears[2];\n};\n\n"
    );
    assert!(asserts.contains("sizeof(struct root) == 24"), "{asserts}");
    assert!(asserts.contains("__builtin_offsetof(struct root, nears) == 8"), "{asserts}");
}

#[test]
fn layouts_that_c_would_not_choose() {
    let mut blob = Blob::default();
    let byte = blob.int("unsigned char", 1);
    let word = blob.int("unsigned int", 4);
    blob.composite(STRUCT, "packed", 5, &[("a", byte, 0, 0), ("b", word, 8, 0)]);
    blob.composite(STRUCT, "gap", 16, &[("a", byte, 0, 0), ("b", word, 64, 0)]);
    blob.composite(
        STRUCT,
        "bits",
        4,
        &[("a", byte, 0, 4), ("b", byte, 4, 4), ("c", word, 16, 5), ("d", word, 21, 1)],
    );
    let (text, _) = written(blob, &["packed", "gap", "bits"]);
    assert_eq!(
        text,
        "struct packed {\n\tunsigned char a;\n\tunsigned int b;\n} __attribute__((packed));\n\n\
         struct gap {\n\tunsigned char a;\n\tunsigned char __gap1[4];\n\tunsigned int b;\n\
         \tunsigned char __gap2[4];\n};\n\n\
         struct bits {\n\tunsigned char a: 4;\n\tunsigned char b: 4;\n\tunsigned char __gap1[1];\n\
         \tunsigned int c: 5;\n\tunsigned int d: 1;\n};\n\n"
    );
}

#[test]
fn declarators_inside_out() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    let constant = blob.ty(CONST, "", int, 0, &[]);
    let to_constant = blob.ty(POINTER, "", constant, 0, &[]);
    let fixed = blob.ty(CONST, "", to_constant, 0, &[]);
    let other = blob.composite(STRUCT, "other", 4, &[("x", int, 0, 0)]);
    let to_other = blob.ty(POINTER, "", other, 0, &[]);
    let callback = blob.ty(PROTOTYPE, "", int, 2, &[0, to_other, 0, 0]);
    let to_callback = blob.ty(POINTER, "", callback, 0, &[]);
    let callbacks = blob.ty(ARRAY, "", 0, 0, &[to_callback, int, 3]);
    let row = blob.ty(ARRAY, "", 0, 0, &[int, int, 2]);
    let to_row = blob.ty(POINTER, "", row, 0, &[]);
    let choice = blob.composite(UNION, "", 4, &[("i", int, 0, 0), ("j", int, 0, 0)]);
    blob.composite(
        STRUCT,
        "s",
        48,
        &[("p", fixed, 0, 0), ("f", callbacks, 64, 0), ("r", to_row, 256, 0), ("", choice, 320, 0)],
    );
    let (text, _) = written(blob, &["s"]);
    assert_eq!(
        text,
        "struct other;\n\nstruct s {\n\tconst int *const p;\n\tint (*f[3])(struct other *, ...);\n\
         \tint (*r)[2];\n\tunion {\n\t\tint i;\n\t\tint j;\n\t};\n};\n\n"
    );
}

#[test]
fn enums_of_both_widths_and_signs() {
    let mut blob = Blob::default();
    let (plus, minus) = (blob.name("PLUS"), blob.name("MINUS"));
    blob.ty(ENUM, "", 4, 1, &[plus, u32::MAX]);
    let name = blob.name("signed");
    blob.words(&[name, 1 << 31 | ENUM << 24 | 1, 4, minus, u32::MAX]);
    blob.count += 1;
    let wide = blob.name("WIDE");
    blob.ty(ENUM64, "", 8, 1, &[wide, 0, 1]);
    let (text, _) = written(blob, &["PLUS", "MINUS", "WIDE"]);
    assert_eq!(
        text,
        "enum {\n\tPLUS = 4294967295,\n};\n\nenum signed {\n\tMINUS = -1,\n};\n\n\
         enum {\n\tWIDE = 4294967296ULL,\n};\n\n"
    );
}

#[test]
fn some_fields_of_a_struct() {
    let struct_with_union = || {
        let mut blob = Blob::default();
        let int = blob.int("int", 4);
        let inner = blob.composite(UNION, "", 4, &[("deep", int, 0, 0), ("other", int, 0, 0)]);
        blob.composite(
            STRUCT,
            "big",
            12,
            &[("a", int, 0, 0), ("", inner, 32, 0), ("b", int, 64, 0)],
        );
        blob
    };
    let fields = |names: &[&str]| {
        BTreeMap::from([("big".to_owned(), names.iter().map(|&name| name.to_owned()).collect())])
    };
    let (text, asserts) = written_partly(struct_with_union(), &["big"], &fields(&["b", "deep"]));
    assert_eq!(text, "struct big {\n\tint b;\n\tint deep;\n};\n\n");
    assert_eq!(asserts, "");

    let btf = Btf::parse(&struct_with_union().finish()).unwrap();
    let partial = fields(&["gone"]);
    let error = Writer::new(&btf, &partial).define(btf.composite("big").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "struct big has no field gone");
}

#[test]
fn cut_bytes_are_refused() {
    let mut blob = Blob::default();
    let int = blob.int("int", 4);
    blob.composite(STRUCT, "s", 4, &[("x", int, 0, 0)]);
    let bytes = blob.finish();
    assert_eq!(extent(&[&bytes[..], &[1, 2, 3]].concat()), Some(bytes.len()));
    for len in 0..bytes.len() {
        assert!(Btf::parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
}
