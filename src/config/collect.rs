//! Values by path, each with the place it came from: defaults, then the file, then the environment, then flags.
//!
//! Every value is checked against its option's `Kind`, every name against the table. What fits none is a mistake, and
//! reading goes on, so that all mistakes are told at once. What values mean together is not known here.

use std::collections::BTreeMap;
use std::rc::Rc;

use toml_edit::{Document, Item, TableLike};

use super::mistake::{Mistake, Place};
use super::nearest::nearest;
use super::schema::{
    Entry, FILE_VARIABLE, FOREIGN, GROUPS, Kind, NAMESPACE_OPTIONS, NAMESPACES, OPTIONS, Status, VARIABLE_PREFIX,
    WITHOUT_NAMESPACE,
};
use super::value::{Complaint, Value, from_text, from_toml, shortened};

/// Where values are written, beside the defaults.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// The path, for messages, and the text.
    pub file: Option<(String, String)>,
    /// All of the process; those that do not begin with the prefix are left alone.
    pub environment: Vec<(String, String)>,
    /// Name without dashes, and value.
    pub flags: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    pub value: Value,
    pub place: Place,
    /// False: what was written is a mistake already told, and the value is the default. Nothing is to be concluded
    /// from it.
    pub sound: bool,
}

/// The options of one namespace, by key, all of them.
pub type Options = BTreeMap<&'static str, Setting>;

#[derive(Clone, PartialEq, Debug)]
pub struct NamespaceTable {
    pub name: String,
    pub place: Place,
    pub options: Options,
}

/// Everything that was written and fits the table.
pub struct Collected {
    /// Every option but the namespaces', by path.
    pub settings: Options,
    pub without_namespace: Options,
    pub namespaces: Vec<NamespaceTable>,
    pub mistakes: Vec<Mistake>,
    /// Accepted but without effect: path, place, reason.
    pub ineffective: Vec<(&'static str, Place, &'static str)>,
}

pub fn collect(sources: &Sources) -> Collected {
    let mut collected = Collected {
        settings: defaults(OPTIONS),
        without_namespace: defaults(NAMESPACE_OPTIONS),
        namespaces: Vec::new(),
        mistakes: Vec::new(),
        ineffective: Vec::new(),
    };
    if let Some((path, text)) = &sources.file {
        collected.file(path, text);
    }
    for (name, text) in &sources.environment {
        collected.variable(name, text);
    }
    for (name, text) in &sources.flags {
        collected.flag(name, text);
    }
    collected
}

fn defaults(entries: &'static [Entry]) -> Options {
    let entries = entries.iter().filter(|entry| entry.kind != Kind::Namespaces);
    entries.map(|entry| (entry.path, Setting { value: default(entry), place: Place::Default, sound: true })).collect()
}

pub fn default(entry: &Entry) -> Value {
    let value: toml_edit::Value = entry.default.parse().expect("a default is written as in the file");
    from_toml(entry.kind, &value).expect("a default is a value of its option")
}

/// The option with this path, among those of channels without a namespace, too.
pub fn find(path: &str) -> Option<&'static Entry> {
    match path.strip_prefix(WITHOUT_NAMESPACE).and_then(|rest| rest.strip_prefix('.')) {
        Some(key) => NAMESPACE_OPTIONS.iter().find(|entry| entry.path == key),
        None => OPTIONS.iter().find(|entry| entry.path == path),
    }
}

/// Paths of all options.
pub fn paths() -> impl Iterator<Item = String> {
    let without_namespace = NAMESPACE_OPTIONS.iter().map(|entry| format!("{WITHOUT_NAMESPACE}.{}", entry.path));
    OPTIONS.iter().map(|entry| entry.path.to_owned()).chain(without_namespace)
}

/// What may be meant: nobody is sent to an option that refuses every value.
fn built_paths() -> impl Iterator<Item = String> {
    paths().filter(|path| find(path).is_some_and(Entry::built))
}

pub fn variable_of(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

impl Collected {
    fn mistake(&mut self, place: &Place, text: impl Into<String>) {
        self.mistakes.push(Mistake::new(place, text));
    }

    /// A value that fits its kind, or the complaint about it, becomes a setting, or a mistake.
    fn set(&mut self, entry: &'static Entry, path: &str, value: Result<Value, Complaint>, place: Place) {
        let into = if path.starts_with(WITHOUT_NAMESPACE) { &mut self.without_namespace } else { &mut self.settings };
        let effect = settle(entry, path, value, &place, into, &mut self.mistakes);
        if let Some(reason) = effect {
            self.ineffective.push((entry.path, place, reason));
        }
    }

    fn file(&mut self, path: &str, text: &str) {
        let file = File::new(path, text);
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let place = file.place(error.span());
                let mut message = error.message().lines().collect::<Vec<_>>().join(", ");
                if path.ends_with(".json") || path.ends_with(".yaml") || path.ends_with(".yml") {
                    message.push_str("; the file must be TOML: see `skein config sample`");
                }
                return self.mistake(&place, format!("not TOML: {message}"));
            }
        };
        self.table(&file, "", document.as_table());
    }

    fn table(&mut self, file: &File, prefix: &str, table: &dyn TableLike) {
        for (key, item) in table.iter() {
            let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            let place = file.place_of(table, key, item);
            if path == NAMESPACES {
                self.namespaces(file, item, &place);
            } else if let Some(entry) = find(&path) {
                let value = match item.as_value() {
                    Some(value) => from_toml(entry.kind, value),
                    None => Err("a value, and this is a table".to_owned()),
                };
                self.set(entry, &path, value, place);
            } else if is_table(&path) {
                match item.as_table_like() {
                    Some(table) => self.table(file, &path, table),
                    None => self.mistake(&place, format!("`{path}` is a table: write [{path}] and its options below")),
                }
            } else if let Some((_, sentence)) = FOREIGN.iter().find(|(foreign, _)| *foreign == path) {
                let idle = match item.as_table_like() {
                    Some(table) => {
                        let enabled = table.get("enabled").and_then(Item::as_bool);
                        table.is_empty() || enabled == Some(false)
                    }
                    None => item.as_array().is_some_and(toml_edit::Array::is_empty),
                };
                if !idle {
                    self.mistake(&place, format!("`{path}` is not for Skein: {sentence}"));
                }
            } else {
                self.unknown(&place, &path, item.is_table_like());
            }
        }
    }

    fn unknown(&mut self, place: &Place, path: &str, table: bool) {
        let known: Vec<String> = match table {
            true => GROUPS.iter().map(|group| group.table.to_owned()).collect(),
            false => built_paths().collect(),
        };
        let near = nearest(path, known.iter().map(String::as_str)).map(str::to_owned);
        // Perhaps the right key in the wrong table.
        let key = path.rsplit('.').next().unwrap_or(path);
        let elsewhere = || {
            let mut same = known.iter().filter(|known| known.rsplit('.').next() == Some(key));
            same.next().filter(|_| same.next().is_none()).cloned()
        };
        let what = if table { "table" } else { "option" };
        self.mistakes.push(Mistake {
            place: place.clone(),
            text: format!("there is no {what} `{}`", shortened(path)),
            nearest: near.or_else(elsewhere),
        });
    }

    /// `[[channel.namespaces]]`, or an array of inline tables.
    fn namespaces(&mut self, file: &File, item: &Item, place: &Place) {
        let tables: Option<Vec<(&dyn TableLike, Place)>> = match item {
            Item::ArrayOfTables(tables) => {
                Some(tables.iter().map(|table| (table as &dyn TableLike, file.place(table.span()))).collect())
            }
            Item::Value(toml_edit::Value::Array(array)) => array
                .iter()
                .map(|value| value.as_inline_table().map(|table| (table as &dyn TableLike, file.place(value.span()))))
                .collect(),
            _ => None,
        };
        match tables {
            Some(tables) => {
                // A later source replaces the whole list.
                self.namespaces.clear();
                tables.into_iter().for_each(|(table, place)| self.namespace(file, table, place));
            }
            None => self.mistake(
                place,
                format!(
                    "`{NAMESPACES}` must be a list of tables: write [[{NAMESPACES}]] with a name and options below"
                ),
            ),
        }
    }

    fn namespace(&mut self, file: &File, table: &dyn TableLike, place: Place) {
        let name = match table.get("name").map(|item| (item.as_str(), file.place_of(table, "name", item))) {
            Some((Some(name), name_place)) => {
                if !crate::rules::valid_namespace_name(name) {
                    let name = shortened(name);
                    self.mistake(
                        &name_place,
                        format!("a namespace must have at least two characters A-Z, a-z, 0-9, '-', '_' and '.', and '{name}' has not"),
                    );
                } else if let Some(first) = self.namespaces.iter().find(|namespace| namespace.name == name) {
                    let text = format!("the namespace '{name}' is already at {}", first.place);
                    self.mistake(&name_place, text);
                }
                name.to_owned()
            }
            Some((None, name_place)) => {
                self.mistake(&name_place, "`name` must be text in quotes");
                String::new()
            }
            None => {
                self.mistake(&place, "a namespace needs a `name`");
                String::new()
            }
        };
        let mut options = defaults(NAMESPACE_OPTIONS);
        for (key, item) in table.iter().filter(|(key, _)| *key != "name") {
            let place = file.place_of(table, key, item);
            let Some(entry) = NAMESPACE_OPTIONS.iter().find(|entry| entry.path == key) else {
                let built = NAMESPACE_OPTIONS.iter().filter(|entry| entry.built());
                let known = built.map(|entry| entry.path).chain(["name"]);
                let nearest = nearest(key, known).map(str::to_owned);
                let text = format!("there is no option `{}` of a namespace", shortened(key));
                self.mistakes.push(Mistake { place, text, nearest });
                continue;
            };
            let value = match item.as_value() {
                Some(value) => from_toml(entry.kind, value),
                None => Err("a value, and this is a table".to_owned()),
            };
            settle(entry, key, value, &place, &mut options, &mut self.mistakes);
        }
        self.namespaces.push(NamespaceTable { name, place, options });
    }

    fn variable(&mut self, name: &str, text: &str) {
        if !name.starts_with(VARIABLE_PREFIX) || name == FILE_VARIABLE {
            return;
        }
        let place = Place::Variable(name.to_owned());
        if let Some(path) = paths().find(|path| variable_of(path) == name) {
            return self.text(&path, text, place);
        }
        if is_service_link(name, text) {
            return;
        }
        let known: Vec<String> =
            built_paths().map(|path| variable_of(&path)).chain([FILE_VARIABLE.to_owned()]).collect();
        let nearest = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        let text = "there is no option for this environment variable".to_owned();
        self.mistakes.push(Mistake { place, text, nearest });
    }

    fn flag(&mut self, name: &str, text: &str) {
        let place = Place::Flag(name.to_owned());
        match paths().find(|path| path == name) {
            Some(path) => self.text(&path, text, place),
            None => self.mistake(&place, "there is no option for this flag"),
        }
    }

    fn text(&mut self, path: &str, text: &str, place: Place) {
        if path != NAMESPACES {
            let entry = find(path).expect("the path comes from the table");
            return self.set(entry, path, from_text(entry.kind, text), place);
        }
        match text.parse::<toml_edit::Value>() {
            Ok(value) => {
                let file = File::new(&place.to_string(), "");
                self.namespaces(&file, &Item::Value(value), &place);
            }
            Err(_) => {
                self.mistake(&place, "must be a TOML list, as [{ name = 'chat', allow_subscribe_for_client = true }]")
            }
        }
    }
}

/// The reason, where the setting is accepted but has no effect.
fn settle(
    entry: &'static Entry,
    path: &str,
    value: Result<Value, Complaint>,
    place: &Place,
    into: &mut Options,
    mistakes: &mut Vec<Mistake>,
) -> Option<&'static str> {
    let value = match value {
        Ok(value) => value,
        Err(complaint) => {
            mistakes.push(Mistake::new(place, format!("`{path}` must be {complaint}")));
            into.insert(entry.path, Setting { value: default(entry), place: place.clone(), sound: false });
            return None;
        }
    };
    let changed = value != default(entry);
    match entry.status {
        Status::Fixed(sentence) if changed => {
            mistakes.push(Mistake::new(place, format!("`{path}` must stay {}. {sentence}", entry.default)));
            None
        }
        Status::NoEffect(reason) => changed.then_some(reason),
        Status::Built | Status::Fixed(_) => {
            into.insert(entry.path, Setting { value, place: place.clone(), sound: true });
            None
        }
    }
}

fn is_table(path: &str) -> bool {
    let inside = |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    path == WITHOUT_NAMESPACE || inside(WITHOUT_NAMESPACE) || OPTIONS.iter().any(|entry| inside(entry.path))
}

/// What an orchestrator puts into the environment of each container for a service that is called "skein", too.
fn is_service_link(name: &str, text: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT_") || ["tcp://", "udp://"].iter().any(|s| text.starts_with(s))
}

/// For places.
struct File {
    path: Rc<str>,
    /// Offsets of the line ends. None: the text stands in no file, and has no lines.
    ends: Option<Vec<usize>>,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at);
        File { path: path.into(), ends: (!text.is_empty()).then(|| ends.collect()) }
    }

    fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        let line = match (&self.ends, span) {
            (Some(ends), Some(span)) => 1 + ends.partition_point(|&end| end < span.start),
            _ => 0,
        };
        Place::File { path: self.path.clone(), line }
    }

    fn place_of(&self, table: &dyn TableLike, key: &str, item: &Item) -> Place {
        self.place(table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span()))
    }
}
