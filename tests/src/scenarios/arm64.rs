//! Machines of another architecture than this one's: everything is emulated, and nothing else is otherwise.

use std::env;
use std::path::Path;

use kiln_model::timeline::Step;

use super::{healthy, lab_up, machine, policy, prepare, went};
use crate::Args;
use crate::demo::{Demo, Failed};

/// The images, as folders of `images/`.
const TIME_SERVER: &str = "time-server-arm64";
const EDGE_ROUTER: &str = "edge-router-arm64";
/// What plays such a machine, and its firmware.
const QEMU: &str = "qemu-system-aarch64";
const FIRMWARE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";

/// What is not here of what these scenarios need.
pub fn lacks(args: &Args) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let has_qemu = env::split_paths(&path).any(|folder| folder.join(QEMU).is_file());
    match &args.agent_arm64 {
        None => Some("--agent-arm64 names no agent; `make agent-arm64` builds it".to_owned()),
        Some(agent) if !agent.is_file() => {
            Some(format!("{} is not there; `make agent-arm64` builds it", agent.display()))
        }
        Some(_) if !has_qemu => Some(format!("no {QEMU} here; `./setup.sh arm64` installs it")),
        Some(_) if !Path::new(FIRMWARE).is_file() => {
            Some(format!("no {FIRMWARE} here; `./setup.sh arm64` installs it"))
        }
        Some(_) => None,
    }
}

/// Architecture 19 of option 93.
pub fn http(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, TIME_SERVER, "arm64", &(policy("") + &machine("")))?;
    lab_up(demo, "arch = \"arm64\"\nfirmware = \"uefi-http\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::Loader, Step::Stage0], &[Step::TftpStart, Step::Kernel])
}

/// Architecture 11. There is no iPXE for it in Debian: firmware takes the UKI.
pub fn pxe(demo: &mut Demo) -> Result<(), Failed> {
    prepare(demo, TIME_SERVER, "arm64", &(policy("") + &machine("")))?;
    lab_up(demo, "arch = \"arm64\"\nfirmware = \"uefi-pxe\"")?;
    let timeline = healthy(demo)?;
    went(demo, &timeline, &[Step::TftpDone, Step::Stage0], &[Step::Loader, Step::Kernel])
}

/// A router is healthy when its neighbour is: two of them, booted and judged by `kiln test`.
pub fn routers(demo: &mut Demo) -> Result<(), Failed> {
    let dir = demo.fleet.dir().display().to_string();
    demo.kiln.type_in(&["init", &dir, "--lab"])?;
    demo.fleet.mark()?;
    demo.kiln.run(&["bake", EDGE_ROUTER])?;
    let bundle = demo.fleet.dir().join("bundles/edge-router-1-arm64.kiln");
    demo.check_bundle_size(&bundle)?;
    let bundle = bundle.display().to_string();
    demo.kiln.run(&["inspect", &bundle])?;
    let said = demo.kiln.run(&["test", &bundle, "--machine", "r1", "--machine", "r2"])?;
    demo.check("both are healthy, FRR among it", said.matches("fn/frr").count() == 2, || said.clone())
}
