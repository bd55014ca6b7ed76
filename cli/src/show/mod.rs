//! How things look: pure functions from the model's words to text.

pub mod alarm;
pub mod evidence;
pub mod hardware;
pub mod image;
pub mod lab;
pub mod machine;
pub mod rollout;
mod table;
pub mod test;
pub use table::table;
pub mod timeline;

use serde::Serialize;

use crate::args::{Format, Output};
use crate::failure::Failure;
use crate::term::Paint;

/// Prints `value` as it was asked for.
pub fn print<T: Serialize + ?Sized>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T, Paint) -> String,
) -> Result<(), Failure> {
    match output.output {
        Format::Table => print!("{}", table(value, Paint::stdout())),
        Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

/// A number of bytes for people: `12 B`, `3.4 MB` (powers of 1000).
pub fn bytes(count: u64) -> String {
    let mut unit = "B";
    // Precision beyond two digits is not shown.
    #[expect(clippy::cast_precision_loss)]
    let mut value = count as f64;
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A length of time for people: `850 ms`, `4.2 s`, `3 min`, `2 h`, `5 d`.
pub fn span(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..120_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(3_450_000), "3.5 MB");
        assert_eq!(span(999), "999 ms");
        assert_eq!(span(61_250), "61.2 s");
        assert_eq!(span(7_199_999), "119 min");
        assert_eq!(span(400_000_000), "4 d");
    }
}
