//! Capabilities: all are given up but those that the signed manifest names (capabilities(7)).

use kiln_model::function::Capability;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::{SandboxError, failed};

/// The kernel's last capability is below this in every version for years to come.
const NUMBERS: u8 = 64;

/// Keeps only `wanted`, in every set: a daemon that becomes a lesser user keeps them by its own choice,
/// and nothing it executes can gain any.
pub fn keep_only(wanted: &[Capability]) -> Result<(), SandboxError> {
    let kept = set_of(wanted);
    for number in 0..NUMBERS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel does not know so many.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(failed("giving up capabilities")(error)),
        }
    }
    clear_ambient_capability_set().map_err(failed("giving up capabilities"))?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).map_err(failed("keeping its capabilities"))?;
    for capability in wanted {
        configure_capability_in_ambient_set(set_of(&[*capability]), true)
            .map_err(failed(format!("keeping {}", capability.as_str())))?;
    }
    Ok(())
}

fn set_of(capabilities: &[Capability]) -> CapabilitySet {
    let bits = capabilities.iter().fold(0, |bits, capability| bits | 1 << capability.number());
    CapabilitySet::from_bits_retain(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_the_kernels_bit() {
        assert_eq!(
            set_of(&[Capability::NetAdmin, Capability::NetRaw]),
            CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW
        );
        assert!(set_of(&[]).is_empty());
        assert_eq!(set_of(&[Capability::SysTime]), CapabilitySet::SYS_TIME);
    }
}
