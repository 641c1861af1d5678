//! Kernels where Sentinel cannot protect anything. The test runs in a virtual machine of its own.

use ironclad_core::ErrorChain;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_policy::Policy;
use ironclad_sentinel::{Sentinel, SentinelErrorKind};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(a_kernel_without_bpf_lsm_is_refused_with_what_to_add).in_machine_without_lsm()]
}

fn a_kernel_without_bpf_lsm_is_refused_with_what_to_add() {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    assert!(modules.trim().split(',').all(|module| module != "bpf"), "{modules}");
    let start = |is_degraded| {
        let builder = Sentinel::builder("test").dangerous(|it| it.degraded(is_degraded));
        builder.start(&Policy::builder().compile().unwrap())
    };
    // Also where missing hooks are allowed.
    for is_degraded in [false, true] {
        let error = start(is_degraded).err().unwrap();
        assert_eq!(error.kind(), SentinelErrorKind::Bpf, "{error:?}");
        let text = ErrorChain::new(&error).to_string();
        println!("{text}");
        assert!(text.contains("lsm=") && text.contains("bpf"), "{text}");
    }
}
