//! The desired state: put into force, kept across restarts, and compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use kiln_model::api::{Applied, Apply};
use kiln_model::fleet::{Fleet, ZtpScript};
use kiln_model::{Format, Sha256};
use serde::Serialize;
use serde_json::Value;

use crate::api::ApiError;
use crate::config::FleetState;
use crate::db::DbError;
use crate::error::ServeError;
use crate::records::{FleetRecord, key};
use crate::server::Server;

impl Server {
    /// Puts another desired state into force, or only says what it would change.
    pub async fn apply(&self, asked: &Apply) -> Result<Applied, ApiError> {
        let _one_at_a_time = self.applying.lock().await;
        let refused = |e: crate::ConfigError| ApiError::bad_request(e.without_help(), e.help.clone());
        let fleet = FleetState::parse(Path::new("fleet.toml"), &asked.fleet).map_err(refused)?;
        fleet.check_server_address(&self.serve).map_err(refused)?;
        let changes = changes(self.fleet().fleet(), fleet.fleet());
        if asked.dry_run || (changes.is_empty() && self.fleet().text() == fleet.text()) {
            return Ok(Applied { changes, applied: !asked.dry_run });
        }
        let before: Option<FleetRecord> = self.db.get(key::FLEET).await?;
        let file = before.map_or_else(|| Sha256::of(b""), |record| record.file);
        self.keep_fleet(&fleet, file).await?;
        changes.iter().for_each(|change| tracing::info!("fleet: {change}"));
        let macs: Vec<_> = fleet.fleet().machines.iter().map(|m| m.mac).collect();
        self.set_fleet(fleet);
        for mac in macs {
            // Listed now, so not discovered any more.
            if self.db.get::<Value>(&key::discovered(mac)).await?.is_some() {
                self.db
                    .write(|draft| {
                        draft.delete(key::discovered(mac));
                        Ok(())
                    })
                    .await?;
            }
        }
        self.assign_all(crate::server::now()).await?;
        Ok(Applied { changes, applied: true })
    }

    /// At the start: the file when it is another one than last time, else what was applied since.
    pub async fn restore_fleet(&self) -> Result<(), ServeError> {
        let of_file = self.fleet();
        let digest = Sha256::of(of_file.text().as_bytes());
        let failed = |e: DbError| ServeError::Record(e.to_string());
        let record: Option<FleetRecord> = self.db.get(key::FLEET).await.map_err(failed)?;
        let Some(record) = record.filter(|r| r.file == digest) else {
            return self.keep_fleet(&of_file, digest).await.map_err(|e| ServeError::Record(e.to_string()));
        };
        if record.text == digest {
            return Ok(());
        }
        let path = self.blob(&record.text);
        let text = fs::read_to_string(&path).map_err(ServeError::file("read", &path))?;
        let applied = FleetState::parse(&path, &text)?;
        applied.check_server_address(&self.serve)?;
        tracing::info!("fleet: as applied last; fleet.toml has not changed since");
        self.set_fleet(applied);
        Ok(())
    }

    /// The text becomes a file named by its digest, then the record names it.
    async fn keep_fleet(&self, fleet: &FleetState, file: Sha256) -> Result<(), ApiError> {
        let text = Sha256::of(fleet.text().as_bytes());
        write_blob(&self.blob(&text), fleet.text().as_bytes()).map_err(ApiError::ours)?;
        let record = FleetRecord { format: Format, text, file };
        self.db.write(|draft| draft.put(key::FLEET, &record)).await?;
        Ok(())
    }

    fn blob(&self, digest: &Sha256) -> std::path::PathBuf {
        self.state.join("blobs").join(digest.to_string())
    }
}

/// A file appears under its name only when it is whole and on the disk.
fn write_blob(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    fs::File::open(folder)?.sync_all()
}

/// One line for each difference.
fn changes(before: &Fleet, after: &Fleet) -> Vec<String> {
    let mut lines = Vec::new();
    compare("boot", &flat(&before.boot), &flat(&after.boot), &mut lines);
    compare("rollout", &flat(&before.rollout), &flat(&after.rollout), &mut lines);
    let networks = |fleet: &Fleet| fleet.networks.iter().map(|n| (n.subnet.to_string(), flat(n))).collect();
    compare_lists("network", &networks(before), &networks(after), &mut lines);
    let ztp = |fleet: &Fleet| {
        let name = |z: &ZtpScript| format!("{} {}", z.system.as_str(), z.role).trim_end().to_owned();
        fleet.ztp.iter().map(|z| (name(z), flat(z))).collect()
    };
    compare_lists("ztp", &ztp(before), &ztp(after), &mut lines);
    let machines = |fleet: &Fleet| fleet.machines.iter().map(|m| (m.name.to_string(), flat(m))).collect();
    compare_lists("machine", &machines(before), &machines(after), &mut lines);
    lines
}

type Flat = BTreeMap<String, String>;

fn compare_lists(
    what: &str,
    before: &BTreeMap<String, Flat>,
    after: &BTreeMap<String, Flat>,
    lines: &mut Vec<String>,
) {
    lines.extend(
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {what} {name}")),
    );
    for (name, values) in after {
        match before.get(name) {
            None => lines.push(format!("+ {what} {name}")),
            Some(earlier) => compare(&format!("{what} {name}"), earlier, values, lines),
        }
    }
}

fn compare(what: &str, before: &Flat, after: &Flat, lines: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let shown = |value: Option<&String>| value.map_or("(none)".to_owned(), Clone::clone);
        let (old, new) = (before.get(key), after.get(key));
        if old != new {
            lines.push(format!("~ {what}: {key} {} -> {}", shown(old), shown(new)));
        }
    }
}

/// A value as paths and leaves.
fn flat<T: Serialize>(value: &T) -> Flat {
    let mut leaves = Flat::new();
    // These types have text for keys, so they are JSON.
    flatten(String::new(), &serde_json::to_value(value).unwrap_or_default(), &mut leaves);
    leaves
}

fn flatten(path: String, value: &Value, leaves: &mut Flat) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(path, value, leaves);
            }
        }
        Value::String(text) => {
            leaves.insert(path, text.clone());
        }
        other => {
            leaves.insert(path, other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(text: &str) -> Fleet {
        toml::from_str(text).expect("a fleet")
    }

    #[test]
    fn every_difference_is_one_line() {
        let machine = |name: &str, last: u8, asn: u32| {
            format!(
                "[[machine]]\nname = \"{name}\"\nmac = \"02:00:00:00:00:0{last}\"\nimage = \"edge\"\nvars = {{ asn = {asn} }}\n"
            )
        };
        let before = fleet(&format!("format = 1\n{}{}", machine("r1", 1, 65001), machine("r2", 2, 65002)));
        let after = fleet(&format!(
            "format = 1\nrollout = {{ soak_s = 5 }}\n{}{}",
            machine("r1", 1, 65011),
            machine("r3", 3, 65003)
        ));
        assert_eq!(
            changes(&before, &after),
            [
                "~ rollout: soak_s 60 -> 5",
                "- machine r2",
                "~ machine r1: vars.asn 65001 -> 65011",
                "+ machine r3",
            ]
        );
        assert!(changes(&before, &before).is_empty());
    }
}
