use std::fmt;

numbers! {
    /// A resource of setrlimit(2).
    ResourceLimit "RLIMIT_";
    CPU = 0, "CPU";
    FSIZE = 1, "FSIZE";
    DATA = 2, "DATA";
    STACK = 3, "STACK";
    CORE = 4, "CORE";
    RSS = 5, "RSS";
    NPROC = 6, "NPROC";
    NOFILE = 7, "NOFILE";
    MEMLOCK = 8, "MEMLOCK";
    AS = 9, "AS";
    LOCKS = 10, "LOCKS";
    SIGPENDING = 11, "SIGPENDING";
    MSGQUEUE = 12, "MSGQUEUE";
    NICE = 13, "NICE";
    RTPRIO = 14, "RTPRIO";
    RTTIME = 15, "RTTIME";
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "RLIMIT_{name}"),
            None => write!(f, "resource #{}", self.0),
        }
    }
}
