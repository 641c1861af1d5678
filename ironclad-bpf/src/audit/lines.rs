//! Where instructions come from: the line information of `.BTF.ext`.
use super::insn::INSN_SIZE;
use super::offence::SourceLine;

/// `struct btf_header`, `struct btf_ext_header`: the same magic number, then the header's length.
const MAGIC: u16 = 0xeb9f;
const RECORD_MIN: usize = 16;

/// The lines of one section.
#[derive(Debug, Default)]
pub(super) struct LineTable {
    /// First instruction in the section and its line, in order.
    lines: Vec<(usize, SourceLine)>,
}

impl LineTable {
    /// Reads the lines of a section. `None` where there are none, or they are broken: they serve only
    /// to make an error more useful.
    pub(super) fn read(btf: Option<&[u8]>, ext: Option<&[u8]>, section: &str) -> Option<Self> {
        let (btf, ext) = (btf?, ext?);
        let strings = strings(btf)?;
        if u16_at(ext, 0)? != MAGIC {
            return None;
        }
        let header = u32_at(ext, 4)?;
        let (offset, length) = (u32_at(ext, 16)?, u32_at(ext, 20)?);
        let start = header.checked_add(offset)?;
        let mut info = ext.get(start..start.checked_add(length)?)?;
        let record = u32_at(info, 0)?;
        if record < RECORD_MIN {
            return None;
        }
        info = &info[4..];
        let mut lines = Vec::new();
        while !info.is_empty() {
            let (name, count) = (u32_at(info, 0)?, u32_at(info, 4)?);
            let body = info.get(8..)?;
            let size = record.checked_mul(count)?;
            let records = body.get(..size)?;
            if text(strings, name)? == section {
                lines.extend(records.chunks_exact(record).filter_map(|record| {
                    let file = text(strings, u32_at(record, 4)?)?.to_owned();
                    // The column is in the low ten bits.
                    let line = (u32_at(record, 12)? >> 10) as u32;
                    Some((u32_at(record, 0)? / INSN_SIZE, SourceLine { file, line }))
                }));
            }
            info = &body[size..];
        }
        lines.sort();
        Some(Self { lines })
    }

    /// The line of an instruction, by its index in the section.
    pub(super) fn at(&self, instruction: usize) -> Option<SourceLine> {
        let after = self.lines.partition_point(|(first, _)| *first <= instruction);
        Some(self.lines.get(after.checked_sub(1)?)?.1.clone())
    }
}

fn strings(btf: &[u8]) -> Option<&[u8]> {
    if u16_at(btf, 0)? != MAGIC {
        return None;
    }
    let header = u32_at(btf, 4)?;
    let (offset, length) = (u32_at(btf, 16)?, u32_at(btf, 20)?);
    let start = header.checked_add(offset)?;
    btf.get(start..start.checked_add(length)?)
}

fn text(strings: &[u8], offset: usize) -> Option<&str> {
    let rest = strings.get(offset..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let word = bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(word) as usize)
}
