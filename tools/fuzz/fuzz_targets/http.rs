//! Request heads: whole, incomplete or refused, and an upgrade only from a head that is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skein::ws::upgrade::{OriginRule, Parse, check, parse_head, response};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Parse::Complete(head, used)) = parse_head(bytes) {
        assert!(used <= bytes.len());
        if let Ok(upgrade) = check(&head, &OriginRule::default()) {
            let mut out = Vec::new();
            response(&upgrade, &mut out);
            assert!(out.starts_with(b"HTTP/1.1 101"));
        }
    }
});
