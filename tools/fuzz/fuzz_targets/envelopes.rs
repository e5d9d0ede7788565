//! Frames between nodes and HELLO: read or refused, and no more memory than the bytes have.
#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use skein::backplane::envelope::{self, Frame, Splitter};
use skein::backplane::mesh::handshake::Hello;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((_, Frame::Publications(batch))) = envelope::decode(bytes) {
        let said: usize = batch.iter().map(|one| one.data.len() + one.channel.len()).sum();
        assert!(said <= bytes.len() * 2);
    }
    let mut splitter = Splitter::default();
    // What cannot be split is refused; that is all there is to see.
    let _refused = splitter.feed(bytes, |frame| {
        let _read = envelope::decode(frame).is_ok();
        ControlFlow::Continue(())
    });
    let _hello = Hello::parse(bytes).is_ok();
});
