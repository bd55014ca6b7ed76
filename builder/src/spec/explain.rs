//! The effective spec: every value, and the line that set it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kiln_model::function::Sandbox;
use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::read::SpecError;
use super::{ASSUMED, FunctionSpec, LoadedFunction, Spec, TEMPLATES, template_name};

/// One value of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key: `health_deadline_s`, `function.frr.sandbox.capabilities`.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Who set it: `images/edge-router/image.toml:7`, `profile generic/vm`, `default`.
    pub from: String,
}

impl Spec {
    /// Every value of the spec and where it came from: what is written, and what holds because nothing is.
    pub fn explain(&self) -> Result<Vec<Setting>, SpecError> {
        let written = Written::read(&self.file)?;
        let mut all: Vec<Setting> =
            written.settings("").filter(|s| s.key != "format" && !s.key.starts_with("function.")).collect();
        self.add_defaults(&mut all);
        for (name, function) in &self.functions {
            let file = self.images().join("functions").join(format!("{name}.toml"));
            let prefix = format!("function.{name}.");
            let of_function = Written::read(&file)?;
            all.extend(of_function.settings(&prefix).filter(|s| s.key != format!("{prefix}format")));
            all.extend(sandbox_defaults(&prefix, &all, &function.spec.sandbox));
            all.extend(self.templates(name.as_str(), function, &of_function, &written));
        }
        all.push(Setting::new("assumed", toml_list(ASSUMED), "built in"));
        Ok(all)
    }

    fn add_defaults(&self, all: &mut Vec<Setting>) {
        let keys: BTreeSet<String> = all.iter().map(|s| s.key.clone()).collect();
        let image = &self.image;
        if !keys.contains("health_deadline_s") {
            all.push(Setting::new("health_deadline_s", image.health_deadline_s.to_string(), "default"));
        }
        if !keys.contains("loader.package") {
            all.push(Setting::new("loader.package", quoted(&image.loader.package), "default"));
        }
        let profile = format!("profile {}", image.profile);
        let kernel = &self.profile.kernel;
        if !keys.contains("kernel.package") {
            all.push(Setting::new("kernel.package", quoted(&kernel.package), &profile));
        }
        // The image's own words are added to these.
        all.push(Setting::new("profile.cmdline", quoted(&self.profile.cmdline()), &profile));
        all.push(Setting::new("profile.initrd_modules", toml_list(&kernel.initrd_modules), &profile));
        all.push(Setting::new("profile.base_modules", toml_list(&kernel.base_modules), &profile));
    }

    /// Which file each template is, and who says so.
    fn templates(
        &self,
        name: &str,
        function: &LoadedFunction,
        of_function: &Written,
        of_image: &Written,
    ) -> Vec<Setting> {
        let FunctionSpec { configs, .. } = &function.spec;
        let overrides = self.image.function_overrides.iter().find(|(other, _)| other.as_str() == name);
        let names = configs.iter().filter_map(|config| template_name(&config.template));
        let setting = |template: &str| {
            let key = format!("function.{name}.template.{template}");
            let put_in_place = overrides.and_then(|(_, o)| o.templates.get(template));
            let (file, from) = match put_in_place {
                Some(file) => {
                    let written = of_image.settings("").find(|s| {
                        s.key.starts_with(&format!("function.{name}.templates")) && s.key.ends_with(template)
                    });
                    let folder = self.file.parent().unwrap_or(Path::new("."));
                    (folder.join(file), written.map(|s| s.from))
                }
                None => {
                    let value = quoted(&format!("{TEMPLATES}/{template}"));
                    let written = of_function.settings("").find(|s| s.value == value);
                    (self.images().join("functions").join(name).join(template), written.map(|s| s.from))
                }
            };
            Setting::new(&key, quoted(&file.display().to_string()), &from.unwrap_or_default())
        };
        names.map(setting).collect()
    }

    /// The folder that the image's own folder is in.
    fn images(&self) -> PathBuf {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        match (folder.file_name(), folder.parent()) {
            (Some(_), Some(above)) => above.to_owned(),
            _ => folder.join(".."),
        }
    }
}

impl Setting {
    fn new(key: &str, value: String, from: &str) -> Self {
        Self { key: key.to_owned(), value, from: from.to_owned() }
    }
}

/// What a function may do because its spec does not say otherwise.
fn sandbox_defaults(prefix: &str, there: &[Setting], sandbox: &Sandbox) -> Vec<Setting> {
    let effective = Sandbox {
        memory_max: if sandbox.memory_max == 0 { Sandbox::MEMORY_DEFAULT } else { sandbox.memory_max },
        tasks_max: if sandbox.tasks_max == 0 { Sandbox::TASKS_DEFAULT } else { sandbox.tasks_max },
        ..sandbox.clone()
    };
    let values = serde_json::to_value(&effective).unwrap_or_default();
    let fields = values.as_object().into_iter().flatten();
    let defaults = fields.map(|(field, value)| {
        Setting::new(&format!("{prefix}sandbox.{field}"), value.to_string(), "default")
    });
    defaults.filter(|s| !there.iter().any(|other| other.key == s.key)).collect()
}

/// A file's values with their lines.
struct Written {
    values: Vec<Setting>,
}

impl Written {
    fn read(file: &Path) -> Result<Self, SpecError> {
        let whole = |problem: String| SpecError::whole(file, problem);
        let text = std::fs::read_to_string(file).map_err(|e| whole(format!("cannot be read: {e}")))?;
        let table = DeTable::parse(&text).map_err(|e| whole(e.message().to_owned()))?;
        let mut values = Vec::new();
        for (key, value) in table.get_ref() {
            walk(key.get_ref(), value, &mut |key, span| {
                let line = text[..span.start].matches('\n').count() + 1;
                let value = text[span].split_whitespace().collect::<Vec<_>>().join(" ");
                values.push(Setting::new(key, value, &format!("{}:{line}", file.display())));
            });
        }
        Ok(Self { values })
    }

    fn settings<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Setting> + 'a {
        self.values.iter().map(move |s| Setting { key: format!("{prefix}{}", s.key), ..s.clone() })
    }
}

/// Tables and lists of tables are gone into; everything else is one value.
fn walk(key: &str, value: &toml::Spanned<DeValue<'_>>, found: &mut dyn FnMut(&str, std::ops::Range<usize>)) {
    match value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                walk(&format!("{key}.{}", name.get_ref()), value, found);
            }
        }
        DeValue::Array(list) if list.iter().any(|v| matches!(v.get_ref(), DeValue::Table(_))) => {
            for (at, value) in list.iter().enumerate() {
                let name = match value.get_ref() {
                    DeValue::Table(table) => table.get("name").and_then(|n| n.get_ref().as_str()),
                    _ => None,
                };
                let name = name.map_or_else(|| (at + 1).to_string(), str::to_owned);
                walk(&format!("{key}.{name}"), value, found);
            }
        }
        _ => found(key, value.span()),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn toml_list<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    format!("[{}]", words.join(", "))
}
