//! `extends = "../base/image.toml"`: one file on top of another.
//!
//! Tables are merged key by key. Every other value takes the place of the one below it, lists too; a list
//! is added to and taken from with `functions = { add = ["lldpd"], remove = ["chrony"] }`. Each value
//! remembers the line that set it, so a merged spec is refused, and explained, by the lines that people
//! wrote.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::files::SpecFiles;
use super::read::{SpecError, with_hint};

/// How many files may be on top of each other.
pub const DEPTH: usize = 8;
/// The key that names the file below.
const EXTENDS: &str = "extends";

/// A file with everything that it extends merged in.
#[derive(Debug, Clone)]
pub struct Document {
    /// The files and their texts, the topmost first.
    pub files: Vec<(PathBuf, String)>,
    root: Item,
}

/// One value that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its key: `sandbox.capabilities`.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// The lines that set it: `images/x/image.toml:7`.
    pub from: String,
}

/// A value, and where it was set.
#[derive(Debug, Clone)]
struct Item {
    node: Node,
    places: Vec<Place>,
}

#[derive(Debug, Clone)]
enum Node {
    Table(Vec<(String, Item)>),
    List(Vec<Item>),
    Leaf(Value),
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    line: usize,
    column: usize,
}

impl Document {
    /// Reads `file` and what it extends.
    pub fn read(file: &Path, files: &mut SpecFiles) -> Result<Self, SpecError> {
        let mut texts = Vec::new();
        let root = load(file, files, &mut texts)?;
        Ok(Self { files: texts, root })
    }

    /// The topmost file.
    pub fn file(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(file, _)| file)
    }

    /// The document as a type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SpecError> {
        if let [(file, text)] = self.files.as_slice() {
            return super::read::parse_toml(text, file);
        }
        let whole = |problem: String| SpecError::whole(self.file(), problem);
        let text = toml::to_string(&self.root.value()).map_err(|e| whole(e.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let problem = with_hint(error.message());
            let missing = problem.starts_with("missing field");
            let place = error.span().filter(|_| !missing).and_then(|span| self.place_of(&text, &span));
            match place {
                Some(Place { file, line, column }) => SpecError { file, line, column, problem },
                None if missing => whole(format!("{problem}: neither it nor what it extends sets it")),
                None => whole(problem),
            }
        })
    }

    /// A problem with `word`, at the first line that has it in the topmost file that does.
    pub fn error_at(&self, word: &str, problem: impl Into<String>) -> SpecError {
        let has = |(_, text): &&(PathBuf, String)| text.contains(&format!("\"{word}\""));
        let text = self.files.iter().find(has).or(self.files.first());
        match text {
            Some((file, text)) => SpecError::of_word(file, text, word, problem),
            None => SpecError::whole(self.file(), problem),
        }
    }

    /// Every value, in the order of the files.
    pub fn values(&self) -> Vec<Written> {
        let mut values = Vec::new();
        self.root.walk("", &mut values);
        values
    }

    /// Where the value at `span` of the merged text was written.
    fn place_of(&self, text: &str, span: &Range<usize>) -> Option<Place> {
        let table = DeTable::parse(text).ok()?;
        let mut path = Vec::new();
        path_to(table.get_ref(), span.start, &mut path);
        let mut item = &self.root;
        for step in &path {
            item = match &item.node {
                Node::Table(table) => &table.iter().find(|(name, _)| name == step)?.1,
                Node::List(list) => list.get(step.parse::<usize>().ok()?)?,
                Node::Leaf(_) => break,
            };
        }
        item.places.first().cloned().filter(|_| !path.is_empty())
    }
}

impl Item {
    fn value(&self) -> Value {
        match &self.node {
            Node::Table(table) => {
                Value::Table(table.iter().map(|(name, item)| (name.clone(), item.value())).collect())
            }
            Node::List(list) => Value::Array(list.iter().map(Item::value).collect()),
            Node::Leaf(value) => value.clone(),
        }
    }

    fn get(&self, key: &str) -> Option<&Item> {
        match &self.node {
            Node::Table(table) => table.iter().find(|(name, _)| name == key).map(|(_, item)| item),
            _ => None,
        }
    }

    /// Tables and lists of tables are gone into; everything else is one value.
    fn walk(&self, key: &str, found: &mut Vec<Written>) {
        let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        match &self.node {
            Node::Table(table) if !table.is_empty() => {
                table.iter().for_each(|(name, item)| item.walk(&below(name), found));
            }
            Node::List(list) if list.iter().any(|item| matches!(item.node, Node::Table(_))) => {
                for (at, item) in list.iter().enumerate() {
                    let name = match item.get("name").map(|name| &name.node) {
                        Some(Node::Leaf(Value::String(name))) => name.clone(),
                        _ => (at + 1).to_string(),
                    };
                    item.walk(&below(&name), found);
                }
            }
            _ => {
                let from: Vec<String> = self.places.iter().map(Place::line).collect();
                let value = self.value().to_string();
                found.push(Written { key: key.to_owned(), value, from: from.join(" + ") });
            }
        }
    }

    /// `over` on top of this.
    fn merged(self, over: Item) -> Result<Item, SpecError> {
        match (self.node, over.node) {
            (Node::Table(mut below), Node::Table(above)) => {
                for (name, item) in above {
                    match below.iter_mut().find(|(there, _)| *there == name) {
                        Some((_, there)) => {
                            let base = std::mem::replace(there, Item::nothing());
                            *there = base.merged(item)?;
                        }
                        None => below.push((name, item)),
                    }
                }
                Ok(Item { node: Node::Table(below), places: over.places })
            }
            (Node::List(list), Node::Table(edit)) => edited(list, &self.places, edit, over.places),
            (_, node) => Ok(Item { node, places: over.places }),
        }
    }

    const fn nothing() -> Item {
        Item { node: Node::List(Vec::new()), places: Vec::new() }
    }
}

impl Place {
    fn new(file: &Path, text: &str, offset: usize) -> Self {
        let SpecError { file, line, column, .. } = SpecError::at(file, text, offset, "");
        Self { file, line, column }
    }

    fn line(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    fn error(&self, problem: String) -> SpecError {
        SpecError { file: self.file.clone(), line: self.line, column: self.column, problem }
    }
}

/// A file as a tree, on top of what it extends. `texts` are the files above it.
fn load(file: &Path, files: &mut SpecFiles, texts: &mut Vec<(PathBuf, String)>) -> Result<Item, SpecError> {
    let whole = |problem: String| SpecError::whole(file, problem);
    let text = files.text(file).map_err(whole)?;
    let invalid = |error: toml::de::Error| match error.span() {
        Some(span) => SpecError::at(file, &text, span.start, error.message()),
        None => SpecError::whole(file, error.message()),
    };
    let values: Table = toml::from_str(&text).map_err(invalid)?;
    let spans = DeTable::parse(&text).map_err(invalid)?;
    let mut root = Item { node: table(&values, spans.get_ref(), file, &text), places: Vec::new() };
    texts.push((file.to_owned(), text.clone()));
    let Node::Table(entries) = &mut root.node else { return Ok(root) };
    let Some(at) = entries.iter().position(|(name, _)| name == EXTENDS) else { return Ok(root) };
    let (_, extends) = entries.remove(at);
    let place = extends.places.first().cloned().unwrap_or_else(|| Place::new(file, &text, 0));
    let Node::Leaf(Value::String(below)) = extends.node else {
        return Err(place.error("`extends` is the path of another spec, relative to this one".to_owned()));
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    let base = folder.join(&below);
    check_chain(&base, files, texts, &place)?;
    let mut base_item = load(&base, files, texts)?;
    move_templates(&mut base_item, Path::new(&below).parent().unwrap_or(Path::new("")));
    base_item.merged(root)
}

fn check_chain(
    base: &Path,
    files: &SpecFiles,
    texts: &[(PathBuf, String)],
    place: &Place,
) -> Result<(), SpecError> {
    let name = files.name(base).map_err(|problem| place.error(problem))?;
    let names: Vec<String> = texts.iter().filter_map(|(file, _)| files.name(file).ok()).collect();
    if names.contains(&name) {
        let circle = [names.join(" > "), name].join(" > ");
        return Err(place.error(format!("`extends` leads in a circle: {circle}")));
    }
    if names.len() >= DEPTH {
        return Err(place.error(format!("`extends` is more than {DEPTH} files deep: {}", names.join(" > "))));
    }
    Ok(())
}

fn table(values: &Table, spans: &DeTable<'_>, file: &Path, text: &str) -> Node {
    let entries = spans.iter().filter_map(|(key, span)| {
        let name = key.get_ref().to_string();
        let node = node(values.get(&name)?, span, file, text);
        Some((name, Item { node, places: vec![Place::new(file, text, key.span().start)] }))
    });
    Node::Table(entries.collect())
}

fn node(value: &Value, span: &Spanned<DeValue<'_>>, file: &Path, text: &str) -> Node {
    match (value, span.get_ref()) {
        (Value::Table(values), DeValue::Table(spans)) => table(values, spans, file, text),
        (Value::Array(values), DeValue::Array(spans)) => {
            let item = |(value, span): (&Value, &Spanned<DeValue<'_>>)| Item {
                node: node(value, span, file, text),
                places: vec![Place::new(file, text, span.span().start)],
            };
            Node::List(values.iter().zip(spans.iter()).map(item).collect())
        }
        _ => Node::Leaf(value.clone()),
    }
}

/// `{ add = […], remove = […] }` on a list.
fn edited(
    mut list: Vec<Item>,
    below: &[Place],
    edit: Vec<(String, Item)>,
    above: Vec<Place>,
) -> Result<Item, SpecError> {
    for (verb, items) in edit {
        let place = items.places.first().or(above.first()).cloned();
        let refused = |problem: String| match &place {
            Some(place) => place.error(problem),
            None => SpecError::whole(Path::new(""), problem),
        };
        let Node::List(items) = items.node else {
            return Err(refused(format!("`{verb}` has a list: `{{ add = [\"a\"], remove = [\"b\"] }}`")));
        };
        for item in items {
            let value = item.value();
            let at = list.iter().position(|there| there.value() == value);
            match (verb.as_str(), at) {
                ("add", None) => list.push(item),
                ("add", Some(_)) => {}
                ("remove", Some(at)) => drop(list.remove(at)),
                ("remove", None) => {
                    let there: Vec<String> = list.iter().map(|i| i.value().to_string()).collect();
                    let there = there.join(", ");
                    return Err(refused(format!("{value} is not in the list that is extended: {there}")));
                }
                (other, _) => {
                    let hint = crate::suggest::hint(other, ["add", "remove"]);
                    let problem = format!(
                        "a list below this is replaced by a list, or changed by `add` and `remove`; `{other}` is \
                         neither{hint}"
                    );
                    return Err(refused(problem));
                }
            }
        }
    }
    let places = below.iter().cloned().chain(above).collect();
    Ok(Item { node: Node::List(list), places })
}

/// Paths of templates are relative to the file that has them: `folder` is that file's, seen from the one
/// on top of it.
fn move_templates(item: &mut Item, folder: &Path) {
    let Node::Table(entries) = &mut item.node else { return };
    let functions = entries.iter_mut().filter(|(name, _)| name == "function").map(|(_, item)| item);
    for function in functions.filter_map(Item::entries_mut).flatten().map(|(_, item)| item) {
        let templates = function.entries_mut().into_iter().flatten().filter(|(name, _)| name == "templates");
        for (_, template) in templates.filter_map(|(_, item)| item.entries_mut()).flatten() {
            if let Node::Leaf(Value::String(path)) = &mut template.node {
                *path = folder.join(&*path).display().to_string();
            }
        }
    }
}

impl Item {
    fn entries_mut(&mut self) -> Option<&mut Vec<(String, Item)>> {
        match &mut self.node {
            Node::Table(entries) => Some(entries),
            _ => None,
        }
    }
}

/// The keys that lead to what is at `offset`; numbers are places in lists.
fn path_to(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        if value_has(value, offset, path) || holds(&key.span(), offset) {
            return true;
        }
        path.pop();
    }
    false
}

fn value_has(value: &Spanned<DeValue<'_>>, offset: usize, path: &mut Vec<String>) -> bool {
    match value.get_ref() {
        // The values below a `[header]` are not within its span.
        DeValue::Table(table) if path_to(table, offset, path) => return true,
        DeValue::Array(list) => {
            for (at, item) in list.iter().enumerate() {
                path.push(at.to_string());
                if value_has(item, offset, path) {
                    return true;
                }
                path.pop();
            }
        }
        _ => {}
    }
    holds(&value.span(), offset)
}

fn holds(span: &Range<usize>, offset: usize) -> bool {
    span.contains(&offset)
}
