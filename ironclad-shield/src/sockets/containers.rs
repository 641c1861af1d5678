//! Resolves the cgroups that rules name, by path or as containers.
use std::collections::BTreeMap;

use ironclad_policy::socket::{Bound, CompiledSockets};

use super::cgroup_paths::{CgroupPath, CgroupTree};
use crate::error::{Failure, ShieldError};

/// Enters those that exist into `bound`.
///
/// A container keeps the cgroup that `known` has for it where another cgroup of its name was created
/// since: a process that may create cgroups cannot take a name away.
pub(crate) fn bind(
    compiled: &CompiledSockets,
    known: Option<&Bound>,
    bound: &mut Bound,
) -> Result<(), ShieldError> {
    if compiled.cgroups().next().is_none() && compiled.containers().next().is_none() {
        return Ok(());
    }
    let tree = CgroupTree::open()?;
    let mut paths: Vec<String> = compiled.cgroups().cloned().collect();
    if compiled.containers().next().is_some() {
        let all = all_containers(&tree);
        for id in compiled.containers() {
            let found = match container(id, &all) {
                Ok(found) => found,
                Err(found) => {
                    let rule = compiled.naming_container(id).map(ToString::to_string);
                    let rule = rule.unwrap_or_default();
                    let error =
                        ShieldError::from(Failure::Container { rule, id: id.clone(), found });
                    let Some(known) = known else { return Err(error) };
                    tracing::error!(%error, "another cgroup has a container's name");
                    known.containers.get(id).map(String::as_str)
                }
            };
            if let Some(path) = found {
                bound.containers.insert(id.clone(), path.to_owned());
                paths.push(path.to_owned());
            }
        }
    }
    for path in paths {
        if let Some(id) = tree.id(&path) {
            let level = path.split('/').filter(|part| !part.is_empty()).count();
            bound.cgroups.insert(path, (id, level as u32));
        }
    }
    Ok(())
}

/// Paths of the cgroups of all containers, by their ids.
type Containers = BTreeMap<String, Vec<String>>;

fn all_containers(tree: &CgroupTree) -> Containers {
    let mut found = Containers::new();
    tree.find(|CgroupPath { path, .. }| {
        if let Some(id) = container_of(path) {
            found.entry(id.to_owned()).or_default().push(path.clone());
        }
        false
    });
    found
}

/// The id of the container that a runtime created the cgroup for.
fn container_of(path: &str) -> Option<&str> {
    const SCOPES: [&str; 4] = ["docker-", "cri-containerd-", "crio-", "libpod-"];
    let (around, name) = path.rsplit_once('/')?;
    let id = match name.strip_suffix(".scope") {
        Some(scope) => SCOPES.iter().find_map(|prefix| scope.strip_prefix(prefix))?,
        // Created without systemd.
        None => {
            let is_of_pods = around.split('/').any(|part| part.starts_with("kubepods"));
            (is_of_pods || around.ends_with("/docker")).then_some(name)?
        }
    };
    let is_digit = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    (id.len() == 64 && id.bytes().all(is_digit)).then_some(id)
}

/// The path of the cgroup of a container, by a prefix of its id; all of them where several match.
fn container<'a>(id: &str, all: &'a Containers) -> Result<Option<&'a str>, Vec<String>> {
    let found: Vec<&String> = all
        .range(id.to_owned()..)
        .take_while(|(known, _)| known.starts_with(id))
        .flat_map(|(_, paths)| paths)
        .collect();
    // A cgroup that a container creates within its own belongs to it, under any name.
    let is_within = |path: &str, outer: &str| {
        path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    match found
        .iter()
        .find(|outer| found.iter().all(|path| path == *outer || is_within(path, outer)))
    {
        Some(path) => Ok(Some(path)),
        None if found.is_empty() => Ok(None),
        None => Err(found.into_iter().cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";

    #[test]
    fn runtimes_name_cgroups_after_containers() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12ab.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod12ab.slice/crio-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/docker/{ID}/docker/{ID}"),
            format!("/kubepods/burstable/pod12ab/{ID}"),
        ] {
            assert_eq!(container_of(&path), Some(ID), "{path}");
        }
        for path in [
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/machine.slice/crio-conmon-{ID}.scope"),
            format!("/system.slice/docker-{ID}.service"),
            format!("/system.slice/docker-{}.scope", &ID[1..]),
            format!("/system.slice/docker-{}.scope", ID.to_uppercase()),
            format!("/system.slice/{ID}"),
            format!("/not-docker/{ID}"),
            format!("/docker/{ID}/init"),
            "/docker".to_owned(),
            String::new(),
        ] {
            assert_eq!(container_of(&path), None, "{path}");
        }
    }

    fn containers(all: &[(&str, &[&str])]) -> Containers {
        let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
        all.iter().map(|(id, all)| ((*id).to_owned(), paths(all))).collect()
    }

    #[test]
    fn a_prefix_has_to_be_of_one_container() {
        let all =
            containers(&[("aaa1", &["/a"]), ("aaa2", &["/b"]), ("aab1", &["/c", "/c/in/it"])]);
        assert_eq!(container("aaa1", &all).unwrap(), Some("/a"));
        assert_eq!(container("aab", &all).unwrap(), Some("/c"), "one is within the other");
        assert_eq!(container("abc", &all).unwrap(), None);
        assert_eq!(container("aaa11", &all).unwrap(), None);
        assert_eq!(container("aaa", &all).unwrap_err(), ["/a", "/b"]);
        // A process that creates cgroups may name them after a container of another user.
        let twice = containers(&[("aaa1", &["/a", "/user.slice/a"])]);
        assert!(container("aaa1", &twice).is_err());
    }
}
