//! The proxy that apt was told to use for HTTP.
//!
//! Only `Acquire::http::Proxy "…";` on a line of its own is understood (apt.conf(5) has a nested notation
//! too). Without one, the usual environment variables count.

use std::path::Path;

/// The proxy configured in `folder` (`/etc/apt`); the last one counts, as for apt.
pub fn configured(folder: &Path) -> Option<String> {
    let mut files = vec![folder.join("apt.conf")];
    let parts = std::fs::read_dir(folder.join("apt.conf.d")).into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(proxy_of_line).next_back()
}

fn proxy_of_line(line: &str) -> Option<String> {
    let value = line.trim().strip_prefix("Acquire::http::Proxy")?.trim();
    let value = value.trim_end_matches(';').trim().trim_matches('"');
    value.starts_with("http").then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_proxy_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(configured(folder.path()), None);
        std::fs::create_dir(folder.path().join("apt.conf.d")).expect("a folder");
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).expect("written");
        write("apt.conf", "Acquire::http::Proxy \"DIRECT\";\n// Acquire::http::Proxy \"http://no\";\n");
        assert_eq!(configured(folder.path()), None);
        write("apt.conf.d/01", "Acquire::http::Proxy \"http://one:3142\";\n");
        write("apt.conf.d/02", " Acquire::http::Proxy \"http://two:3142\";\n");
        assert_eq!(configured(folder.path()).as_deref(), Some("http://two:3142"));
    }
}
