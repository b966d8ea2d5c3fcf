//! A log without its moments: as near to what the command wrote as one stream can be.

use super::line::CONTENT_MAX;

/// Strips moment and stream from each line, and joins long lines that were split.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// The beginning of a line, up to the blank behind its stream; `None` within its content.
    prefix: Option<Vec<u8>>,
    content: usize,
    /// A line ended where long ones are split: its newline is the command's only if the next one does not go on.
    owes_newline: bool,
}

impl Plain {
    pub(crate) fn new() -> Plain {
        Plain { prefix: Some(Vec::new()), ..Plain::default() }
    }

    /// What of these bytes of a log is the command's.
    pub(crate) fn strip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match &mut self.prefix {
                Some(prefix) => {
                    prefix.push(byte);
                    if byte == b' ' && prefix.iter().filter(|byte| **byte == b' ').count() == 2 {
                        let goes_on = prefix.ends_with(b"+ ");
                        if std::mem::take(&mut self.owes_newline) && !goes_on {
                            plain.push(b'\n');
                        }
                        self.prefix = None;
                        self.content = 0;
                    }
                }
                None if byte == b'\n' => {
                    self.owes_newline = self.content == CONTENT_MAX;
                    if !self.owes_newline {
                        plain.push(byte);
                    }
                    self.prefix = Some(Vec::new());
                }
                None => {
                    self.content += 1;
                    plain.push(byte);
                }
            }
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_command_wrote_is_left() {
        let long = "x".repeat(CONTENT_MAX);
        let log = format!("T out a b\nT err c\nT out {long}\nT out+ y\nT out {long}\nT out z\n");
        let plain = format!("a b\nc\n{long}y\n{long}\nz\n");
        for step in [1, 7, log.len()] {
            let mut strip = Plain::new();
            let stripped: Vec<u8> = log.as_bytes().chunks(step).flat_map(|chunk| strip.strip(chunk)).collect();
            assert_eq!(String::from_utf8(stripped).unwrap(), plain, "{step}");
        }
    }
}
