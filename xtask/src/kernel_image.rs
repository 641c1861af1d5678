//! What a bootable kernel image holds: an ELF file or raw image, compressed in one of many ways.

use std::io::Write as _;
use std::process::Stdio;

use crate::btf;
use crate::command::{command, tail};
use crate::elf;
use crate::failure::{Context, Failure, Result};

/// The kernel's raw BTF.
pub(crate) fn btf(image: &[u8]) -> Result<Vec<u8>> {
    let kernel = match payload(image) {
        Some(payload) => decompress(payload)?,
        None => image.to_vec(),
    };
    if let Some(section) = elf::section(&kernel, ".BTF") {
        return Ok(section.to_vec());
    }
    // A raw image has no section table: BTF is where a whole header of it fits.
    let starts = kernel.windows(4).enumerate().filter(|(_, word)| *word == b"\x9f\xeb\x01\x00");
    let mut found = starts.filter_map(|(at, _)| Some((at, btf::extent(&kernel[at..])?)));
    let (at, len) = found.next().context("no BTF in this kernel: was it built without?")?;
    Ok(kernel[at..at + len].to_vec())
}

/// The compressed part of an image, if that is what it is.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    // x86 boot protocol: setup sectors, then the protected-mode code with a payload in it.
    if image.get(0x202..0x206) == Some(b"HdrS") {
        let sectors = match image[0x1f1] {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * 512 + word(0x248)?;
        return image.get(start..start + word(0x24c)?);
    }
    // An EFI image that decompresses itself.
    if image.get(4..8) == Some(b"zimg") {
        let start = word(8)?;
        return image.get(start..start + word(12)?);
    }
    image.starts_with(b"\x1f\x8b").then_some(image)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    let program = match payload {
        [0x1f, 0x8b, ..] => "gzip",
        [0xfd, b'7', b'z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0x7f, b'E', b'L', b'F', ..] => return Ok(payload.to_vec()),
        _ => return Err("the kernel image is compressed in an unknown way".into()),
    };
    let mut child = command(program, ["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(program)?;
    let mut input = child.stdin.take().context("no standard input")?;
    let done = std::thread::scope(|scope| {
        // The build appends the size, which the tools take for garbage after they are done.
        scope.spawn(move || input.write_all(payload).ok());
        child.wait_with_output()
    })
    .context(program)?;
    if done.stdout.is_empty() {
        let said = tail(&String::from_utf8_lossy(&done.stderr), 3);
        return Err(Failure::new(format!("{program} could not unpack the kernel image: {said}")));
    }
    Ok(done.stdout)
}
