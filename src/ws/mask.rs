//! The mask that a client puts over its payloads (RFC 6455, section 5.3).

/// The four bytes of a frame's mask, turned so that the first applies to the next byte of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mask([u8; 4]);

impl Mask {
    pub const fn new(key: [u8; 4]) -> Mask {
        Mask(key)
    }

    /// Takes the mask off (or puts it on: it is its own inverse), and turns it for the bytes that follow.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.0;
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        // Plain words: the compiler makes vectors of them.
        for chunk in words {
            *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0.iter().cycle()) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_payload_may_be_unmasked_in_any_pieces(
            payload in prop::collection::vec(any::<u8>(), 0..80),
            key in any::<[u8; 4]>(),
            cuts in prop::collection::vec(0usize..80, 0..5),
        ) {
            let want: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut got = payload;
            let mut mask = Mask::new(key);
            let mut rest = got.as_mut_slice();
            for cut in cuts {
                let (piece, behind) = rest.split_at_mut(cut.min(rest.len()));
                mask.apply(piece);
                rest = behind;
            }
            mask.apply(rest);
            prop_assert_eq!(got, want);
        }
    }
}
