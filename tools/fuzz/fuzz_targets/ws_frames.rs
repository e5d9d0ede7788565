//! The frame decoder: the first byte says where the rest is cut in two; both ways must tell the same messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skein::ws::decoder::{Decoder, Limits};

const LIMITS: Limits = Limits { message_bytes_max: 65_536 };

fn messages(pieces: &mut [&mut [u8]]) -> (Vec<String>, bool) {
    let mut decoder = Decoder::default();
    let mut told = Vec::new();
    for piece in pieces {
        let fed = decoder.feed(piece, LIMITS, |message| {
            told.push(format!("{message:?}"));
            true
        });
        assert!(decoder.carried_bytes() <= LIMITS.message_bytes_max + 256);
        if fed.is_err() {
            return (told, false);
        }
    }
    (told, true)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let mut whole = rest.to_vec();
    let mut parts = rest.to_vec();
    let (head, tail) = parts.split_at_mut(usize::from(cut).min(rest.len()));
    assert_eq!(messages(&mut [&mut whole]), messages(&mut [head, tail]));
});
