//! Images and their parts.

use std::fmt::Write as _;

use kiln_model::manifest::ImageRef;
use kiln_model::{Manifest, PartName};
use kiln_outputs::UKI_PART;
use kiln_outputs::budget::Budget;

use super::bytes;
use super::table::{Cell, table};
use crate::term::{Paint, Tone};

/// What a manifest says, and what each part weighs.
pub fn manifest(image: &ImageRef, manifest: &Manifest, paint: Paint) -> String {
    let is_evidence = |name: &PartName| name.as_str().starts_with("evidence/");
    let weight = |of: &dyn Fn(&PartName) -> bool| -> u64 {
        manifest.parts.iter().filter(|(name, _)| of(name)).map(|(_, part)| part.size).sum()
    };
    let total = weight(&|name| !is_evidence(name));
    let mut out = String::new();
    for (name, value) in [
        ("image", format!("{image} for {} ({})", manifest.arch, manifest.profile)),
        ("id", image.id.to_string()),
        ("lock", manifest.lock.to_string()),
        ("cmdline", manifest.cmdline.clone()),
        ("deadline", format!("healthy within {} s", manifest.health_deadline_s)),
        ("size", format!("{}, and {} of evidence", bytes(total), bytes(weight(&is_evidence)))),
        ("a boot", boots(manifest)),
    ] {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{:<9} {value}", format!("{name}:"));
    }
    let parts: Vec<[Cell; 5]> = manifest
        .parts
        .iter()
        .filter(|(name, _)| !is_evidence(name))
        .map(|(name, part)| {
            let verity = part.verity.as_ref().map_or_else(|| "-".to_owned(), |v| v.root_hash.short());
            let share = format!("{} %", part.size * 100 / total.max(1));
            let size = bytes(part.size);
            [name.to_string().into(), size.into(), share.into(), part.sha256.short().into(), verity.into()]
        })
        .collect();
    out += "\n";
    out += &table(["PART", "SIZE", "SHARE", "SHA-256", "VERITY ROOT"], &parts, "no parts", paint);
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

/// What one boot over the network fetches, by each way that the set has: kernel and initrd or the UKI, and then
/// every part that is mounted.
fn boots(manifest: &Manifest) -> String {
    let size = |name: &str| manifest.parts.iter().find(|(n, _)| n.as_str() == name).map(|(_, p)| p.size);
    let mounted: u64 = manifest.parts.values().filter(|p| p.verity.is_some()).map(|p| p.size).sum();
    let ipxe = size("vmlinuz").zip(size("initrd")).map(|(kernel, initrd)| kernel + initrd);
    let ways = [("by iPXE", ipxe), ("by its UKI", size(UKI_PART))];
    let ways = ways.iter().filter_map(|(way, size)| Some(format!("{} {way}", bytes((*size)? + mounted))));
    format!("fetches {}", ways.collect::<Vec<_>>().join(", "))
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
