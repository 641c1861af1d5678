/// A place in a text, which is only sought forwards, and the line that it is in.
pub(super) struct Place<'a> {
    text: &'a [u8],
    at: usize,
    pub(super) line: u32,
    /// Where the line begins.
    start: usize,
}

impl<'a> Place<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0, line: 1, start: 0 }
    }

    /// Goes to where `part` of the text begins.
    pub(super) fn seek(&mut self, part: &[u8]) {
        let to = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        while self.at < to.min(self.text.len()) {
            let ends = match self.text[self.at] {
                b'\n' => true,
                b'\r' => self.text.get(self.at + 1) != Some(&b'\n'),
                _ => false,
            };
            self.at += 1;
            if ends {
                self.line = self.line.saturating_add(1);
                self.start = self.at;
            }
        }
    }

    /// The line that the place is in, without its end.
    pub(super) fn text_of_line(&self) -> &'a [u8] {
        let line = &self.text[self.start..];
        let end = line.iter().position(|b| b"\r\n".contains(b)).unwrap_or(line.len());
        &line[..end]
    }

    /// Goes to the end and says how many lines there are. An end of line there begins none.
    pub(super) fn lines(mut self) -> u32 {
        self.seek(&self.text[self.text.len()..]);
        if self.start == self.text.len() { self.line - 1 } else { self.line }
    }
}
