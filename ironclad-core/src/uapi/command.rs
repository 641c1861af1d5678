use std::fmt;

numbers! {
    /// A command of bpf(2), `enum bpf_cmd`.
    BpfCommand "BPF_";
    MAP_CREATE = 0, "MAP_CREATE";
    MAP_LOOKUP_ELEM = 1, "MAP_LOOKUP_ELEM";
    MAP_UPDATE_ELEM = 2, "MAP_UPDATE_ELEM";
    MAP_DELETE_ELEM = 3, "MAP_DELETE_ELEM";
    MAP_GET_NEXT_KEY = 4, "MAP_GET_NEXT_KEY";
    PROG_LOAD = 5, "PROG_LOAD";
    OBJ_PIN = 6, "OBJ_PIN";
    OBJ_GET = 7, "OBJ_GET";
    PROG_ATTACH = 8, "PROG_ATTACH";
    PROG_DETACH = 9, "PROG_DETACH";
    PROG_TEST_RUN = 10, "PROG_TEST_RUN";
    PROG_GET_NEXT_ID = 11, "PROG_GET_NEXT_ID";
    MAP_GET_NEXT_ID = 12, "MAP_GET_NEXT_ID";
    PROG_GET_FD_BY_ID = 13, "PROG_GET_FD_BY_ID";
    MAP_GET_FD_BY_ID = 14, "MAP_GET_FD_BY_ID";
    OBJ_GET_INFO_BY_FD = 15, "OBJ_GET_INFO_BY_FD";
    PROG_QUERY = 16, "PROG_QUERY";
    RAW_TRACEPOINT_OPEN = 17, "RAW_TRACEPOINT_OPEN";
    BTF_LOAD = 18, "BTF_LOAD";
    BTF_GET_FD_BY_ID = 19, "BTF_GET_FD_BY_ID";
    TASK_FD_QUERY = 20, "TASK_FD_QUERY";
    MAP_LOOKUP_AND_DELETE_ELEM = 21, "MAP_LOOKUP_AND_DELETE_ELEM";
    MAP_FREEZE = 22, "MAP_FREEZE";
    BTF_GET_NEXT_ID = 23, "BTF_GET_NEXT_ID";
    MAP_LOOKUP_BATCH = 24, "MAP_LOOKUP_BATCH";
    MAP_LOOKUP_AND_DELETE_BATCH = 25, "MAP_LOOKUP_AND_DELETE_BATCH";
    MAP_UPDATE_BATCH = 26, "MAP_UPDATE_BATCH";
    MAP_DELETE_BATCH = 27, "MAP_DELETE_BATCH";
    LINK_CREATE = 28, "LINK_CREATE";
    LINK_UPDATE = 29, "LINK_UPDATE";
    LINK_GET_FD_BY_ID = 30, "LINK_GET_FD_BY_ID";
    LINK_GET_NEXT_ID = 31, "LINK_GET_NEXT_ID";
    ENABLE_STATS = 32, "ENABLE_STATS";
    ITER_CREATE = 33, "ITER_CREATE";
    LINK_DETACH = 34, "LINK_DETACH";
    PROG_BIND_MAP = 35, "PROG_BIND_MAP";
    TOKEN_CREATE = 36, "TOKEN_CREATE";
    PROG_STREAM_READ_BY_FD = 37, "PROG_STREAM_READ_BY_FD";
    PROG_ASSOC_STRUCT_OPS = 38, "PROG_ASSOC_STRUCT_OPS";
}

/// The kernel's name, or the number.
impl fmt::Display for BpfCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "BPF_{name}"),
            None => write!(f, "command #{}", self.0),
        }
    }
}
