//! How the types of the headers look in Rust, where C does not say it.

/// How an enum of C becomes Rust.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Constants of this type, by their names without the prefix.
    Constants { kind: &'static str, prefix: &'static str },
    /// An enum of this name, its variants by the constants' names without the prefix.
    Enum(Variants),
}

/// What is generated of an enum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variants {
    pub(super) name: &'static str,
    pub(super) prefix: &'static str,
    /// Between the words of a variant's name in tables and logs.
    pub(super) separator: char,
    /// Other crates may match all variants.
    pub(super) is_exhaustive: bool,
}

const fn constants(kind: &'static str) -> Form {
    Form::Constants { kind, prefix: "IC_" }
}

const fn variants(name: &'static str, prefix: &'static str) -> Variants {
    Variants { name, prefix, separator: '-', is_exhaustive: false }
}

/// By the name of the enum in C. A new enum needs a line here, a new constant of an enum none.
pub(super) const ENUMS: &[(&str, Form)] = &[
    ("ic_abi", Form::Constants { kind: "u32", prefix: "IC_ABI_" }),
    ("ic_ev_kind", constants("u16")),
    ("ic_flat", constants("u32")),
    ("ic_flat_limit", constants("usize")),
    ("ic_limit", constants("usize")),
    ("ic_action", constants("u8")),
    ("ic_backend", constants("u8")),
    ("ic_reason", Form::Enum(variants("Reason", "IC_REASON_"))),
    ("ic_reason_cells", constants("usize")),
    ("ic_loss", Form::Enum(variants("Loss", "IC_LOSS_"))),
    ("ic_tuple_kind", constants("u8")),
    ("ic_selector", constants("u64")),
    ("ic_selector_shift", constants("u32")),
    ("ic_shield_ev_flag", constants("u8")),
    ("ic_verdict", constants("u8")),
    ("ic_process_flag", constants("u32")),
    (
        "ic_socket_op",
        Form::Enum(Variants { is_exhaustive: true, ..variants("SocketOp", "IC_SOCK_") }),
    ),
    ("ic_sock_dim", constants("usize")),
    ("ic_sock_limit", constants("usize")),
    ("ic_sock_entries", constants("u32")),
    ("ic_sock_proto", constants("u8")),
    ("ic_sock_owner", constants("u32")),
    ("ic_sock_action", constants("u8")),
    ("ic_sock_rule_flag", constants("u8")),
    ("ic_socket_reason", Form::Enum(variants("SocketReason", "IC_SOCK_REASON_"))),
    ("ic_sock_ev_flag", constants("u8")),
    ("ic_sentinel_limit", constants("usize")),
    ("ic_sentinel_entries", constants("u32")),
    ("ic_sentinel_word", constants("u32")),
    ("ic_sentinel_call", constants("i32")),
    (
        "ic_sentinel_hook",
        Form::Enum(Variants { separator: '_', ..variants("SentinelHook", "IC_HOOK_") }),
    ),
    ("ic_file_op", Form::Enum(variants("FileOp", "IC_FILE_"))),
    ("ic_refuse_what", constants("u32")),
    ("ic_volume_key", constants("u32")),
    ("ic_mark_flag", constants("u32")),
    ("ic_launch", constants("u32")),
    ("ic_own_rule", constants("u32")),
    ("ic_secret_flag", constants("u32")),
    ("ic_label_flag", constants("u32")),
    ("ic_may", constants("u32")),
    ("ic_object_kind", constants("u32")),
    ("ic_open_flag", constants("u32")),
    ("ic_held_kind", constants("u32")),
    ("ic_call", constants("u32")),
    ("ic_sentinel_verdict", Form::Enum(variants("SentinelVerdict", "IC_SENTINEL_"))),
];

/// What structs derive beside that which all do.
pub(super) const MORE_DERIVES: &[(&str, &[&str])] = &[
    ("ic_file_id", &["PartialOrd", "Ord", "Hash", "serde::Serialize"]),
    ("ic_sock_id_key", &["PartialOrd", "Ord"]),
    ("ic_name_key", &["PartialOrd", "Ord"]),
    ("ic_preopened_descriptor", &["serde::Serialize"]),
];

/// Structs whose `Debug` is written by hand, since their contents are secret.
pub(super) const SECRET: &[&str] = &["ic_secret_key"];
