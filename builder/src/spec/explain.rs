//! The effective spec: every value, and the line that set it.

use std::collections::BTreeSet;

use kiln_model::function::Sandbox;
use serde::Serialize;

use super::{ASSUMED, Document, FunctionSpec, LoadedFunction, Spec, TEMPLATES, template_name};

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
    pub fn explain(&self) -> Vec<Setting> {
        let written = settings(&self.document, "");
        let of_image = |s: &&Setting| !s.key.starts_with("function.");
        let mut all: Vec<Setting> = written.iter().filter(of_image).cloned().collect();
        self.add_defaults(&mut all);
        for (name, function) in &self.functions {
            let prefix = format!("function.{name}.");
            let of_function = settings(&function.document, &prefix);
            all.extend(of_function.iter().cloned());
            all.extend(sandbox_defaults(&prefix, &all, &function.spec.sandbox));
            all.extend(self.templates(name.as_str(), function, &of_function, &written));
        }
        all.push(Setting::new("assumed", toml_list(ASSUMED), "built in"));
        all
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
        if !keys.contains("firmware.packages") {
            let packages = toml_list(&self.profile.firmware.packages);
            all.push(Setting::new("firmware.packages", packages, &profile));
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
        of_function: &[Setting],
        of_image: &[Setting],
    ) -> Vec<Setting> {
        let FunctionSpec { configs, .. } = &function.spec;
        let names = configs.iter().filter_map(|config| template_name(&config.template));
        let setting = |template: &str| {
            let key = format!("function.{name}.template.{template}");
            let value = quoted(&format!("{TEMPLATES}/{template}"));
            let put_in_place = format!("function.{name}.templates.{template}");
            let by_image = of_image.iter().find(|s| s.key == put_in_place);
            let by_function = || of_function.iter().find(|s| s.value == value);
            let from = by_image.or_else(by_function).map(|s| s.from.clone()).unwrap_or_default();
            let file = function.found.get(template).cloned().unwrap_or_default();
            Setting::new(&key, quoted(&file.display().to_string()), &from)
        };
        names.map(setting).collect()
    }
}

/// What a document's files set.
fn settings(document: &Document, prefix: &str) -> Vec<Setting> {
    let written = document.values().into_iter().filter(|written| written.key != "format");
    written.map(|w| Setting { key: format!("{prefix}{}", w.key), value: w.value, from: w.from }).collect()
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

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn toml_list<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word.as_ref())).collect();
    format!("[{}]", words.join(", "))
}
