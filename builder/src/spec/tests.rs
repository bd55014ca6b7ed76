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

/// An image on top of another, in a folder of its own.
fn extending(top: &str) -> Images {
    let images = Images::new(IMAGE, FUNCTION);
    std::fs::create_dir_all(images.0.path().join("top")).expect("a folder");
    images.write("top/image.toml", top);
    images
}

const TOP: &str = "format = 1\nextends = \"../x/image.toml\"\nname = \"top\"\n";

impl Images {
    fn load_top(&self) -> Result<Spec, SpecError> {
        Spec::load(&self.0.path().join("top"))
    }

    fn refused_top(&self) -> String {
        self.load_top().expect_err("refused").to_string().replace(&self.0.path().display().to_string(), "")
    }
}

#[test]
fn an_image_has_what_the_one_that_it_extends_has() {
    let images = extending(&format!(
        "{TOP}cmdline = [\"a\"]\n[function.f]\ntemplates = {{ \"d.conf\" = \"mine\" }}\n"
    ));
    images.write("top/mine", "top's");
    let spec = images.load_top().expect("right");
    assert_eq!((spec.image.name.as_str(), spec.image.profile.to_string().as_str()), ("top", "generic/vm"));
    assert_eq!(spec.functions[&"f".parse().expect("a name")].templates["d.conf"], b"top's");
    let explained = spec.explain();
    let from = |key: &str| {
        let setting = explained.iter().find(|s| s.key == key).unwrap_or_else(|| panic!("{key}"));
        setting.from.rsplit('/').take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(from("name"), "image.toml:3 top");
    assert_eq!(from("arch"), "image.toml:4 x");
    assert_eq!(from("function.f.template.d.conf"), "image.toml:6 top");
    // Every file that was read is known, so that the image can be built again.
    let read: Vec<&str> = spec.files.all().keys().map(String::as_str).collect();
    assert_eq!(
        read,
        ["functions/f.toml", "functions/f/d.conf", "top/image.toml", "top/mine", "x/image.toml"]
    );
}

#[test]
fn a_template_belongs_to_the_file_that_names_it() {
    let images = extending(TOP);
    images.write("x/image.toml", &format!("{IMAGE}[function.f]\ntemplates = {{ \"d.conf\" = \"mine\" }}\n"));
    images.write("x/mine", "x's");
    let spec = images.load_top().expect("right");
    assert_eq!(spec.functions[&"f".parse().expect("a name")].templates["d.conf"], b"x's");
}

#[test]
fn a_list_is_replaced_or_added_to_and_taken_from() {
    let images = extending(&format!("{TOP}cmdline = {{ add = [\"b\", \"a\"], remove = [\"c\"] }}\n"));
    images.write("x/image.toml", &IMAGE.replace("functions", "cmdline = [\"a\", \"c\"]\nfunctions"));
    let spec = images.load_top().expect("right");
    assert_eq!(spec.image.cmdline, ["a", "b"]);
    let cmdline = spec.explain().into_iter().find(|s| s.key == "cmdline").expect("set");
    assert!(cmdline.from.contains("x/image.toml:6 + "), "{}", cmdline.from);
    for (edit, wanted) in [
        (
            "{ remove = [\"z\"] }",
            "top/image.toml:4:13: \"z\" is not in the list that is extended: \"a\", \"c\"",
        ),
        ("{ ad = [\"z\"] }", "did you mean `add`?"),
        ("{ add = \"z\" }", "`add` has a list"),
    ] {
        images.write("top/image.toml", &format!("{TOP}cmdline = {edit}\n"));
        let message = images.refused_top();
        assert!(message.contains(wanted), "{message}");
    }
    images.write("top/image.toml", &format!("{TOP}cmdline = [\"only\"]\n"));
    assert_eq!(images.load_top().expect("right").image.cmdline, ["only"]);
}

#[test]
fn a_mistake_is_told_by_the_file_that_makes_it() {
    let images = extending(TOP);
    images.write("x/image.toml", &IMAGE.replace("profile", "profil"));
    let message = images.refused_top();
    assert!(message.contains("x/image.toml:5:1: unknown field `profil`"), "{message}");
    assert!(message.ends_with("did you mean `profile`?"), "{message}");
    images.write("x/image.toml", IMAGE);
    for (line, wanted) in [
        ("[loader]\npakage = \"x\"\n", "top/image.toml:5:1: unknown field `pakage`"),
        ("[function.f]\ntemplate = {}\n", "top/image.toml:5:1: unknown field `template`"),
        ("arch = \"sparc\"\n", "top/image.toml:4:1: unknown variant `sparc`"),
        ("functions = [\"f\", \"F\"]\n", "top/image.toml:4:1: `F` is not a function's name"),
    ] {
        images.write("top/image.toml", &format!("{TOP}{line}"));
        let message = images.refused_top();
        assert!(message.contains(wanted), "{message}");
    }
    images.write("x/image.toml", &IMAGE.replace("profile = \"generic/vm\"\n", ""));
    images.write("top/image.toml", TOP);
    let message = images.refused_top();
    assert!(message.contains("missing field `profile`: neither it nor what it extends"), "{message}");
}

#[test]
fn circles_depth_and_paths_that_lead_out_are_refused() {
    let images = extending(TOP);
    images.write("x/image.toml", &format!("extends = \"../top/image.toml\"\n{IMAGE}"));
    let message = images.refused_top();
    assert!(message.contains("in a circle: top/image.toml > x/image.toml > top/image.toml"), "{message}");
    for n in 0..10 {
        std::fs::create_dir_all(images.0.path().join(n.to_string())).expect("a folder");
        images.write(&format!("{n}/image.toml"), &format!("extends = \"../{}/image.toml\"\n", n + 1));
    }
    images.write("top/image.toml", &TOP.replace("../x/", "../0/"));
    assert!(images.refused_top().contains("more than 8 files deep"));
    for (out, wanted) in
        [("/etc/passwd", "is not below"), ("../../x.toml", "is not below"), ("../no", "cannot be read")]
    {
        images.write("top/image.toml", &TOP.replace("../x/image.toml", out));
        let message = images.refused_top();
        assert!(message.contains(wanted), "{message}");
    }
    images.write("top/image.toml", "extends = 1\n");
    assert!(images.refused_top().contains("the path of another spec"));
}

#[test]
fn a_function_on_top_of_another_uses_its_templates() {
    let image = IMAGE.replace("[\"f\"]", "[\"g\"]");
    let images = Images::new(&image, FUNCTION);
    images.write("functions/g.toml", "format = 1\nextends = \"f.toml\"\npackages = { add = [\"lldpd\"] }\n");
    let spec = images.load().expect("right");
    let function = &spec.functions[&"g".parse().expect("a name")];
    assert_eq!(function.spec.packages, ["frr", "lldpd"]);
    assert_eq!(function.templates["d.conf"], b"one");
    std::fs::create_dir_all(images.0.path().join("functions/g")).expect("a folder");
    images.write("functions/g/d.conf", "its own");
    let spec = images.load().expect("right");
    assert_eq!(spec.functions[&"g".parse().expect("a name")].templates["d.conf"], b"its own");
}

#[test]
fn unknown_keys_of_every_table_are_refused_with_the_right_one() {
    for (from, to, right) in [
        ("[[user]]\n", "[[user]]\nhoem = \"/\"\n", "home"),
        ("[[folder]]\n", "[[folder]]\nmod = \"0755\"\n", "mode"),
        ("[sandbox]\n", "[sandbox]\nmemory_mx = 1\n", "memory_max"),
        ("[[config]]\n", "[[config]]\npaht = \"/\"\n", "path"),
        ("[[process]]\n", "[[process]]\nredy = []\n", "ready"),
        ("[sandbox]\n", "[drain]\nsettle = 1\n[sandbox]\n", "settle_ms"),
        ("[sandbox]\n", "[source]\noic = \"\"\n[sandbox]\n", "oci"),
        ("[sandbox]\n", "[[file]]\nsorce = \"\"\n[sandbox]\n", "source"),
        ("[sandbox]\n", "[[group]]\nmember = []\n[sandbox]\n", "members"),
    ] {
        let message = function_with(from, to);
        assert!(message.contains("unknown field"), "{message}");
        assert!(message.ends_with(&format!("did you mean `{right}`?")), "{to}: {message}");
    }
    for (table, right) in [("[base]\nkep = []\n", "keep"), ("[kernel]\npackge = \"\"\n", "package")] {
        let message = Images::new(&format!("{IMAGE}{table}"), FUNCTION).refused();
        assert!(message.ends_with(&format!("did you mean `{right}`?")), "{message}");
    }
}

#[test]
fn a_plain_file_is_locked_by_its_digest() {
    let function = format!("{FUNCTION}[[file]]\npath = \"/etc/motd\"\nsource = \"motd\"\n");
    let images = Images::new(IMAGE, &function);
    assert!(images.refused().contains("cannot read"));
    images.write("functions/f/motd", "one");
    let spec = images.load().expect("right");
    let lock = |spec: &Spec| crate::lock::Lock {
        format: kiln_model::Format,
        arch: spec.image.arch,
        epoch: 1,
        roots: spec.roots(),
        packages: Vec::new(),
        images: Vec::new(),
    };
    let lock = lock(&spec);
    let again = crate::lock::Lock::parse(&lock.to_bytes().expect("text"), Path::new("l")).expect("read");
    assert_eq!(lock, again);
    images.write("functions/f/motd", "two");
    let stale = lock.check(spec.image.arch, &images.load().expect("right").roots(), Path::new("image.lock"));
    let stale = stale.expect_err("another file").to_string();
    assert!(stale.contains("a plain file of `fn/f` is another one"), "{stale}");
}
