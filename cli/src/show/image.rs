//! Images and their parts.

use std::fmt::Write as _;

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, PartName};
use kiln_outputs::budget::Budget;

use super::bytes;
use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// What a manifest says.
pub fn manifest(image: &ImageRef, manifest: &Manifest, paint: Paint) -> String {
    let is_evidence = |name: &PartName| name.as_str().starts_with("evidence/");
    let sizes = manifest.parts.iter().filter(|(name, _)| !is_evidence(name));
    let total: u64 = sizes.map(|(_, part)| part.size).sum();
    let mut out = String::new();
    for (name, value) in [
        ("image", format!("{image} for {} ({})", manifest.arch, manifest.profile)),
        ("id", image.id.to_string()),
        ("lock", manifest.lock.to_string()),
        ("cmdline", manifest.cmdline.clone()),
        ("deadline", format!("healthy within {} s", manifest.health_deadline_s)),
        ("size", bytes(total)),
    ] {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{:<9} {value}", format!("{name}:"));
    }
    let parts: Vec<[Cell; 4]> = manifest
        .parts
        .iter()
        .filter(|(name, _)| !is_evidence(name))
        .map(|(name, part)| {
            let verity = part.verity.as_ref().map_or_else(|| "-".to_owned(), |v| v.root_hash.short());
            [name.to_string().into(), bytes(part.size).into(), part.sha256.short().into(), verity.into()]
        })
        .collect();
    out += "\n";
    out += &table(["PART", "SIZE", "SHA-256", "VERITY ROOT"], &parts, "no parts", paint);
    let evidence = manifest.parts.iter().filter(|(name, _)| is_evidence(name)).map(|(name, part)| {
        let is = match name.as_str() {
            kiln_builder::evidence::FILES => "every file and what brought it",
            kiln_builder::evidence::PROVENANCE => "SLSA v1 provenance: what it was made from",
            kiln_builder::evidence::SPDX => "SPDX 2.3 bill of materials",
            kiln_builder::evidence::CYCLONEDX => "CycloneDX 1.6 bill of materials",
            _ => "-",
        };
        [name.to_string().into(), bytes(part.size).into(), part.sha256.short().into(), is.into()]
    });
    let evidence: Vec<[Cell; 4]> = evidence.collect();
    out += "\n";
    out += &table(["EVIDENCE", "SIZE", "SHA-256", "IS"], &evidence, "no evidence", paint);
    let functions: Vec<[Cell; 3]> = manifest.functions.iter().map(function).collect();
    out += "\n";
    out + &table(["FUNCTION", "PROCESSES", "MAY"], &functions, "no functions", paint)
}

/// What must fit into the machine, and whether it does.
pub fn budgets(budgets: &[Budget], paint: Paint) -> String {
    let row = |budget: &Budget| {
        let verdict = match (budget.fits(), budget.hard) {
            (true, _) => Cell::from(format!("{} %", budget.used * 100 / budget.limit.max(1))),
            (false, true) => Cell::toned(Tone::Bad, format!("too large: {}", budget.remedy)),
            (false, false) => Cell::toned(Tone::Busy, format!("not for all: {}", budget.remedy)),
        };
        [budget.name.into(), bytes(budget.used).into(), bytes(budget.limit).into(), verdict]
    };
    let rows: Vec<[Cell; 4]> = budgets.iter().map(row).collect();
    format!("\n{}", table(["BUDGET", "TAKES", "ROOM FOR", "USED"], &rows, "no budgets", paint))
}

fn function(function: &kiln_model::function::Function) -> [Cell; 3] {
    let names: Vec<&str> = function.processes.iter().map(|process| process.name.as_str()).collect();
    let may: Vec<&str> = function.sandbox.capabilities.iter().map(|c| c.as_str()).collect();
    let may = if may.is_empty() { "nothing".to_owned() } else { may.join(" ") };
    [function.name.to_string().into(), names.join(" ").into(), may.into()]
}
