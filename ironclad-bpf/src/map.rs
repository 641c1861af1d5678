use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::{AsRawLibbpf, OpenMapMut};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{BpfError, Failure};
use crate::pseudo_fs::{PROC, check_libbpf};
use crate::sys;

/// What the kernel says of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// The kernel's id.
    pub id: u32,
    /// The name, at most 15 characters.
    pub name: String,
    /// The `BPF_MAP_TYPE_…` number.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value; of one CPU's value in per-CPU maps.
    pub value_size: u32,
    /// Capacity in elements.
    pub max_entries: u32,
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let info = sys::info(fd, sys::zeroed::<libbpf_sys::bpf_map_info>())?;
    Ok(MapInfo {
        id: info.id,
        name: name_of(&info.name),
        kind: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
    })
}

/// Kernel memory of a map in bytes, as the kernel accounts it (`memlock` in `/proc/self/fdinfo`; exact
/// since Linux 6.4, an estimate of the kernel's before).
pub(crate) fn map_memory(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = PROC.read_to_string(format!("thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}

/// A name as the kernel keeps it: ended by a NUL within its 16 bytes.
pub(crate) fn name_of(name: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().map(|&c| c as u8).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A new descriptor of a map whose object has been loaded.
pub(crate) fn clone_fd(map: &OpenMapMut<'_>) -> Result<OwnedFd, BpfError> {
    // SAFETY: a map of an open object.
    let fd = unsafe { libbpf_sys::bpf_map__fd(map.as_libbpf_object().as_ptr()) };
    let failed = |source| BpfError::map(&map.name().to_string_lossy(), "opening", source);
    if fd < 0 {
        return Err(failed(io::Error::from_raw_os_error(-fd)));
    }
    // SAFETY: open for as long as the object, which `map` borrows.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map_err(failed)
}

/// A map with keys `K` and values `V`, both plain data.
///
/// Typed when it is opened: sizes that differ from `K`'s and `V`'s are a
/// `BpfErrorKind::ForeignMap`. Usable from any thread.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    info: MapInfo,
    cpus: usize,
    types: PhantomData<fn() -> (K, V)>,
}

/// Marker of keys and values that the kernel may read and write as bytes.
pub trait Plain: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Plain for T {}

impl<K: Plain, V: Plain> Map<K, V> {
    /// Takes a descriptor.
    ///
    /// # Errors
    /// `BpfErrorKind::ForeignMap` where name or sizes differ.
    pub(crate) fn new(fd: OwnedFd, name: &str) -> Result<Self, BpfError> {
        let info = map_info(fd.as_fd()).map_err(|e| BpfError::map(name, "reading its info", e))?;
        let foreign = |what| BpfError::from(Failure::ForeignMap { map: name.to_owned(), what });
        if info.name != name {
            return Err(foreign(format!("its name is `{}`", info.name)));
        }
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            return Err(foreign(format!(
                "its keys have {} bytes and its values {}, expected {} and {}",
                info.key_size,
                info.value_size,
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        let cpus = if is_per_cpu(info.kind) {
            // Too few would make the kernel write beyond the buffer of a look-up.
            check_libbpf().map_err(|e| BpfError::map(name, "counting CPUs", e))?;
            libbpf_rs::num_possible_cpus()
                .map_err(|e| BpfError::map(name, "counting CPUs", io::Error::other(e)))?
        } else {
            1
        };
        Ok(Self { fd, info, cpus, types: PhantomData })
    }

    /// What the kernel says of it.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    fn error(&self, step: &'static str) -> impl FnOnce(io::Error) -> BpfError {
        let map = self.info.name.clone();
        move |source| Failure::Map { map, step, source }.into()
    }

    /// The value of `key`; `None` where there is none. In a per-CPU map the first CPU's.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn lookup(&self, key: &K) -> Result<Option<V>, BpfError> {
        Ok(self.lookup_all(key)?.map(|values| values[0]))
    }

    /// The values of `key`, one for each possible CPU in a per-CPU map, else one.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn lookup_all(&self, key: &K) -> Result<Option<Vec<V>>, BpfError> {
        // The kernel writes each CPU's value at a multiple of eight bytes.
        let stride = if self.cpus > 1 || is_per_cpu(self.info.kind) {
            size_of::<V>().next_multiple_of(8)
        } else {
            size_of::<V>()
        };
        let mut buffer = vec![0u64; (stride * self.cpus).div_ceil(8)];
        // SAFETY: `K` is as large as a key (checked by `new`), the buffer as all values.
        let found = unsafe {
            sys::map_lookup(
                self.fd.as_fd(),
                std::ptr::from_ref(key).cast(),
                buffer.as_mut_ptr().cast(),
            )
        }
        .map_err(self.error("lookup"))?;
        if !found {
            return Ok(None);
        }
        let bytes = buffer.as_bytes();
        Ok(Some(
            (0..self.cpus)
                .map(|cpu| {
                    let mut value = V::new_zeroed();
                    let at = cpu * stride;
                    value_bytes(&mut value).copy_from_slice(&bytes[at..at + size_of::<V>()]);
                    value
                })
                .collect(),
        ))
    }

    /// Writes an element, whether or not there is one. Not for per-CPU maps.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the map is full or the kernel refuses.
    pub fn update(&self, key: &K, value: &V) -> Result<(), BpfError> {
        assert!(!is_per_cpu(self.info.kind), "per-CPU maps are read, not written");
        // SAFETY: `K` and `V` are as large as key and value (checked by `new`).
        unsafe {
            sys::map_update(
                self.fd.as_fd(),
                std::ptr::from_ref(key).cast(),
                std::ptr::from_ref(value).cast(),
                0,
            )
        }
        .map_err(self.error("update"))
    }

    /// Removes an element; false where there was none.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn delete(&self, key: &K) -> Result<bool, BpfError> {
        // SAFETY: `K` is as large as a key (checked by `new`).
        unsafe { sys::map_delete(self.fd.as_fd(), std::ptr::from_ref(key).cast()) }
            .map_err(self.error("delete"))
    }

    /// Sets all of a per-CPU element to zero.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn clear(&self, key: &K) -> Result<(), BpfError> {
        let zeroes = vec![0u64; size_of::<V>().div_ceil(8) * self.cpus];
        // SAFETY: `K` is as large as a key, the buffer as all CPUs' values.
        unsafe {
            sys::map_update(
                self.fd.as_fd(),
                std::ptr::from_ref(key).cast(),
                zeroes.as_ptr().cast(),
                0,
            )
        }
        .map_err(self.error("clear"))
    }

    /// All keys. Elements that are added or removed meanwhile may be missed or be found twice.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn keys(&self) -> Result<Vec<K>, BpfError> {
        let mut keys: Vec<K> = Vec::new();
        // Iteration starts over where its element was deleted: stop at the capacity.
        while keys.len() < self.info.max_entries as usize {
            let mut next = K::new_zeroed();
            let last = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: null or a key, and room for a key.
            let more = unsafe {
                sys::map_next_key(
                    self.fd.as_fd(),
                    last.cast(),
                    std::ptr::from_mut(&mut next).cast(),
                )
            }
            .map_err(self.error("iteration"))?;
            if !more {
                break;
            }
            keys.push(next);
        }
        Ok(keys)
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn value_bytes<V: FromBytes + IntoBytes>(value: &mut V) -> &mut [u8] {
    value.as_mut_bytes()
}

fn is_per_cpu(kind: u32) -> bool {
    matches!(
        kind,
        libbpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY
            | libbpf_sys::BPF_MAP_TYPE_PERCPU_HASH
            | libbpf_sys::BPF_MAP_TYPE_LRU_PERCPU_HASH
    )
}
