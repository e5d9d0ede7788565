//! Commands of clients in both encodings: an answer or a refusal, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skein::protocol::{DecodeLimits, Encoding, decode, validate_json};

const LIMITS: DecodeLimits = DecodeLimits { json_depth_max: 64, commands_max: 64 };

fuzz_target!(|bytes: &[u8]| {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let commands = decode(encoding, bytes, LIMITS).count();
        assert!(commands <= 65);
    }
    if let Some(json) = validate_json(bytes, 64) {
        assert!(!json.contains(&b'\n'));
    }
});
