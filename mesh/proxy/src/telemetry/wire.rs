//! Protobuf's wire format, as far as the handful of messages here need it.

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, text or a message.
pub(crate) fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    varint(&mut out, number << 3 | 2);
    varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// A field of an integer, an enumeration or a truth value.
pub(crate) fn varint_field(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3);
    varint(&mut out, value);
    out
}

/// A field of eight bytes.
pub(crate) fn fixed64_field(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, number << 3 | 1);
    out.extend(value.to_le_bytes());
    out
}

/// A field that was read.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    /// Of an integer.
    pub(crate) value: u64,
    /// Of anything with a length.
    pub(crate) bytes: Option<&'a [u8]>,
}

/// Reads fields one after the other.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// Whether the bytes were malformed.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, length: usize) -> Option<&'a [u8]> {
        let (skipped, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(skipped)
    }

    /// The next field, `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() || self.failed {
            return None;
        }
        let field = self.field();
        self.failed = field.is_none();
        field
    }

    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let number = tag >> 3;
        match tag & 7 {
            0 => Some(Field { number, value: self.varint()?, bytes: None }),
            1 => self.skip(8).map(|_| Field { number, value: 0, bytes: None }),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.skip(length).map(|bytes| Field { number, value: 0, bytes: Some(bytes) })
            }
            5 => self.skip(4).map(|_| Field { number, value: 0, bytes: None }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let bytes = [bytes_field(3, b"text"), varint_field(4, 300), fixed64_field(5, 7)].concat();
        let mut reader = Reader::new(&bytes);
        let first = reader.next().unwrap();
        assert_eq!((first.number, first.bytes), (3, Some(&b"text"[..])));
        let second = reader.next().unwrap();
        assert_eq!((second.number, second.value), (4, 300));
        assert_eq!(reader.next().unwrap().number, 5);
        assert!(reader.next().is_none() && !reader.failed());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let mut fields = 0;
            while reader.next().is_some() {
                fields += 1;
            }
            prop_assert!(fields <= bytes.len());
        }
    }
}
