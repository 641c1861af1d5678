/// How the text of a list is laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListFormat {
    /// One entry a line, each line recognised for itself: addresses, prefixes, ranges, `ipset save`
    /// files, FireHOL ipsets and netsets, Spamhaus DROP as text or as JSON lines.
    #[default]
    Lines,
    /// Values with commas between them, quoted or not, as abuse.ch publishes them: one column has
    /// an address or a prefix, the other fields are not read. Comments begin with `#` or `;`.
    ///
    /// A port, in a column named so or behind the address (`192.0.2.1:443`), is not kept; the
    /// report counts such rows.
    Csv {
        /// The column's name, in any case, as the header has it. The header is a row before the
        /// first with an address, or a comment there. None: the first column that has an address
        /// in the first row that has one, and in every row after it.
        column: Option<String>,
    },
    /// A STIX 2.1 bundle, a TAXII envelope or one indicator, as JSON.
    ///
    /// Of indicators in force at [`ListOptions::at`](super::ListOptions::at), patterns that compare
    /// `ipv4-addr:value` or `ipv6-addr:value` by `=`, `ISSUBSET` or `IN`, alone or joined by `OR`,
    /// are entries. Other objects are counted, as are objects that are no indicators: in the report
    /// of such a list an object counts where otherwise a line does.
    Stix,
}

impl ListFormat {
    /// CSV whose addresses are in the column called `name`.
    pub fn csv_column(name: impl Into<String>) -> Self {
        Self::Csv { column: Some(name.into()) }
    }

    /// CSV whose addresses are in the first column that has one.
    pub fn csv() -> Self {
        Self::Csv { column: None }
    }
}
