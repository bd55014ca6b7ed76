//! What bundles say about themselves, and how two of them differ.

use kiln_builder::diff::{Change, Diff, PartState};
use kiln_builder::evidence::{Content, FileEntry, Origin};
use kiln_builder::spec::Setting;
use kiln_builder::why::Holder;

use super::bytes;
use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// A table for each kind of thing that differs.
pub fn diff(diff: &Diff, paint: Paint) -> String {
    let id = |image: &kiln_model::manifest::ImageRef| {
        format!("{image} for {} ({})", image.arch, image.id.0.short())
    };
    let mut out = format!("{} -> {}\n", id(&diff.from), id(&diff.to));
    if diff.is_empty() {
        return out + "they are one image\n";
    }
    let text = |text: &String| text.escape_debug().to_string();
    out += &section("SETTING", &diff.settings, text, paint);
    out += &section("FUNCTION", &diff.functions, text, paint);
    out += &section("PACKAGE", &diff.packages, text, paint);
    out += &section("PART", &diff.parts, part, paint);
    match &diff.files {
        Some(files) => out += &section("FILE", files, file, paint),
        None => out += "\nfiles: not known, one of the bundles has no list of its files; bake it again\n",
    }
    out
}

/// Who has a file, and why.
pub fn holders(holders: &[Holder], paint: Paint) -> String {
    let row = |holder: &Holder| -> [Cell; 5] {
        let chain = match holder.chain.is_empty() {
            true => "-".to_owned(),
            false => holder.chain.join(" > ").escape_debug().to_string(),
        };
        let is = &holder.file;
        [
            holder.part.to_string().into(),
            is.path.as_str().into(),
            content(is).into(),
            origin(is).into(),
            chain.into(),
        ]
    };
    let rows: Vec<_> = holders.iter().map(row).collect();
    table(["PART", "PATH", "IS", "FROM", "WANTED BY"], &rows, "nobody", paint)
}

/// Every value of a spec, and the line that set it.
pub fn settings(settings: &[Setting], paint: Paint) -> String {
    let row = |s: &Setting| -> [Cell; 3] {
        [
            s.key.as_str().into(),
            s.from.as_str().into(),
            s.value.escape_debug().to_string().replace("\\\"", "\"").into(),
        ]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    table(["KEY", "FROM", "VALUE"], &rows, "no settings", paint)
}

fn section<T>(title: &str, changes: &[Change<T>], show: impl Fn(&T) -> String, paint: Paint) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let row = |change: &Change<T>| -> [Cell; 4] {
        let sign = match (&change.from, &change.to) {
            (None, _) => Cell::toned(Tone::Good, "+"),
            (_, None) => Cell::toned(Tone::Bad, "-"),
            _ => Cell::toned(Tone::Busy, "~"),
        };
        let side = |side: &Option<T>| side.as_ref().map_or_else(|| "-".to_owned(), &show);
        let what = change.what.escape_debug().to_string();
        [sign, what.into(), side(&change.from).into(), side(&change.to).into()]
    };
    let rows: Vec<_> = changes.iter().map(row).collect();
    format!("\n{}", table(["", title, "WAS", "IS"], &rows, "", paint))
}

fn part(part: &PartState) -> String {
    format!("{} {}", bytes(part.size), part.sha256.short())
}

fn file(file: &FileEntry) -> String {
    let [uid, gid] = file.owner;
    format!("{} {uid}:{gid} {}", file.mode, content(file))
}

fn content(file: &FileEntry) -> String {
    match &file.content {
        Content::Folder => "folder".to_owned(),
        Content::File { size, sha256 } => format!("{} {}", bytes(*size), sha256.short()),
        Content::Link { target } => format!("link to {target}"),
    }
}

fn origin(file: &FileEntry) -> String {
    match &file.from {
        Origin::Package { name, version } => format!("package {name} {version}"),
        Origin::Layer { image, sha256 } => format!("layer {} of {image}", sha256.short()),
        Origin::File => "a file beside the spec".to_owned(),
        Origin::Agent => "the agent".to_owned(),
        Origin::Trust => "the fleet's trust root".to_owned(),
        Origin::Template => "the spec's template".to_owned(),
        Origin::Kiln => "made by the bake".to_owned(),
    }
}
