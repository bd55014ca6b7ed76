//! The words of `kiln-agent install`.

use std::path::PathBuf;

/// What `--help` shows.
pub const HELP: &str = "\
Put an image onto a disk, so that this machine starts it from there.

Usage: kiln-agent install --bundle FILE --disk DEVICE [--keep-onie] [--force] [--trust DIR]

  --bundle FILE    the image: NAME-VERSION-ARCH.kiln
  --disk DEVICE    the disk, such as /dev/sda; what is on it is lost
  --keep-onie      keep ONIE's own partitions and their numbers
  --force          take a disk that has other partitions or file systems on it
  --trust DIR      check the image's signatures against DIR/root.json
                   [default: `trust` beside this program, else /kiln/trust]

Example: kiln-agent install --bundle edge-router-2-x86_64.kiln --disk /dev/vda
";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    pub bundle: PathBuf,
    pub disk: PathBuf,
    pub keep_onie: bool,
    pub force: bool,
    trust: Option<PathBuf>,
}

impl Options {
    /// Reads them; none when help is wanted.
    ///
    /// # Errors
    /// Says which word is wrong or missing.
    pub fn parse(words: &[&str]) -> Result<Option<Self>, String> {
        let (mut options, mut words) = (Self::default(), words.iter());
        while let Some(word) = words.next() {
            let mut value = || match words.next() {
                Some(value) if !value.is_empty() => Ok(PathBuf::from(value)),
                _ => Err(format!("{word} wants a value")),
            };
            match *word {
                "--bundle" => options.bundle = value()?,
                "--disk" => options.disk = value()?,
                "--trust" => options.trust = Some(value()?),
                "--keep-onie" => options.keep_onie = true,
                "--force" => options.force = true,
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("`{other}` is not known")),
            }
        }
        for (path, word) in [(&options.bundle, "--bundle"), (&options.disk, "--disk")] {
            if path.as_os_str().is_empty() {
                return Err(format!("{word} is wanted"));
            }
        }
        Ok(Some(options))
    }

    /// The folder of the root of trust, if there is one.
    pub fn trust(&self) -> Option<PathBuf> {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("trust")));
        let defaults = beside.into_iter().chain([PathBuf::from("/kiln/trust")]);
        self.trust.clone().or_else(|| defaults.into_iter().find(|folder| folder.join("root.json").exists()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_wrong_ones_are_named() {
        let good = ["--bundle", "a.kiln", "--disk", "/dev/vda", "--keep-onie"];
        let options = Options::parse(&good).expect("good").expect("no help");
        assert!(options.keep_onie && !options.force);
        assert_eq!(Options::parse(&["--help"]), Ok(None));
        for (words, named) in [
            (&["--bundle", "a.kiln"][..], "--disk is wanted"),
            (&["--disk", "/dev/vda"], "--bundle is wanted"),
            (&["--disk"], "--disk wants a value"),
            (&["--keep-onion"], "`--keep-onion` is not known"),
        ] {
            assert_eq!(Options::parse(words).expect_err("wrong"), named);
        }
    }
}
