//! The body of a request, by length or in chunks, gathered up to a bound.
//!
//! Chunks are read strictly (RFC 9112, section 7.1): what a proxy in front of us could cut elsewhere is refused.

use crate::limits::HTTP_HEAD_BYTES_MAX;
use crate::ws::upgrade::Body;

/// A chunk's size line, extensions included; they are passed over.
const CHUNK_LINE_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    TooLarge,
    /// Not a chunk where one should begin or end.
    Chunk,
}

#[derive(Debug)]
pub struct BodyReader {
    bytes: Vec<u8>,
    bytes_max: usize,
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// So many bytes by length; then the end.
    Plain(usize),
    ChunkLine,
    /// So many bytes of a chunk, then its line end.
    Chunk(usize),
    ChunkEnd,
    /// Header lines behind the last chunk, of which so many bytes were passed over; an empty one ends the body.
    Trailer(usize),
    Done,
}

impl BodyReader {
    /// Refuses a length above the bound before a byte of it is read.
    pub fn new(body: Body, bytes_max: usize) -> Result<Self, BodyError> {
        let next = match body {
            Body::None => Next::Done,
            Body::Chunked => Next::ChunkLine,
            Body::Length(length) => {
                let length = usize::try_from(length).map_err(|_| BodyError::TooLarge)?;
                if length > bytes_max {
                    return Err(BodyError::TooLarge);
                }
                Next::Plain(length)
            }
        };
        // Room is made as bytes come: a length alone is a promise that costs the sender nothing.
        Ok(BodyReader { bytes: Vec::new(), bytes_max, next })
    }

    /// Takes from the front of `input` what belongs to the body and returns how much that was. A partial line is left:
    /// to be offered again with more behind it.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.next {
                Next::Plain(left) => {
                    let taken = left.min(rest.len());
                    self.bytes.extend_from_slice(&rest[..taken]);
                    at += taken;
                    self.next = if taken == left { Next::Done } else { Next::Plain(left - taken) };
                    if taken < left {
                        return Ok(at);
                    }
                }
                Next::ChunkLine => {
                    let Some(line) = line(rest, CHUNK_LINE_BYTES_MAX)? else { return Ok(at) };
                    at += line.len() + 2;
                    let size = chunk_size(line)?;
                    if size > self.bytes_max - self.bytes.len() {
                        return Err(BodyError::TooLarge);
                    }
                    self.next = if size == 0 { Next::Trailer(0) } else { Next::Chunk(size) };
                }
                Next::Chunk(left) => {
                    let taken = left.min(rest.len());
                    self.bytes.extend_from_slice(&rest[..taken]);
                    at += taken;
                    if taken < left {
                        self.next = Next::Chunk(left - taken);
                        return Ok(at);
                    }
                    self.next = Next::ChunkEnd;
                }
                Next::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.next = Next::ChunkLine;
                    }
                    [] | [b'\r'] => return Ok(at),
                    _ => return Err(BodyError::Chunk),
                },
                Next::Trailer(passed) => {
                    let Some(line) = line(rest, HTTP_HEAD_BYTES_MAX - passed)? else { return Ok(at) };
                    at += line.len() + 2;
                    self.next = if line.is_empty() {
                        Next::Done
                    } else {
                        // Never zero: a line that fits has left room for its end.
                        Next::Trailer((passed + line.len() + 2).min(HTTP_HEAD_BYTES_MAX))
                    };
                }
                Next::Done => return Ok(at),
            }
        }
    }

    pub fn is_done(&self) -> bool {
        self.next == Next::Done
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The line that `input` begins with, without its end; none if more bytes are needed.
fn line(input: &[u8], bytes_max: usize) -> Result<Option<&[u8]>, BodyError> {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(at) if at > 0 && input[at - 1] == b'\r' && at < bytes_max => {
            let line = &input[..at - 1];
            // A lone carriage return ends a line for some.
            if line.contains(&b'\r') { Err(BodyError::Chunk) } else { Ok(Some(line)) }
        }
        None if input.len() < bytes_max => Ok(None),
        _ => Err(BodyError::Chunk),
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, BodyError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or(line).trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BodyError::Chunk);
    }
    let digits = str::from_utf8(digits).map_err(|_| BodyError::Chunk)?;
    usize::from_str_radix(digits, 16).map_err(|_| BodyError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in pieces of the given size as the exchange does; the body, and how much of `wire` was taken.
    fn check(body: Body, wire: &[u8], piece: usize) -> Result<(Option<Vec<u8>>, usize), BodyError> {
        let mut reader = BodyReader::new(body, 1000)?;
        let (mut pending, mut taken) = (Vec::new(), 0);
        for piece in wire.chunks(piece) {
            pending.extend_from_slice(piece);
            let n = reader.take(&pending)?;
            taken += n;
            pending.drain(..n);
        }
        Ok((reader.is_done().then(|| reader.into_bytes()), taken))
    }

    #[test]
    fn a_length_takes_exactly_so_much() {
        assert_eq!(check(Body::Length(3), b"abcdef", 6), Ok((Some(b"abc".to_vec()), 3)));
        assert_eq!(check(Body::Length(7), b"abcdef", 6), Ok((None, 6)));
        assert_eq!(check(Body::None, b"abc", 3), Ok((Some(vec![]), 0)));
    }

    #[test]
    fn a_body_above_the_bound_is_refused_at_its_announcement() {
        assert_eq!(BodyReader::new(Body::Length(1001), 1000).unwrap_err(), BodyError::TooLarge);
        assert_eq!(BodyReader::new(Body::Length(u64::MAX), 1000).unwrap_err(), BodyError::TooLarge);
        assert_eq!(check(Body::Chunked, b"3e9\r\n", 9), Err(BodyError::TooLarge));
        assert_eq!(check(Body::Chunked, b"1\r\na\r\n3e8\r\n", 99), Err(BodyError::TooLarge));
        assert_eq!(check(Body::Chunked, b"fffffffffffffffff\r\n", 99), Err(BodyError::TooLarge));
    }

    #[test]
    fn chunks_that_could_be_cut_elsewhere_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b"x\r\n",
            b"+3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n",
            b"3\rX\r\nabc\r\n",
            b"-1\r\n",
            b"3;a\rb\r\nabc\r\n",
            b"0\r\nX: a\n\r\n",
        ] {
            assert_eq!(check(Body::Chunked, wire, 1000), Err(BodyError::Chunk), "{}", wire.escape_ascii());
            assert_eq!(check(Body::Chunked, wire, 1), Err(BodyError::Chunk), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_passed_over_and_bounded() {
        let wire = b"3;name=value \r\nabc\r\n0\r\nX: y\r\nZ: \r\n\r\nnext";
        assert_eq!(check(Body::Chunked, wire, 100), Ok((Some(b"abc".to_vec()), wire.len() - 4)));
        let long = [b"1;".to_vec(), vec![b'x'; CHUNK_LINE_BYTES_MAX]].concat();
        assert_eq!(check(Body::Chunked, &long, 10), Err(BodyError::Chunk));
        let many = [b"0\r\n".to_vec(), b"X: y\r\n".repeat(HTTP_HEAD_BYTES_MAX / 6 + 1)].concat();
        assert_eq!(check(Body::Chunked, &many, 10), Err(BodyError::Chunk));
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_pieces_are_the_same_body(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..6),
                                                      piece in 1usize..40, behind in prop::collection::vec(any::<u8>(), 0..10)) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let length = wire.len();
            wire.extend_from_slice(&behind);
            prop_assert_eq!(check(Body::Chunked, &wire, piece), Ok((Some(parts.concat()), length)));
        }

        #[test]
        fn no_bytes_panic_or_exceed_the_bound(wire in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            if let Ok((Some(body), _)) = check(Body::Chunked, &wire, piece) {
                prop_assert!(body.len() <= 1000);
            }
        }
    }
}
