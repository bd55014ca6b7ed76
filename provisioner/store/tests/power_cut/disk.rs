//! What a disk holds after a power cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One thing that the recorder saw.
#[derive(Debug)]
pub enum Record {
    Write {
        path: PathBuf,
        offset: usize,
        data: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        length: usize,
    },
    /// `fsync` of a file or a folder.
    Sync {
        path: PathBuf,
    },
    /// `fdatasync`: the data and the size of a file.
    SyncData {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        into: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Standard output.
    Said(String),
}

impl Record {
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Said(text) => Some(text),
            _ => None,
        }
    }

    /// Reads the recorder's file.
    pub fn read_all(mut bytes: &[u8]) -> Vec<Self> {
        let mut records = Vec::new();
        while let Some((operation, rest)) = bytes.split_first() {
            bytes = rest;
            let path = PathBuf::from(String::from_utf8(field(&mut bytes)).unwrap());
            let second = PathBuf::from(String::from_utf8(field(&mut bytes)).unwrap());
            let data = field(&mut bytes);
            let number = u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap());
            let number = usize::try_from(number).unwrap();
            records.push(match operation {
                b'w' => Self::Write { path, offset: number, data },
                b't' => Self::Truncate { path, length: number },
                b's' => Self::Sync { path },
                b'd' => Self::SyncData { path },
                b'r' => Self::Rename { from: path, into: second },
                b'u' => Self::Remove { path },
                b'a' => Self::Said(String::from_utf8(data).unwrap()),
                other => panic!("no operation {other}"),
            });
        }
        records
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(length);
    *bytes = rest;
    head
}

fn field(bytes: &mut &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(take(bytes, 4).try_into().unwrap());
    take(bytes, usize::try_from(length).unwrap()).to_vec()
}

/// The files of a folder by name.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<PathBuf, Vec<u8>>);

impl Tree {
    /// The files in `path` and one folder below; none when it is not there.
    pub fn of(path: &Path) -> Self {
        let mut tree = Self::default();
        let Ok(entries) = fs::read_dir(path) else { return tree };
        for entry in entries.map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => tree.0.extend(Self::of(&entry.path()).0),
                false => drop(tree.0.insert(entry.path(), fs::read(entry.path()).unwrap())),
            }
        }
        tree
    }

    /// Writes the files, which are below `root`, into `folder`, with the folders between.
    pub fn write(&self, root: &Path, folder: &Path) {
        for (path, data) in &self.0 {
            let path = folder.join(path.strip_prefix(root).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
    }
}

/// A kind of disk, by what it may do with data that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It loses all of it, and every file whose folder was not synced.
    OnlySynced,
    /// It keeps some 4 KiB blocks of it and loses others; names are kept.
    Torn,
}

const BLOCK: usize = 4096;

impl Disk {
    /// What it holds after `records`. `seed` decides which blocks are kept.
    pub fn after(self, before: &Tree, records: &[Record], seed: usize) -> Tree {
        let mut names = Names::default();
        for (path, data) in &before.0 {
            names.add(path, File { durable: data.clone(), ..File::default() });
        }
        names.durable = names.live.clone();
        for record in records {
            names.happen(record);
        }
        let mut random = Random(u64::try_from(seed).unwrap() + 1);
        let kept = if self == Self::Torn { names.live } else { names.durable };
        let files = kept.into_iter().map(|(path, file)| (path, names.files[file].after(self, &mut random)));
        Tree(files.collect())
    }
}

/// Files, the names that they have, and those that they would have after a cut.
#[derive(Default)]
struct Names<'a> {
    files: Vec<File<'a>>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// Folders that were renamed since the folder around them was synced.
    renamed: Vec<(&'a Path, &'a Path)>,
}

impl<'a> Names<'a> {
    fn add(&mut self, path: &Path, file: File<'a>) {
        self.live.insert(path.to_owned(), self.files.len());
        self.files.push(file);
    }

    fn file(&mut self, path: &Path) -> &mut File<'a> {
        if !self.live.contains_key(path) {
            self.add(path, File::default());
        }
        &mut self.files[self.live[path]]
    }

    fn happen(&mut self, record: &'a Record) {
        match record {
            Record::Write { path, offset, data } => self.file(path).pending.push(Change::Data(*offset, data)),
            Record::Truncate { path, length } => self.file(path).pending.push(Change::Size(*length)),
            Record::Sync { path } | Record::SyncData { path } => match self.live.get(path) {
                Some(file) => self.files[*file].sync(),
                None => self.sync_folder(path),
            },
            Record::Rename { from, into } => {
                rename(&mut self.live, from, into);
                self.renamed.push((from, into));
            }
            Record::Remove { path } => drop(self.live.remove(path)),
            Record::Said(_) => {}
        }
    }

    /// The names in a folder are durable as they are now.
    fn sync_folder(&mut self, folder: &Path) {
        for (from, into) in self.renamed.extract_if(.., |(from, _)| from.parent() == Some(folder)) {
            rename(&mut self.durable, from, into);
        }
        let in_it = |path: &PathBuf| path.parent() == Some(folder);
        self.durable.retain(|path, _| !in_it(path));
        let now = self.live.iter().filter(|(path, _)| in_it(path));
        self.durable.extend(now.map(|(path, file)| (path.clone(), *file)));
    }
}

/// Renames a file, or every file below a folder.
fn rename(names: &mut BTreeMap<PathBuf, usize>, from: &Path, into: &Path) {
    let moved: Vec<_> = names.extract_if(.., |path, _| path.starts_with(from)).collect();
    let renamed = |path: &Path| match path.strip_prefix(from).unwrap() {
        rest if rest.as_os_str().is_empty() => into.to_owned(),
        rest => into.join(rest),
    };
    names.extend(moved.into_iter().map(|(path, file)| (renamed(&path), file)));
}

/// One file: what is durable, and what is not yet, in order.
#[derive(Default)]
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<Change<'a>>,
}

enum Change<'a> {
    Data(usize, &'a [u8]),
    Size(usize),
}

impl File<'_> {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Size(length) => self.durable.resize(length, 0),
                Change::Data(offset, data) => put(&mut self.durable, offset, data),
            }
        }
    }

    fn after(&self, disk: Disk, random: &mut Random) -> Vec<u8> {
        let mut kept = self.durable.clone();
        if disk == Disk::Torn {
            for change in &self.pending {
                match change {
                    Change::Size(length) => kept.resize(*length, 0),
                    // Each block is kept or lost on its own.
                    Change::Data(offset, data) => {
                        let mut at = 0;
                        while at < data.len() {
                            let length = (BLOCK - (offset + at) % BLOCK).min(data.len() - at);
                            if random.coin() {
                                put(&mut kept, offset + at, &data[at..at + length]);
                            }
                            at += length;
                        }
                    }
                }
            }
        }
        kept
    }
}

fn put(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(data);
}

/// A small generator (xorshift), so that a cut can be repeated.
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 1 == 1
    }
}
