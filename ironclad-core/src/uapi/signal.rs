use std::fmt;

numbers! {
    /// A signal of signal(7), by its number on x86 and arm64.
    Signal "SIG";
    HUP = 1, "HUP";
    INT = 2, "INT";
    QUIT = 3, "QUIT";
    ILL = 4, "ILL";
    TRAP = 5, "TRAP";
    ABRT = 6, "ABRT";
    BUS = 7, "BUS";
    FPE = 8, "FPE";
    KILL = 9, "KILL";
    USR1 = 10, "USR1";
    SEGV = 11, "SEGV";
    USR2 = 12, "USR2";
    PIPE = 13, "PIPE";
    ALRM = 14, "ALRM";
    TERM = 15, "TERM";
    STKFLT = 16, "STKFLT";
    CHLD = 17, "CHLD";
    CONT = 18, "CONT";
    STOP = 19, "STOP";
    TSTP = 20, "TSTP";
    TTIN = 21, "TTIN";
    TTOU = 22, "TTOU";
    URG = 23, "URG";
    XCPU = 24, "XCPU";
    XFSZ = 25, "XFSZ";
    VTALRM = 26, "VTALRM";
    PROF = 27, "PROF";
    WINCH = 28, "WINCH";
    IO = 29, "IO";
    PWR = 30, "PWR";
    SYS = 31, "SYS";
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal #{}", self.0),
        }
    }
}
