//! The table as text: a sample file, and a reference for people. (`--help` is the command line's.)

use std::fmt::Write;

use super::collect::variable_of;
use super::schema::{
    Entry, FILE_VARIABLE, GROUPS, Kind, NAMESPACE_OPTIONS, NAMESPACES, OPTIONS, Status, WITHOUT_NAMESPACE,
};

const WIDTH: usize = 100;

/// A file with every option at its default, commented out, that is in order as it stands.
///
/// A line that begins with `#` and no space is an option: without the `#` it says what is the case anyway.
pub fn sample() -> String {
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("# Configuration of a Skein node: skein serve --config FILE");
    line("#");
    line("# Every option stands here with its default. To change one, remove the '#' before it.");
    line("# Environment variables win over this file, and flags win over both: `skein config reference`");
    line("# names them. `skein config check FILE` finds every mistake at once.");
    for group in GROUPS {
        line("");
        wrap(group.doc, WIDTH - 2).iter().for_each(|doc| line(&format!("# {doc}")));
        line(&format!("[{}]", group.table));
        for entry in entries_of(group.table) {
            line("");
            wrap(&entry.doc(), WIDTH - 2).iter().for_each(|doc| line(&format!("# {doc}")));
            let (_, key) = entry.table_and_key();
            if entry.kind == Kind::Namespaces {
                line("# [[channel.namespaces]]");
                line("# name = 'chat'");
                line("# allow_subscribe_for_client = true");
                continue;
            }
            if !entry.example.is_empty() {
                line(&format!("# Example: {key} = {}", entry.example));
            }
            line(&format!("#{key} = {}", entry.default));
        }
    }
    text
}

/// Every option in Markdown, those of other configurations at the end.
pub fn reference() -> String {
    let mut text = String::from("# Configuration\n\n");
    let intro = format!(
        "A value is taken from the first of these that has it: a flag (`--` and the option's name), an environment \
         variable, the file (TOML, named by `--config` or `{FILE_VARIABLE}`), the default. In flags and variables the items of a list are \
         separated by commas. Times have units (`1m30s`), sizes may have (`64KiB`).\n"
    );
    text.push_str(&intro);
    for group in GROUPS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## `[{}]`\n\n{}\n", group.table, group.doc);
        if group.table == WITHOUT_NAMESPACE {
            let _ = write!(
                text,
                "\nIn the file, an option stands in `[{WITHOUT_NAMESPACE}]` or in one of `[[{NAMESPACES}]]`.\n"
            );
        }
        for entry in entries_of(group.table) {
            let path = path_of(group.table, entry);
            let _ = write!(text, "\n### `{path}`\n\n{}\n\n", entry.doc());
            let _ = writeln!(text, "- Default: `{}`", entry.default);
            if !entry.example.is_empty() {
                let _ = writeln!(text, "- Example: `{}`", entry.example);
            }
            let alias = entry.alias.map(|alias| format!(", `--{alias}`")).unwrap_or_default();
            let _ = writeln!(text, "- Flag: `--{path}`{alias}");
            let _ = writeln!(text, "- Variable: `{}`", variable_of(&path));
        }
    }
    text.push_str("\n## Names from other configurations\n\n");
    text.push_str("Known, so that a configuration can move. They are accepted at their default; any other value is refused with the reason, or has no effect where that is said.\n\n");
    for (prefix, entry) in
        OPTIONS.iter().map(|entry| ("", entry)).chain(NAMESPACE_OPTIONS.iter().map(|entry| ("…", entry)))
    {
        match entry.status {
            Status::Built => {}
            Status::Fixed(sentence) => {
                let _ = writeln!(text, "- `{prefix}{}`: {sentence}", entry.path);
            }
            Status::NoEffect(reason) => {
                let _ = writeln!(text, "- `{prefix}{}`: no effect, since {reason}.", entry.path);
            }
        }
    }
    text
}

/// The options that are built, of one table.
pub fn entries_of(table: &str) -> impl Iterator<Item = &'static Entry> {
    let own = OPTIONS.iter().filter(move |entry| entry.table_and_key().0 == table);
    let of_namespaces = NAMESPACE_OPTIONS.iter().filter(move |_| table == WITHOUT_NAMESPACE);
    own.chain(of_namespaces).filter(|entry| entry.built())
}

pub fn path_of(table: &str, entry: &Entry) -> String {
    if table == WITHOUT_NAMESPACE { format!("{table}.{}", entry.path) } else { entry.path.to_owned() }
}

/// Lines of at most `width` characters, broken at spaces.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
