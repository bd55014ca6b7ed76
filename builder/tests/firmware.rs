//! Firmware in images, from packages made here; `tests/peers/firmware` has the real ones.

mod common;

use std::sync::Mutex;

use common::{Bench, IMAGE, program};
use kiln_builder::bake::{Progress, bake};
use kiln_builder::contents::Contents;
use kiln_builder::evidence::Origin;
use kiln_builder::why::why;
use kiln_signing::bundle::Bundle;

const FUNCTION: &[(&str, &[u8])] = &[("/usr/bin/d", &[]), ("/usr/share/d/data", b"data")];
const MODULES: &[(&str, &str)] = &[
    ("vrf", "license=GPL\0"),
    ("bnx2x", "firmware=bnx2x/a.fw\0firmware=bnx2x/b.fw\0"),
    ("tg3", "firmware=tigon/tg3.bin\0"),
];

/// An image for a profile that names firmware.
fn bench(image: &str, firmware: &[(&str, &[u8])]) -> Bench {
    let bench = Bench::new();
    let text = IMAGE.replace("generic/vm", "generic/server") + image;
    bench.write("images/x/image.toml", text.as_bytes());
    let program = program();
    let function: Vec<_> =
        FUNCTION.iter().map(|(p, b)| (*p, if b.is_empty() { &program[..] } else { *b })).collect();
    bench.lock_with(&function, MODULES, firmware);
    bench
}

/// What a bake tells of its own accord.
fn notes(bench: &Bench) -> Vec<String> {
    let notes = Mutex::new(Vec::new());
    let told = |progress| {
        if let Progress::Note(note) = progress {
            notes.lock().expect("not poisoned").push(note);
        }
    };
    bake(&bench.options(), &told).expect("baked");
    notes.into_inner().expect("not poisoned")
}

#[test]
fn an_image_has_the_firmware_that_its_modules_name_and_no_other() {
    let firmware: &[(&str, &[u8])] = &[
        ("./lib/firmware/bnx2x/a.fw", b"a"),
        ("./lib/firmware/bnx2x/b.fw", b"b"),
        ("./lib/firmware/bnx2x/old.fw", b"old"),
        ("./lib/firmware/tigon/tg3.bin", b"tg3"),
        ("./usr/share/doc/firmware/copyright", b"terms"),
        ("./usr/share/doc/firmware/changelog", b"news"),
    ];
    let bench = bench("", firmware);
    let report = bench.bake(&bench.options()).expect("baked");
    let contents = Contents::open(&report.bundle).expect("whole");
    for file in
        ["/lib/firmware/bnx2x/a.fw", "/usr/lib/firmware/bnx2x/b.fw", "/usr/lib/firmware/tigon/tg3.bin"]
    {
        let holders = why(&contents, file).expect(file);
        let parts: Vec<&str> = holders.iter().map(|h| h.part.as_str()).collect();
        assert_eq!(parts, ["base", "initrd"], "{file}: a driver asks where it is loaded");
        assert!(holders.iter().all(|h| h.chain == ["firmware", "firmware"]), "{holders:?}");
        assert!(matches!(&holders[0].file.from, Origin::Package { name, .. } if name == "firmware"));
    }
    assert!(why(&contents, "/usr/lib/firmware/bnx2x/old.fw").is_err());
    let terms = why(&contents, "/usr/share/doc/firmware/copyright").expect("its terms go along");
    assert_eq!(terms.iter().map(|h| h.part.as_str()).collect::<Vec<_>>(), ["base"]);
    assert!(why(&contents, "/usr/share/doc/firmware/changelog").is_err());
    assert_eq!(notes(&bench), Vec::<String>::new());

    let bundle = Bundle::open(&report.bundle).expect("whole");
    for evidence in ["evidence/sbom.spdx.json", "evidence/sbom.cdx.json"] {
        let text = bundle.read_part(&evidence.parse().expect("a name")).expect("there");
        let text = String::from_utf8(text).expect("text");
        let said =
            "Debian non-free-firmware: not free software; the terms are in /usr/share/doc/firmware/copyright";
        assert_eq!(text.matches(said).count(), 1, "{evidence}");
    }
}

#[test]
fn firmware_that_is_missing_is_told_each_time_and_needed_firmware_is_refused() {
    // One file of two is enough for a driver that knows both.
    let bench = bench("", &[("./lib/firmware/bnx2x/b.fw", b"b")]);
    for _ in 0..2 {
        let notes = notes(&bench);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("tg3 has none of its 1 (tigon/tg3.bin)"), "{notes:?}");
        assert!(notes[0].contains("bnx2x lacks 1 of 2 (bnx2x/a.fw)"), "{notes:?}");
    }
    let none = self::bench("", &[("./lib/firmware/tigon/tg3.bin", b"tg3")]);
    let message = none.refused(&none.options());
    assert!(message.contains("module `bnx2x` do not start without firmware"), "{message}");
    assert!(message.contains("[firmware]") && message.contains("generic/server"), "{message}");
    // Who says so himself goes without, and is told all the same.
    let without = self::bench("\n[firmware]\npackages = []\n", &[]);
    assert!(notes(&without)[0].contains("bnx2x has none of its 2"));
}
