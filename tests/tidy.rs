//! What documents and conventions claim about the sources, checked: the layer table of `ARCHITECTURE.md` against the
//! imports, where `unsafe` may stand, that every file says what it is, and that nothing is left open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// A file without its comments, and without what only tests see.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    let shown = shown(path);
    shown.ends_with("/tests.rs") || shown.contains("/tests/")
}

/// The module that a file belongs to: the first part of its path below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Rows of the table whose head is `| module | holds | may import | must never know |`.
fn layers() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| module | holds | may import")).skip(2);
    let mut layers = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let may =
            cells[2].split([' ', ',']).map(|word| word.trim_matches('`').to_owned()).filter(|word| !word.is_empty());
        let may: BTreeSet<String> = may.collect();
        for name in cells[0].split(',').map(|name| name.trim().trim_matches('`').to_owned()) {
            layers.insert(name, may.clone());
        }
    }
    assert!(layers.len() > 10, "the layer table was not found");
    layers
}

/// Names of modules that stand behind `crate::` in a text, also within braces.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        if let Some(braced) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            // Behind the first name of a path come names that are not modules of the crate.
            let mut inside_path = false;
            for character in braced.chars() {
                match character {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(std::mem::take(&mut word));
                        inside_path = false;
                    }
                    ':' => inside_path = true,
                    c if depth == 0 && !inside_path && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
            }
            found.insert(word);
        } else {
            found.insert(rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect());
        }
    }
    found.retain(|word| word.chars().next().is_some_and(char::is_lowercase));
    found
}

#[test]
fn modules_import_only_what_the_layer_table_lets_them() {
    let layers = layers();
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let module = module(&path);
        if matches!(module.as_str(), "lib" | "main") || is_test(&path) {
            continue;
        }
        let Some(may) = layers.get(&module) else {
            wrong.push(format!("{}: `{module}` is not in the layer table", shown(&path)));
            continue;
        };
        for import in imports(&product(&path)) {
            let fine = import == module || may.contains(&import) || may.contains("everything");
            if layers.contains_key(&import) && !fine {
                wrong.push(format!("{}: `{module}` must not import `{import}`", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checker_of_imports_reads_every_form() {
    let found =
        imports("use crate::{base::time, limits::X, rules};\nlet x = crate::auth::mint(); use crate::hub::Hub;");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["auth", "base", "hub", "limits", "rules"]);
}

#[test]
fn only_the_shell_knows_the_runtime_sockets_threads_and_clocks() {
    let names = [
        "monoio::",
        "quinn_proto::",
        "quinn_udp::",
        "io_uring::",
        "std::net::Tcp",
        "std::net::Udp",
        "libc::",
        "std::thread",
    ];
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().filter(|path| !is_test(path)) {
        if matches!(module(&path).as_str(), "shell" | "app") {
            continue;
        }
        let text = product(&path);
        for name in names.iter().filter(|name| text.contains(**name)) {
            wrong.push(format!("{}: {name}", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Files that exist for it, each with who guarantees what.
const UNSAFE: [&str; 5] = [
    "src/shell/process.rs",
    "src/shell/sys.rs",
    "src/shell/send_ring.rs",
    "src/shell/send_plain.rs",
    "src/shell/ready.rs",
];

#[test]
fn unsafe_stands_only_where_it_belongs_and_says_why() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            let is_unsafe = code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn");
            if !is_unsafe {
                continue;
            }
            let explained = lines[at.saturating_sub(8)..=at].iter().any(|line| line.contains("SAFETY"));
            if !UNSAFE.contains(&shown(&path).as_str()) && !is_test(&path) {
                wrong.push(format!("{}:{}: unsafe does not belong here", shown(&path), at + 1));
            } else if !explained {
                wrong.push(format!("{}:{}: unsafe without a SAFETY comment", shown(&path), at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "tools"] {
        for path in rust_files(folder) {
            let text = fs::read_to_string(&path).unwrap();
            if !text.starts_with("//!") || text.starts_with("//! (soon)") {
                wrong.push(shown(&path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    let marks = ["todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "tools"] {
        for path in rust_files(folder).into_iter().filter(|path| !path.ends_with("tests/tidy.rs")) {
            let text = fs::read_to_string(&path).unwrap();
            for (at, line) in text.lines().enumerate() {
                if marks.iter().any(|mark| line.contains(mark)) {
                    wrong.push(format!("{}:{}: {}", shown(&path), at + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
