//! What a person can write wrongly, and what is said about it.

use super::*;

/// An `images` folder with the image `x` and the function `f`.
struct Images(tempfile::TempDir);

const IMAGE: &str = "format = 1\nname = \"x\"\nversion = \"1\"\narch = \"x86_64\"\nprofile = \"generic/vm\"\n\
                     functions = [\"f\"]\n";

const FUNCTION: &str = r#"format = 1
packages = ["frr"]
programs = ["/usr/bin/d"]

[[user]]
name = "d"
id = 901

[[folder]]
path = "/run/d"
owner = "d"

[sandbox]
capabilities = ["net_admin"]
writable = ["/run/d"]

[[config]]
template = "/usr/share/kiln/templates/d.conf"
path = "/etc/d.conf"

[[process]]
name = "d"
command = ["/usr/bin/d", "-n"]
ready = [{ kind = "unix", path = "/run/d/sock" }]
"#;

impl Images {
    fn new(image: &str, function: &str) -> Self {
        let images = Self(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir_all(images.0.path().join("functions/f")).expect("a folder");
        std::fs::create_dir_all(images.0.path().join("x")).expect("a folder");
        images.write("x/image.toml", image);
        images.write("functions/f.toml", function);
        images.write("functions/f/d.conf", "one");
        images
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.path().join(file), text).expect("written");
    }

    fn load(&self) -> Result<Spec, SpecError> {
        Spec::load(&self.0.path().join("x"))
    }

    /// The message, without the folder.
    fn refused(&self) -> String {
        let message = self.load().expect_err("refused").to_string();
        message.split_once("x/../").map_or(message.clone(), |(_, rest)| rest.to_owned())
    }
}

/// The message for a function spec in which `from` is written as `to`.
fn function_with(from: &str, to: &str) -> String {
    assert!(FUNCTION.contains(from), "{from}");
    Images::new(IMAGE, &FUNCTION.replacen(from, to, 1)).refused()
}

#[test]
fn a_right_spec_is_read() {
    let spec = Images::new(IMAGE, FUNCTION).load().expect("right");
    let name = "f".parse().expect("a name");
    assert_eq!(spec.functions[&name].templates["d.conf"], b"one");
    assert_eq!(spec.functions[&name].spec.function(&name).processes.len(), 1);
    let roots: Vec<String> = spec.roots().into_keys().collect();
    assert_eq!(roots, ["base", "fn/f", "kernel", "loader"]);
}

#[test]
fn the_specs_that_come_with_kiln_are_right() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
    let spec = Spec::load(&images.join("edge-router")).expect("right");
    let (lock, _) = crate::lock::Lock::load(&spec.lock_file()).expect("a lock");
    lock.check(spec.image.arch, &spec.roots(), &spec.lock_file()).expect("a lock for this spec");
}

#[test]
fn an_unknown_key_is_told_with_line_column_and_the_right_one() {
    let message = function_with("programs = ", "progams = ");
    assert!(message.starts_with("functions/f.toml:3:1: unknown field `progams`"), "{message}");
    assert!(message.ends_with("did you mean `programs`?"), "{message}");
    let message = function_with("kind = \"unix\"", "kind = \"unix\", intervall_ms = 5");
    assert!(message.contains("interval_ms") && message.contains(":24:27:"), "{message}");
    let image = IMAGE.replace("profile", "profil");
    let message = Images::new(&image, FUNCTION).refused();
    assert!(message.contains("image.toml:5:1") && message.contains("did you mean `profile`?"), "{message}");
}

#[test]
fn an_unknown_capability_names_those_there_are() {
    let message = function_with("net_admin", "net_admn");
    assert!(message.starts_with("functions/f.toml:14:"), "{message}");
    assert!(message.contains("`net_raw`") && message.ends_with("did you mean `net_admin`?"), "{message}");
    let message = function_with("net_admin", "sys_module");
    assert!(message.contains("unknown variant `sys_module`"), "{message}");
}

#[test]
fn a_command_is_a_program_of_the_function_and_never_a_shell() {
    let message = function_with("command = [\"/usr/bin/d\"", "command = [\"/usr/bin/dd\"");
    assert!(message.contains("not one of `programs`; did you mean `/usr/bin/d`?"), "{message}");
    let shell = FUNCTION.replace("/usr/bin/d\"", "/usr/bin/sh\"");
    let message = Images::new(IMAGE, &shell).refused();
    assert!(message.contains("is a shell"), "{message}");
}

#[test]
fn ids_paths_and_owners_are_checked() {
    for (from, to, part) in [
        ("id = 901", "id = 0", "has the id 0"),
        ("owner = \"d\"", "owner = \"e\"", "is no `[[user]]`"),
        ("writable = [\"/run/d\"]", "writable = [\"run/d\"]", "not an absolute path"),
        ("writable = [\"/run/d\"]", "writable = [\"/run/../d\"]", "not an absolute path"),
        (
            "/usr/share/kiln/templates/d.conf",
            "/usr/share/kiln/templates/../d.conf",
            "a template is a file in",
        ),
        ("/usr/share/kiln/templates/d.conf", "/usr/share/kiln/templates/e.conf", "cannot read"),
        ("name = \"d\"\nid", "name = \"D d\"\nid", "not a user's name"),
        ("format = 1", "format = 2", "format 2 is not known"),
    ] {
        let message = function_with(from, to);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_image_can_put_its_own_template_in_the_place_of_a_functions() {
    let image = format!("{IMAGE}[function.f]\ntemplates = {{ \"d.conf\" = \"mine.conf\" }}\n");
    let images = Images::new(&image, FUNCTION);
    assert!(images.refused().contains("mine.conf"));
    images.write("x/mine.conf", "two");
    let spec = images.load().expect("right");
    assert_eq!(spec.functions[&"f".parse().expect("a name")].templates["d.conf"], b"two");
    images.write("x/image.toml", &image.replace("\"d.conf\"", "\"e.conf\""));
    assert!(images.refused().contains("has no template `e.conf`; it has: d.conf"));
}

#[test]
fn functions_that_wait_for_nobody_or_for_each_other_are_refused() {
    let after = |other: &str| FUNCTION.replacen("programs", &format!("after = [\"{other}\"]\nprograms"), 1);
    assert!(Images::new(IMAGE, &after("g")).refused().contains("starts after `g`"));
    assert!(Images::new(IMAGE, &after("f")).refused().contains("in a circle"));
    let missing = IMAGE.replace("\"f\"", "\"f\", \"g\"");
    assert!(Images::new(&missing, FUNCTION).refused().contains("functions/g.toml: cannot be read"));
}
