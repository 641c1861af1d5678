//! Kernels where Sentinel cannot guard anything. They run in a machine of their own.

mod host;

use host::Host;
use ironclad_policy::Policy;
use ironclad_sentinel::{Sentinel, SentinelError};

#[test]
fn a_kernel_without_bpf_lsm_is_refused_with_what_to_add() {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let is_there = modules.trim().split(',').any(|module| module == "bpf");
    if is_there || std::env::var_os("IRONCLAD_MACHINE").is_none() {
        println!(
            "SKIP a_kernel_without_bpf_lsm_is_refused_with_what_to_add: modules are {modules}"
        );
        return;
    }
    let host = Host::new();
    let start = |is_degraded| {
        let builder = Sentinel::builder("test").scratch(host.dir()).danger_degraded(is_degraded);
        builder.start(&Policy::builder().compile().unwrap())
    };
    // Not even where hooks may be missing.
    for is_degraded in [false, true] {
        let error = start(is_degraded).err().unwrap();
        assert!(matches!(error, SentinelError::Bpf(_)), "{error:?}");
        let told = error.to_string();
        println!("{told}");
        assert!(told.contains("lsm=") && told.contains("bpf"), "{told}");
    }
}
