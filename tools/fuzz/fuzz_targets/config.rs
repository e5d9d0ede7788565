//! Configuration files: settings, or mistakes with their place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skein::config::{Sources, resolve};

fuzz_target!(|text: &str| {
    let sources = Sources { file: Some(("fuzz.toml".into(), text.to_owned())), ..Sources::default() };
    if let Err(mistakes) = resolve(&sources) {
        assert!(!mistakes.to_string().is_empty());
    }
});
