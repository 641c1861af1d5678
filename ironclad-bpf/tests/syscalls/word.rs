//! Words of a map that programs read, while they run.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Writes a word of an array map that can be mapped, at an offset in bytes.
///
/// # Errors
/// Where the kernel refuses.
///
/// # Panics
/// Where the offset is not that of a word in the map's first page.
pub fn write_word(map: BorrowedFd<'_>, offset: usize, value: u32) -> io::Result<()> {
    const PAGE: usize = 4096;
    assert!(offset % 4 == 0 && offset < PAGE, "{offset}");
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap(null_mut(), PAGE, prot, MapFlags::SHARED, map, 0)? };
    // SAFETY: the word is in the mapping and is aligned, and programs read it as one word.
    unsafe { AtomicU32::from_ptr(at.byte_add(offset).cast()) }.store(value, Ordering::SeqCst);
    // SAFETY: nothing refers to the mapping from here on.
    unsafe { munmap(at, PAGE) }?;
    Ok(())
}
