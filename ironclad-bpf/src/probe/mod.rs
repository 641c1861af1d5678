//! The feature probe: what this kernel can do for this process, found out by trying.
//!
//! Versions and configurations lie: distributions port features back, and a machine may refuse what
//! its kernel has. So a program of each type and for each hook is loaded, a map of each type is made,
//! a call of each helper is given to the verifier; whatever loads is dropped at once. Nothing is
//! attached, mounted or switched, and nothing stays. On kernels before 5.11 libbpf raises this
//! process's `RLIMIT_MEMLOCK`, as it does for any load.
//!
//! ```no_run
//! let probe = ironclad_bpf::probe::probe();
//! println!("{probe}");
//! if let Some(lsm) = probe.hook("lsm").filter(|it| !it.is_available()) {
//!     eprintln!("no LSM programs here: {}", lsm.reason.as_deref().unwrap_or_default());
//! }
//! ```

mod btf;
mod feature;
mod helpers;
mod interface;
mod load;
mod maps;
mod netdev;
mod programs;
mod show;
mod system;

use serde::Serialize;

use crate::capabilities::Capabilities;
use crate::uapi::{Helper, MapType, ProgramType};
pub(crate) use btf::KernelBtf;
pub use feature::{Feature, State};
pub(crate) use helpers::may_call;
pub use interface::{InterfaceProbe, probe_interface};
pub(crate) use load::{RETURN_0, load_program};
pub(crate) use system::is_confidential;

/// What a kernel can do. Displays as a table; serializes as an object of lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Probe {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The architecture, as `uname -m` prints it.
    pub machine: String,
    /// Switches, mounts and the process's rights.
    pub system: Vec<Feature>,
    /// Where programs can be attached, as far as loading them shows. `lsm` is available where LSM
    /// programs load and would run, too; `lsm_load` where they load.
    pub hooks: Vec<Feature>,
    /// Program types.
    pub program_types: Vec<Feature>,
    /// Map types.
    pub map_types: Vec<Feature>,
    /// Helpers that Ironclad may use, as `program type/helper`.
    pub helpers: Vec<Feature>,
}

impl Probe {
    /// A switch, mount or right, such as `btf`, `jit`, `bpffs`.
    pub fn system(&self, name: &str) -> Option<&Feature> {
        find(&self.system, name)
    }

    /// A place to attach to: `fentry`, `fexit`, `fmod_ret`, `tp_btf`, `iter`, `lsm`, `lsm_load`,
    /// `lsm_cgroup`, `freplace`, `struct_ops`, `tcx`, `kprobe`, `uprobe`.
    pub fn hook(&self, name: &str) -> Option<&Feature> {
        find(&self.hooks, name)
    }

    /// A program type.
    pub fn program_type(&self, program_type: ProgramType) -> Option<&Feature> {
        find(&self.program_types, program_type.name()?)
    }

    /// A map type.
    pub fn map_type(&self, map_type: MapType) -> Option<&Feature> {
        find(&self.map_types, map_type.name()?)
    }

    /// A helper for a program type, if it is among those that are probed; see [`probe_helper`].
    pub fn helper(&self, program_type: ProgramType, helper: Helper) -> Option<&Feature> {
        find(&self.helpers, &helpers::name(program_type, helper))
    }
}

fn find<'a>(features: &'a [Feature], name: &str) -> Option<&'a Feature> {
    features.iter().find(|feature| feature.name == name)
}

/// Probes the running kernel. Takes a fraction of a second; needs root to be of much use, and says so
/// feature by feature where the process has too few rights.
pub fn probe() -> Probe {
    let capabilities = Capabilities::effective();
    let btf = KernelBtf::load();
    let btf = btf.as_ref();
    let uname = rustix::system::uname();
    let system = system::features(btf, capabilities);
    let mut hooks = programs::hooks(btf, capabilities);
    hooks.extend(lsm(&hooks, &system));
    Probe {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        program_types: programs::types(&hooks, capabilities),
        map_types: maps::types(btf, capabilities),
        helpers: helpers::wanted(btf, capabilities),
        system,
        hooks,
    }
}

/// Whether programs of a type may call a helper on this kernel.
pub fn probe_helper(program_type: ProgramType, helper: Helper) -> Feature {
    helpers::one(program_type, helper, KernelBtf::load().as_ref(), Capabilities::effective())
}

/// Switches, mounts and this process's rights: [`Probe::system`].
pub fn probe_system() -> Vec<Feature> {
    system::features(KernelBtf::load().as_ref(), Capabilities::effective())
}

/// Whether LSM programs load and would run: the hook `lsm` of a whole [`probe`].
pub fn probe_lsm() -> Feature {
    let capabilities = Capabilities::effective();
    let loads = programs::lsm_load(KernelBtf::load().as_ref(), capabilities);
    let system = system::lsm_features();
    lsm(std::slice::from_ref(&loads), &system).unwrap_or(loads)
}

/// A type of programs that is refused to this process, of those that Sentinel is made of and that
/// libbpf tries a kernel by; none where it may load them all, or the kernel has none. `tracepoint` comes
/// first: it needs no trampolines, so a kernel or machine that forbids these lets it be loaded, and a
/// Sentinel that refuses programs does not.
///
/// libbpf takes a refusal for an old kernel, rewrites programs for that, and remembers it as long as the
/// process lives: check this first.
pub fn probe_refused() -> Option<Feature> {
    let capabilities = Capabilities::effective();
    let btf = KernelBtf::load();
    let tracepoint = || {
        let answer = programs::trial(ProgramType::TRACEPOINT).load();
        Feature::answer("tracepoint", answer, capabilities)
    };
    let is_refused = |it: &Feature| it.state == State::Refused;
    Some(tracepoint())
        .filter(is_refused)
        .or_else(|| Some(programs::lsm_load(btf.as_ref(), capabilities)).filter(is_refused))
        .or_else(|| Some(programs::tracing_load(btf.as_ref(), capabilities)).filter(is_refused))
}

/// The name of a function of the kernel, by its number in the kernel's BTF. None where it has none.
pub fn kernel_function(id: u32) -> Option<String> {
    KernelBtf::load()?.function_name(id)
}

/// LSM programs need more than to be loaded: their module has to be active, and what enters them on.
fn lsm(hooks: &[Feature], system: &[Feature]) -> Option<Feature> {
    let needed =
        [find(hooks, "lsm_load"), find(system, "lsm_list"), find(system, "ftrace_enabled")];
    let worst = needed.iter().flatten().find(|feature| !feature.is_available());
    let deciding = worst.or(needed[0].as_ref())?;
    Some(Feature { name: "lsm".into(), ..(*deciding).clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsm_is_what_its_parts_allow() {
        let load = Feature::available("lsm_load");
        let list = Feature::new("lsm_list", State::Unavailable, "not in lsm=");
        let ftrace = Feature::available("ftrace_enabled");
        let lsm = |load: &Feature, list: &Feature| {
            super::lsm(std::slice::from_ref(load), &[list.clone(), ftrace.clone()]).unwrap()
        };
        assert!(lsm(&load, &Feature::available("lsm_list")).is_available());
        assert_eq!(lsm(&load, &list).reason.unwrap(), "not in lsm=");
        let refused = Feature::new("lsm_load", State::Refused, "EPERM");
        assert_eq!(lsm(&refused, &list).state, State::Refused);
    }
}
