//! The functions of the image: their configuration as it was rendered, their roots and control groups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_model::format::Format;
use kiln_model::function::{Function, Network, Sandbox};
use kiln_model::{FunctionName, Intent};

use super::{find, render, roots};
use crate::cmdline::BootParameters;
use crate::slot::{self, Slot};

/// Where functions' images are mounted.
const IMAGES: &str = "/run/kiln/fn";
/// Where their roots are built.
const ROOTS: &str = "/run/kiln/root";
/// Where their rendered configuration is.
const CONFIGS: &str = "/run/kiln/config";
const NETWORKS: &str = "/run/kiln/net";
const CGROUPS: &str = "/sys/fs/cgroup/fn";

/// Every function of the image.
pub struct Functions {
    specs: Vec<Function>,
    parameters: BootParameters,
    rendered: BTreeMap<FunctionName, Vec<String>>,
}

/// Where a function's root is built.
pub fn root(function: &FunctionName) -> PathBuf {
    Path::new(ROOTS).join(function.as_str())
}

/// A function's control group.
pub fn cgroup(function: &FunctionName) -> PathBuf {
    Path::new(CGROUPS).join(function.as_str())
}

/// Where a function's own network namespace is kept.
pub fn network(function: &FunctionName) -> PathBuf {
    Path::new(NETWORKS).join(function.as_str())
}

impl Functions {
    pub fn new(specs: &[Function], parameters: BootParameters) -> Self {
        Self { specs: specs.to_vec(), parameters, rendered: BTreeMap::new() }
    }

    /// One of them.
    pub fn get(&self, name: &FunctionName) -> Option<&Function> {
        find(&self.specs, name)
    }

    /// Renders a function's configuration, builds its root and its control group.
    pub fn prepare(&mut self, name: &FunctionName, intent: &Intent) -> Result<(), String> {
        let function = find(&self.specs, name).ok_or_else(|| format!("{name} is not in this image"))?;
        let texts = render_all(function, intent, &self.parameters)?;
        let folder = Path::new(CONFIGS).join(name.as_str());
        let configs = function.configs.iter().zip(&texts).map(|(config, text)| (config.path.as_str(), text));
        let image = Path::new(IMAGES).join(name.as_str());
        roots::build(&image, &root(name), &folder, &function.sandbox, configs).map_err(|e| e.to_string())?;
        control_group(function).map_err(|why| format!("its control group: {why}"))?;
        self.rendered.insert(name.clone(), texts);
        Ok(())
    }

    /// The functions whose configuration `intent` makes different.
    pub fn changed(&self, intent: &Intent) -> Result<BTreeSet<FunctionName>, String> {
        let mut changed = BTreeSet::new();
        for function in &self.specs {
            let texts = render_all(function, intent, &self.parameters)?;
            // One that was started by a daemon before this one is compared with what that one wrote.
            let before = self.rendered.get(&function.name).cloned().or_else(|| self.written(function));
            if before.as_ref() != Some(&texts) {
                changed.insert(function.name.clone());
            }
        }
        Ok(changed)
    }

    fn written(&self, function: &Function) -> Option<Vec<String>> {
        let folder = Path::new(CONFIGS).join(function.name.as_str());
        let read = |at: usize| std::fs::read_to_string(folder.join(at.to_string())).ok();
        (0..function.configs.len()).map(read).collect()
    }

    /// Writes down what `sandbox` needs to start a command in a function's walls.
    pub fn write_slot(
        &self,
        name: &str,
        function: &FunctionName,
        command: &[String],
    ) -> Result<PathBuf, String> {
        let spec = self.get(function).ok_or_else(|| format!("{function} is not in this image"))?;
        let output = Path::new(slot::FOLDER).join(format!("{name}.out"));
        let slot = Slot {
            format: Format,
            function: function.clone(),
            command: command.to_vec(),
            root: root(function),
            cgroup: cgroup(function),
            output: output.clone(),
            capabilities: spec.sandbox.capabilities.iter().copied().collect(),
            network: spec.sandbox.network,
            network_namespace: network(function),
            seccomp: spec.sandbox.seccomp,
            writable: spec.sandbox.writable.iter().cloned().collect(),
            env: spec.sandbox.env.clone(),
        };
        crate::boot::save(&Slot::path(name), &slot).map_err(|why| format!("its slot: {why}"))?;
        Ok(output)
    }

    /// Whether a function has a network of its own.
    pub fn own_network(&self, function: &FunctionName) -> bool {
        self.get(function).is_some_and(|f| f.sandbox.network == Network::None)
    }
}

fn render_all(
    function: &Function,
    intent: &Intent,
    parameters: &BootParameters,
) -> Result<Vec<String>, String> {
    let image = Path::new(IMAGES).join(function.name.as_str());
    let values = render::values(parameters, &intent.config);
    let one = |config: &kiln_model::function::Config| {
        let template = roots::read_inside(&image, &config.template)
            .map_err(|why| format!("{}: {}: {why}", function.name, config.template))?;
        render::render(&config.template, &template, &values)
            .map_err(|why| format!("{}: {why}", function.name))
    };
    function.configs.iter().map(one).collect()
}

fn control_group(function: &Function) -> std::io::Result<()> {
    let folder = cgroup(&function.name);
    std::fs::create_dir_all(&folder)?;
    std::fs::create_dir_all(NETWORKS)?;
    std::fs::create_dir_all(slot::FOLDER)?;
    let or = |limit: u64, default: u64| if limit == 0 { default } else { limit };
    let memory = or(function.sandbox.memory_max, Sandbox::MEMORY_DEFAULT);
    let tasks = or(function.sandbox.tasks_max.into(), Sandbox::TASKS_DEFAULT.into());
    std::fs::write(folder.join("memory.max"), memory.to_string())?;
    // A limit that swap could stretch is none. A kernel without swap does not have the file.
    match std::fs::write(folder.join("memory.swap.max"), "0") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // When memory runs out the function ends as a whole, not one process of it at random.
    std::fs::write(folder.join("memory.oom.group"), "1")?;
    std::fs::write(folder.join("pids.max"), tasks.to_string())
}
