//! The figures: as a table for people and as JSON for the next run to compare with.

use serde::Serialize;

/// One figure of ours beside a peer's.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Ours.
    pub ours: f64,
    /// The peer's, from the same run.
    pub peer: f64,
    /// Who that is.
    pub peer_name: String,
    /// Ours divided by the peer's.
    pub ratio: f64,
    /// Which way is better.
    pub better: Better,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More of it.
    Higher,
    /// Less of it.
    Lower,
}

impl Figure {
    /// Puts two numbers side by side.
    pub fn new(
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        ours: f64,
        (peer_name, peer): (&str, f64),
    ) -> Self {
        let ratio = if peer > 0.0 { ours / peer } else { 0.0 };
        Self { name: name.into(), unit, ours, peer, peer_name: peer_name.to_owned(), ratio, better }
    }
}

impl Figure {
    /// A number that stands beside no other.
    pub fn alone(name: impl Into<String>, unit: &'static str, better: Better, ours: f64) -> Self {
        Self { name: name.into(), unit, ours, peer: 0.0, peer_name: String::new(), ratio: 0.0, better }
    }
}

/// The table.
pub fn print(figures: &[Figure]) {
    println!("{:<52} {:>12} {:>12}  {:<14} {:>7}", "", "ours", "peer", "", "ratio");
    for f in figures {
        let name = format!("{} [{}]", f.name, f.unit);
        if f.peer_name.is_empty() {
            println!("{name:<52} {:>12.3}", f.ours);
            continue;
        }
        let good = match f.better {
            Better::Higher => f.ratio >= 1.0,
            Better::Lower => f.ratio <= 1.0,
        };
        let mark = if good { "" } else { "  behind" };
        println!("{name:<52} {:>12.3} {:>12.3}  {:<14} {:>6.2}×{mark}", f.ours, f.peer, f.peer_name, f.ratio);
    }
}
