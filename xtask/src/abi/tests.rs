use super::{emit, parse};

const TOP: &str = "/* SPDX-License-Identifier: X */\n/* Contents. */\n";

fn module(items: &str) -> Result<String, String> {
    let header = parse::header("a.h", &format!("{TOP}{items}")).map_err(|e| e.to_string())?;
    emit::module(&[header]).map_err(|e| e.to_string())
}

fn refusal(items: &str) -> String {
    module(items).expect_err("it is accepted")
}

#[test]
fn a_struct_and_its_constants() {
    let made = module(
        "/* The action. */
enum ic_action {
	IC_ACTION_DROP = 1, /* the packet is dropped */
	/* The packet passes, see ic_key.port. */
	IC_ACTION_ALLOW = 0x2,
};
enum ic_limit {
	IC_RULES_MAX = 33, /* rules */
};
/* A key. */
struct ic_key {
	__be64 addr[2]; /* the address */
	__be16 port;    /* execve(2) */
	__u8 action[IC_RULES_MAX]; /* enum ic_action */
	__u8 _pad[5];
};
_Static_assert(sizeof(struct ic_key) == 56, \"ABI\");
",
    )
    .unwrap();
    for expected in [
        "// enum ic_action: The action.\n",
        "/// The packet is dropped.\npub const ACTION_DROP: u8 = 1;\n",
        "/// The packet passes, see [`Key::port`].\npub const ACTION_ALLOW: u8 = 0x2;\n",
        "/// A key.\n///\n/// `struct ic_key` in C.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, ",
        "    /// The address.\n    pub addr: [u8; 16],\n",
        "    /// execve(2).\n    pub port: [u8; 2],\n",
        "    /// `ACTION_*`.\n    pub action: [u8; RULES_MAX],\n",
        "    /// Zero.\n    #[doc(hidden)]\n    pub _pad: [u8; 5],\n}\n",
        "assert!(size_of::<Key>() == 56);\n",
        "    ic_key = Key {\n        addr, port, action, _pad\n    }\n",
    ] {
        assert!(made.contains(expected), "{expected}\nis missing in\n{made}");
    }
}

#[test]
fn an_enum_and_its_count() {
    let made = module(
        "/* Why. */
enum ic_reason {
	IC_REASON_DEFAULT = 0, /* no rule matched */
	IC_REASON_IP4_SHORT = 1, /* cut off */
	IC_REASON_MAX, /* how many */
};
",
    )
    .unwrap();
    for expected in [
        "numbered! {\n    /// Why.\n    ///\n    /// `enum ic_reason` in C.\n    #[non_exhaustive]\n",
        "        /// Cut off.\n        Ip4Short = 1, \"ip4-short\";\n",
        "/// How many.\npub const REASON_MAX: usize = 2;\n",
    ] {
        assert!(made.contains(expected), "{expected}\nis missing in\n{made}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    let cases = [
        ("#define IC_X 1\n", "a.h:3: '#define IC_X 1' is neither an include guard"),
        ("int x;\n", "a.h:3: 'int' does not begin an item"),
        ("// x\n", "a.h:3: a comment in C++ style"),
        ("enum ic_limit {\n\tIC_RULES_MAX = 1,\n};\n", "has no comment"),
        ("enum ic_limit {\n\tIC_RULES_MAX, /* x */\n};\n", "IC_RULES_MAX has no value"),
        ("enum ic_limit {\n\tIC_X = 1 + 2, /* x */\n};\n", "a.h:4: '+' has no meaning here"),
        ("enum ic_limit {\n\tIC_X = OTHER, /* x */\n};\n", "'OTHER' is neither a number"),
        ("enum ic_new {\n\tIC_X = 1, /* x */\n};\n", "a.h:3: enum ic_new has no line"),
        ("enum ic_abi {\n\tIC_X = 1, /* x */\n};\n", "IC_X does not begin with IC_ABI_"),
        ("/* S. */\nstruct ic_s {\n\t__u8 x : 1; /* x */\n};\n", "a.h:5: ':' has no meaning here"),
        ("/* S. */\nstruct ic_s {\n\t__u8 *x; /* x */\n};\n", "a.h:5: expected the name"),
        ("/* S. */\nstruct ic_s {\n\t__u8 x; /* x */\n};\n", "expected the assertion of its size"),
    ];
    for (items, expected) in cases {
        let found = refusal(items);
        assert!(found.contains(expected), "{items}\n{found}");
    }
    let unknown = "/* S. */\nstruct ic_s {\n\tlong x; /* x */\n};\n\
                   _Static_assert(sizeof(struct ic_s) == 8, \"ABI\");\n";
    assert!(refusal(unknown).contains("a.h:5: the type 'long' has no form in Rust"));
}
