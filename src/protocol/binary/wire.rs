//! The Protobuf wire: tags, varints, length-delimited fields.
//!
//! Reading lends from the input and never recurses. Writing goes through `Sink`, which is a buffer or a mere counter, so
//! that one description of a message yields both its bytes and the length that must stand before them.

use crate::protocol::BadFrame;

pub(in crate::protocol) struct Reader<'a> {
    rest: &'a [u8],
}

/// A field as it is on the wire. Fixed-width ones are of no message of ours and come only from newer clients.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Reader<'a> {
    pub(in crate::protocol) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(in crate::protocol) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(in crate::protocol) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A varint, then as many bytes as it says.
    #[inline]
    pub(in crate::protocol) fn delimited(&mut self) -> Result<&'a [u8], BadFrame> {
        let bytes = usize::try_from(self.varint()?).map_err(|_| BadFrame::NotProtobuf)?;
        self.take(bytes)
    }

    /// Number and value of the next field, `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, BadFrame> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| BadFrame::NotProtobuf)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups: no proto3 message has them, and skipping them would need a stack.
            _ => return Err(BadFrame::NotProtobuf),
        };
        match tag >> 3 {
            0 => Err(BadFrame::NotProtobuf),
            number => Ok(Some((number, value))),
        }
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], BadFrame> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(BadFrame::NotProtobuf)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, BadFrame> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// Up to ten bytes of seven bits; what does not fit 64 bits is refused. Superfluous zero groups are accepted, as
    /// by every parser.
    fn long_varint(&mut self) -> Result<u64, BadFrame> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(BadFrame::NotProtobuf)
    }
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], BadFrame> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(BadFrame::NotProtobuf),
        }
    }

    #[inline]
    pub(super) fn text(self) -> Result<&'a str, BadFrame> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| BadFrame::NotUtf8)
    }

    /// Narrower types keep the low bits, as Protobuf says: a negative int32 comes as ten bytes.
    #[inline]
    pub(super) fn number(self) -> Result<u64, BadFrame> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(BadFrame::NotProtobuf),
        }
    }

    pub(super) fn truth(self) -> Result<bool, BadFrame> {
        Ok(self.number()? != 0)
    }
}

/// Where a message is written to. Empty, zero and false fields are left out, as in proto3.
pub(super) trait Sink {
    fn append(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: u64);

    #[inline]
    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    #[inline]
    fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.tag(field, 2);
            self.varint(value.len() as u64);
            self.append(value);
        }
    }

    #[inline]
    fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    #[inline]
    fn number(&mut self, field: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.tag(field, 0);
            self.varint(value);
        }
    }

    #[inline]
    fn truth(&mut self, field: u32, value: bool) {
        self.number(field, value);
    }

    /// A message inside this one; present however empty.
    #[inline]
    fn message(&mut self, field: u32, message: &impl Message)
    where
        Self: Sized,
    {
        self.tag(field, 2);
        self.varint(message.length());
        message.write(self);
    }
}

pub(super) trait Message {
    fn write(&self, sink: &mut impl Sink);

    #[inline]
    fn length(&self) -> u64 {
        let mut counter = Counter(0);
        self.write(&mut counter);
        counter.0
    }
}

/// A message without fields.
pub(super) struct Empty;

impl Message for Empty {
    fn write(&self, _: &mut impl Sink) {}
}

struct Counter(u64);

impl Sink for Counter {
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        // Seven bits a byte, and zero takes one byte too.
        self.0 += u64::from((value | 1).ilog2() / 7 + 1);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refused(bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        loop {
            match reader.field() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:02x?} was accepted"),
                Err(error) => return assert_eq!(error, BadFrame::NotProtobuf),
            }
        }
    }

    #[test]
    fn truncated_and_overlong_fields_are_refused() {
        refused(&[0x08]);
        refused(&[0x08, 0x80]);
        refused(&[0x0a, 0x02, b'a']);
        refused(&[0x09, 0, 0, 0, 0, 0, 0, 0]);
        refused(&[0x0d, 0, 0, 0]);
        refused(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]);
        refused(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]);
        refused(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        for tag in [0x0b, 0x0c, 0x0e, 0x0f, 0x00, 0x02] {
            refused(&[tag, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn the_longest_varint_is_read() {
        let mut reader = Reader::new(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(reader.field(), Ok(Some((1, Value::Varint(u64::MAX)))));
        assert_eq!(reader.field(), Ok(None));
    }

    proptest! {
        #[test]
        fn a_varint_is_counted_written_and_read_alike(shift in 0u32..64, value in any::<u64>()) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            bytes.varint(value);
            let mut counter = Counter(0);
            counter.varint(value);
            prop_assert_eq!(counter.0, bytes.len() as u64);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }
}
