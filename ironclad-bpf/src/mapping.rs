use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The memory of a ring buffer, or of an array map with `BPF_F_MMAPABLE`, shared with the programs that use it.
///
/// Everybody may write at any time, so nothing lends out references to it: words are read and
/// written atomically, bulk data is copied in before any program can see the map.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is not tied to a thread, and all access is atomic or excluded by `&mut`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a map's values, rounded up to whole pages by the kernel.
    pub(crate) fn new(map: BorrowedFd<'_>, len: usize, write: bool) -> io::Result<Self> {
        Self::from_offset(map, 0, len, write)
    }

    /// Maps `len` bytes of a map's memory from `offset` on, a multiple of the page size.
    pub(crate) fn from_offset(
        map: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        write: bool,
    ) -> io::Result<Self> {
        let prot = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let at = unsafe {
            mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, map.as_fd(), offset)?
        };
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { at, len })
    }

    fn place(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(
            offset % size == 0 && offset.checked_add(size).is_some_and(|end| end <= self.len),
            "offset {offset} is outside of a mapping of {} bytes",
            self.len
        );
        // SAFETY: within the mapping, as just asserted.
        unsafe { self.at.as_ptr().add(offset) }
    }

    pub(crate) fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in bounds and aligned (asserted; mappings begin at a page); lives as long as
        // `self`; everybody accesses it atomically.
        unsafe { AtomicU64::from_ptr(self.place(offset, 8).cast()) }
    }

    pub(crate) fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u64_at`.
        unsafe { AtomicU32::from_ptr(self.place(offset, 4).cast()) }
    }

    /// Copies plain data out, word by word; concurrent writes may be torn between words.
    pub(crate) fn read(&self, offset: usize, out: &mut [u32]) {
        for (i, word) in out.iter_mut().enumerate() {
            *word = self.u32_at(offset + i * 4).load(Ordering::Acquire);
        }
    }

    /// The same for words of 64 bits.
    pub(crate) fn read_u64(&self, offset: usize, out: &mut [u64]) {
        for (i, word) in out.iter_mut().enumerate() {
            *word = self.u64_at(offset + i * 8).load(Ordering::Acquire);
        }
    }

    /// Copies plain data in, word by word.
    pub(crate) fn write(&self, offset: usize, words: &[u32]) {
        for (i, word) in words.iter().enumerate() {
            self.u32_at(offset + i * 4).store(*word, Ordering::Release);
        }
    }

    /// Fills the map before a program can see it.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len, "{} bytes into {}", bytes.len(), self.len);
        // SAFETY: in bounds; `&mut self` excludes other users in this process, and the kernel's
        // programs are not attached yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.as_ptr(), bytes.len()) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives `self`.
        let unmapped = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
