//! How a line of a log looks: `2026-11-21T09:30:00.123Z out what the command wrote`.
//!
//! The bytes of the command are kept as they are. A line that is longer than [`CONTENT_MAX`], or that is interrupted by the
//! other stream, goes on in a line of its own, whose stream is `out+` or `err+`.

/// How much of the command's line stands in one line of the log.
pub(crate) const CONTENT_MAX: usize = 16 * 1024;

/// The longest line of a log: moment, stream, content, newline.
pub(super) const LINE_MAX: usize = CONTENT_MAX + 31;

/// Where the command wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Cuts what is read from two streams into lines of one log. A line that is not ended yet is passed on as it comes.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// The stream of the line that is not ended, and how much content it has.
    open: Option<(Stream, usize)>,
    /// Whether the next line of a stream goes on with its last one.
    is_cut: [bool; 2],
}

impl Framer {
    /// Passes on `bytes`, framed: `sink` hears pieces in order, and of each whether it begins a line.
    pub(super) fn frame(&mut self, stream: Stream, mut bytes: &[u8], at: &str, sink: &mut impl FnMut(&[u8], bool)) {
        if let Some((other, _)) = self.open
            && other != stream
            && !bytes.is_empty()
        {
            self.cut(other, sink);
        }
        while !bytes.is_empty() {
            let begun = self.open.map_or(0, |(_, begun)| begun);
            if self.open.is_none() {
                let goes_on = if std::mem::take(&mut self.is_cut[stream as usize]) { "+" } else { "" };
                sink(format!("{at} {}{goes_on} ", stream.name()).as_bytes(), true);
            }
            let room = CONTENT_MAX - begun;
            match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    sink(&bytes[..=end], false);
                    self.open = None;
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    sink(&bytes[..room], false);
                    self.cut(stream, sink);
                    bytes = &bytes[room..];
                }
                None => {
                    sink(bytes, false);
                    self.open = Some((stream, begun + bytes.len()));
                    return;
                }
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self, sink: &mut impl FnMut(&[u8], bool)) {
        if let Some((stream, _)) = self.open {
            self.cut(stream, sink);
        }
    }

    fn cut(&mut self, stream: Stream, sink: &mut impl FnMut(&[u8], bool)) {
        sink(b"\n", false);
        self.is_cut[stream as usize] = true;
        self.open = None;
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: &str = "2026-11-21T09:30:00.123Z";

    fn framed(pieces: &[(Stream, &[u8])]) -> Vec<u8> {
        let (mut framer, mut text) = (Framer::default(), Vec::new());
        for (stream, bytes) in pieces {
            framer.frame(*stream, bytes, AT, &mut |piece, _| text.extend_from_slice(piece));
        }
        framer.end(&mut |piece, _| text.extend_from_slice(piece));
        text
    }

    fn lines(pieces: &[(Stream, &[u8])]) -> Vec<String> {
        let text = String::from_utf8(framed(pieces)).unwrap();
        text.lines().map(|line| line.strip_prefix(&format!("{AT} ")).unwrap().to_owned()).collect()
    }

    #[test]
    fn what_is_written_in_pieces_is_one_line_and_one_that_is_interrupted_says_so() {
        use Stream::{Err, Out};
        assert_eq!(lines(&[(Out, b"a"), (Out, b"b\nc\n\n")]), ["out ab", "out c", "out "]);
        assert_eq!(lines(&[(Out, b"Enter: "), (Err, b"oops\n"), (Out, b"x\n")]), ["out Enter: ", "err oops", "out+ x"]);
        assert_eq!(lines(&[(Err, b"no end")]), ["err no end"]);
    }

    #[test]
    fn a_long_line_is_split_at_the_bound_and_not_before() {
        let exact = [vec![b'x'; CONTENT_MAX], vec![b'\n']].concat();
        assert_eq!(lines(&[(Stream::Out, &exact)]).len(), 1);
        let longer = [vec![b'x'; CONTENT_MAX + 1], vec![b'\n']].concat();
        let split = lines(&[(Stream::Out, &longer)]);
        assert_eq!((split.len(), split[0].len(), split[1].as_str()), (2, CONTENT_MAX + 4, "out+ x"));
    }

    proptest! {
        #[test]
        fn no_byte_of_a_stream_is_lost_and_no_line_is_too_long(
            chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0..3_usize), 0..20)
        ) {
            let chunks: Vec<(Stream, Vec<u8>)> = chunks
                .into_iter()
                .map(|(out, bytes, longer)| (if out { Stream::Out } else { Stream::Err }, bytes.repeat(1 + longer * 400)))
                .collect();
            let pieces: Vec<(Stream, &[u8])> = chunks.iter().map(|(stream, bytes)| (*stream, &bytes[..])).collect();
            let text = framed(&pieces);
            for stream in [Stream::Out, Stream::Err] {
                let mut said: Vec<u8> = Vec::new();
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    prop_assert!(line.len() <= LINE_MAX && line.ends_with(b"\n"));
                    let rest = &line[AT.len() + 1..];
                    if !rest.starts_with(stream.name().as_bytes()) {
                        continue;
                    }
                    let goes_on = rest[3] == b'+';
                    if goes_on {
                        prop_assert_eq!(said.pop(), Some(b'\n'));
                    }
                    said.extend_from_slice(&rest[4 + usize::from(goes_on)..]);
                }
                let meant: Vec<u8> =
                    pieces.iter().filter(|(of, _)| *of == stream).flat_map(|(_, bytes)| bytes.iter().copied()).collect();
                if !meant.is_empty() && !meant.ends_with(b"\n") {
                    prop_assert_eq!(said.pop(), Some(b'\n'));
                }
                prop_assert_eq!(said, meant);
            }
        }
    }
}
