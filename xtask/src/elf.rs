//! Sections of a little-endian ELF64 file, by name.

/// The bytes of a section; `None` also where the file is not such an ELF.
pub(crate) fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize);
    let word = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize);
    let long =
        |at: usize| usize::try_from(u64::from_le_bytes(*file.get(at..)?.first_chunk()?)).ok();
    let (table, entry, count, names) = (long(40)?, half(58)?, half(60)?, half(62)?);
    let header = |index: usize| table.checked_add(index.checked_mul(entry)?);
    let body = |header: usize| {
        let (start, len) = (long(header + 24)?, long(header + 32)?);
        file.get(start..start.checked_add(len)?)
    };
    let strings = body(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let text = strings.get(word(header)?..)?;
        let text = text.strip_prefix(name.as_bytes())?;
        (text.first() == Some(&0)).then(|| body(header))?
    })
}
