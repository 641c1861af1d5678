//! The parts of an object file that end up in the kernel's hands, read without libbpf: whatever the
//! bytes are, nothing but safe Rust sees them.
//!
//! Reads what libbpf reads and as libbpf does: programs are the function symbols of executable
//! sections, `.text` holds the functions they share. Where a file has two readings, it is
//! refused.
use std::collections::BTreeMap;

use object::LittleEndian as LE;
use object::elf::{
    EM_BPF, EM_NONE, ET_REL, FileHeader64, SHF_EXECINSTR, SHN_LORESERVE, SHN_UNDEF, SHT_PROGBITS,
    SHT_REL, SHT_SYMTAB, STT_FUNC,
};
use object::read::elf::{FileHeader, Rel, SectionHeader, SectionTable, Sym, SymbolTable};

use super::insn::{INSN_SIZE, Insn};
use super::lines::LineTable;

type Header = FileHeader64<LE>;

/// More functions than any real object has; keeps what a hostile file costs within bounds.
const FUNCTIONS_MAX: usize = 4096;
/// Functions overlap where one has two names, not otherwise.
const OVERLAP_MAX: usize = 4;

/// What a relocation makes an instruction refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Something that the kernel or its configuration has to provide.
    Extern(String),
    /// Code in `.text`, at a byte offset to which the instruction's own number is added.
    Text(u64),
    /// A map or a variable of the object.
    Data,
    /// Two relocations of one instruction.
    Ambiguous,
}

/// A function symbol's instructions.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    /// Index of its first instruction in the section.
    pub(super) start: usize,
    pub(super) insns: Vec<Insn>,
    /// By index in `insns`.
    pub(super) targets: BTreeMap<usize, Target>,
}

/// An executable section that is not `.text`.
#[derive(Debug)]
pub(super) struct ProgramSection {
    /// The name without the leading `?`.
    pub(super) name: String,
    /// Whether libbpf loads its programs by default: no `?` in front.
    pub(super) is_loaded: bool,
    pub(super) programs: Vec<Function>,
    pub(super) lines: LineTable,
}

/// An object file's code.
#[derive(Debug, Default)]
pub(super) struct ObjectFile {
    pub(super) license: Option<String>,
    pub(super) sections: Vec<ProgramSection>,
    /// The functions of `.text`.
    pub(super) text: Vec<Function>,
    pub(super) text_lines: LineTable,
    /// Whether the type information names exception callbacks: functions that are made part of a
    /// program without being called.
    pub(super) has_exception_callbacks: bool,
}

/// Reads a file.
///
/// The error says what about the file is not as it should be.
pub(super) fn read(data: &[u8]) -> Result<ObjectFile, String> {
    let header = Header::parse(data).map_err(|_| {
        "is no 64-bit ELF file: give the audit what clang -target bpf writes".to_owned()
    })?;
    if header.is_big_endian() {
        return Err("is big-endian: compile it with -target bpfel".into());
    }
    if header.e_type(LE) != ET_REL || !matches!(header.e_machine(LE), EM_BPF | EM_NONE) {
        return Err("is an ELF file, but no eBPF object: compile it with clang -target bpf".into());
    }
    let broken = |e: object::read::Error| format!("is broken ({e}): compile it anew");
    let sections = header.sections(LE, data).map_err(broken)?;
    let count = |kind| sections.iter().filter(|section| section.sh_type(LE) == kind).count();
    if count(SHT_SYMTAB) > 1 {
        return Err("has more than one symbol table: compile it anew".into());
    }
    let symbols = sections.symbols(LE, data, SHT_SYMTAB).map_err(broken)?;
    Reader { data, sections, symbols }.object()
}

struct Reader<'a> {
    data: &'a [u8],
    sections: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
}

impl Reader<'_> {
    fn object(&self) -> Result<ObjectFile, String> {
        let btf = self.named(".BTF")?;
        let btf_ext = self.named(".BTF.ext")?;
        let text = self.only(".text")?;
        let mut object = ObjectFile {
            license: self
                .named("license")?
                .map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()),
            has_exception_callbacks: btf.is_some_and(|btf| contains(btf, b"exception_callback:")),
            ..ObjectFile::default()
        };
        let lines = |name: &str| LineTable::read(btf, btf_ext, name).unwrap_or_default();
        for (index, section) in self.sections.enumerate() {
            let is_code = section.sh_type(LE) == SHT_PROGBITS
                && section.sh_flags(LE).0 & SHF_EXECINSTR.0 != 0
                && section.sh_size(LE) > 0;
            if !is_code {
                continue;
            }
            if object.sections.len() == FUNCTIONS_MAX {
                return Err("has too many sections of code: compile it anew".into());
            }
            let name = self.name(index.0)?;
            let functions = self.functions(index.0, name, text)?;
            if text == Some(index.0) {
                object.text = functions;
                object.text_lines = lines(name);
            } else {
                object.sections.push(ProgramSection {
                    name: name.strip_prefix('?').unwrap_or(name).to_owned(),
                    is_loaded: !name.starts_with('?'),
                    programs: functions,
                    lines: lines(name),
                });
            }
        }
        Ok(object)
    }

    /// The functions of a section, in the order of their symbols.
    fn functions(
        &self,
        section: usize,
        name: &str,
        text: Option<usize>,
    ) -> Result<Vec<Function>, String> {
        let code = self.bytes(section)?;
        let targets = self.targets(section, name, text)?;
        let mut functions = Vec::new();
        let mut instructions = 0;
        for symbol in self.symbols.iter() {
            if usize::from(symbol.st_shndx(LE).0) != section || symbol.st_type() != STT_FUNC {
                continue;
            }
            let symbol_name = self.symbol_name(symbol)?;
            let (start, size) = (symbol.st_value(LE) as usize, symbol.st_size(LE) as usize);
            let is_aligned = start % INSN_SIZE == 0 && size % INSN_SIZE == 0 && size > 0;
            let body = start
                .checked_add(size)
                .and_then(|end| code.get(start..end))
                .filter(|_| is_aligned)
                .ok_or_else(|| {
                    format!(
                        "is broken (function `{symbol_name}` is not whole instructions of section \
                         `{name}`): compile it anew"
                    )
                })?;
            instructions += body.len() / INSN_SIZE;
            if functions.len() == FUNCTIONS_MAX
                || instructions > code.len() / INSN_SIZE * OVERLAP_MAX
            {
                return Err(format!(
                    "has too many or overlapping functions in section `{name}`: compile it anew"
                ));
            }
            functions.push(Function {
                name: symbol_name.to_owned(),
                start: start / INSN_SIZE,
                insns: Insn::all(body),
                targets: BTreeMap::new(),
            });
        }
        for function in &mut functions {
            let end = function.start + function.insns.len();
            function.targets = targets
                .range(function.start..end)
                .map(|(index, target)| (index - function.start, target.clone()))
                .collect();
        }
        Ok(functions)
    }

    /// What the relocations of a section refer to, by the instruction's index in the section.
    fn targets(
        &self,
        section: usize,
        name: &str,
        text: Option<usize>,
    ) -> Result<BTreeMap<usize, Target>, String> {
        let broken = || format!("is broken (relocations of section `{name}`): compile it anew");
        let mut targets = BTreeMap::new();
        for table in self.sections.iter() {
            if table.sh_type(LE) != SHT_REL || table.sh_info(LE) as usize != section {
                continue;
            }
            let Some((entries, _)) = table.rel(LE, self.data).map_err(|_| broken())? else {
                continue;
            };
            for entry in entries {
                let offset = entry.r_offset(LE) as usize;
                let symbol = object::SymbolIndex(entry.r_sym(LE) as usize);
                let symbol = self.symbols.symbol(symbol).map_err(|_| broken())?;
                if offset % INSN_SIZE != 0 {
                    return Err(broken());
                }
                let target = self.target(symbol, text)?;
                targets
                    .entry(offset / INSN_SIZE)
                    .and_modify(|it| *it = Target::Ambiguous)
                    .or_insert(target);
            }
        }
        Ok(targets)
    }

    fn target(
        &self,
        symbol: &<Header as FileHeader>::Sym,
        text: Option<usize>,
    ) -> Result<Target, String> {
        let section = symbol.st_shndx(LE);
        if section == SHN_UNDEF {
            return Ok(Target::Extern(self.symbol_name(symbol)?.to_owned()));
        }
        if section.0 < SHN_LORESERVE && text == Some(usize::from(section.0)) {
            return Ok(Target::Text(symbol.st_value(LE)));
        }
        Ok(Target::Data)
    }

    fn symbol_name(&self, symbol: &<Header as FileHeader>::Sym) -> Result<&str, String> {
        symbol
            .name(LE, self.symbols.strings())
            .ok()
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or_else(|| "is broken (a symbol's name): compile it anew".to_owned())
    }

    fn name(&self, section: usize) -> Result<&str, String> {
        let broken = || format!("is broken (name of section {section}): compile it anew");
        let header = self.sections.section(object::SectionIndex(section)).map_err(|_| broken())?;
        let name = self.sections.section_name(LE, header).map_err(|_| broken())?;
        std::str::from_utf8(name).map_err(|_| broken())
    }

    fn bytes(&self, section: usize) -> Result<&[u8], String> {
        self.sections
            .section(object::SectionIndex(section))
            .and_then(|header| header.data(LE, self.data))
            .map_err(|_| format!("is broken (section {section} is cut off): compile it anew"))
    }

    /// The section of this name that is not empty.
    fn only(&self, name: &str) -> Result<Option<usize>, String> {
        let mut found = None;
        for (index, section) in self.sections.enumerate() {
            if section.sh_size(LE) == 0
                || self.sections.section_name(LE, section) != Ok(name.as_bytes())
            {
                continue;
            }
            if found.replace(index.0).is_some() {
                return Err(format!("has more than one section `{name}`: compile it anew"));
            }
        }
        Ok(found)
    }

    fn named(&self, name: &str) -> Result<Option<&[u8]>, String> {
        self.only(name)?.map(|section| self.bytes(section)).transpose()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
