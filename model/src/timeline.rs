//! The steps of one boot, from DISCOVER to healthy, as the provisioner and the agent see them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::BootId;
use crate::time::UnixMillis;

/// One thing that was seen of a machine while it booted or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When, by the provisioner's clock.
    pub at: UnixMillis,
    /// In which boot. The firmware's first packets come before a boot has an id.
    pub boot: Option<BootId>,
    /// What was seen.
    pub step: Step,
    /// For people: a file's name, an address, a reason.
    pub detail: String,
}

macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $side:ident;)*) => {
        /// The steps of a boot, in the order in which a boot goes through them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step { $($(#[$doc])* $variant,)* }

        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The step in words.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Who sees it.
            pub const fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }
        }
    };
}

/// Who sees a step happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The provisioner, on the wire.
    Provisioner,
    /// The agent, on the box.
    Agent,
}

steps! {
    /// A DHCPDISCOVER was received.
    Discover = "DHCP discover", Provisioner;
    /// A DHCPOFFER was sent.
    Offer = "DHCP offer", Provisioner;
    /// A DHCPREQUEST was received.
    Request = "DHCP request", Provisioner;
    /// A DHCPACK was sent, after its lease was durable.
    Ack = "DHCP ack", Provisioner;
    /// A DHCPNAK was sent.
    Nak = "DHCP nak", Provisioner;
    /// The client found somebody else on its address.
    Decline = "DHCP decline", Provisioner;
    /// A TFTP transfer began.
    TftpStart = "TFTP start", Provisioner;
    /// A TFTP transfer ended well.
    TftpDone = "TFTP done", Provisioner;
    /// A TFTP transfer was given up.
    TftpFailed = "TFTP failed", Provisioner;
    /// A file was asked for by TFTP that is not there.
    TftpNotFound = "TFTP not found", Provisioner;
    /// A boot loader or a whole UKI was fetched by HTTP.
    Loader = "loader fetched", Provisioner;
    /// An answer without anything to boot was sent to a firmware that asked for it.
    NothingToBoot = "nothing to boot", Provisioner;
    /// An HTTP transfer ended before its last byte.
    HttpStopped = "HTTP stopped", Provisioner;
    /// An installer was served to ONIE.
    Installer = "installer served", Provisioner;
    /// A first-boot script was served to an operating system that is not ours.
    Ztp = "ZTP script", Provisioner;
    /// A boot script was served. This spends a try.
    Script = "boot script", Provisioner;
    /// The kernel was fetched.
    Kernel = "kernel fetched", Provisioner;
    /// The initrd was fetched.
    Initrd = "initrd fetched", Provisioner;
    /// Process 1 runs.
    Stage0 = "stage 0 started", Agent;
    /// The box has its address and a route to the provisioner.
    NetworkUp = "network up", Agent;
    /// The intent's signature, machine, generation and expiry are right.
    IntentVerified = "intent verified", Agent;
    /// The TUF metadata chain is right.
    MetadataVerified = "metadata verified", Agent;
    /// The manifest is signed and is the one that intent and metadata name.
    ManifestVerified = "manifest verified", Agent;
    /// One part has the length and digest that the manifest states.
    PartVerified = "part verified", Agent;
    /// One part is mounted through dm-verity.
    PartMounted = "part mounted", Agent;
    /// The signed base took over from the initrd.
    BaseStarted = "base started", Agent;
    /// A function's processes were started.
    FunctionStarted = "function started", Agent;
    /// All processes of a function are ready.
    FunctionReady = "function ready", Agent;
    /// Every function is healthy. This earns the try back.
    Healthy = "healthy", Agent;
    /// A part was refused: the boot stops here.
    Refused = "refused", Agent;
    /// The boot failed for another reason than a refused part.
    Failed = "failed", Agent;
    /// The machine fell back to its last good image.
    FellBack = "fell back", Provisioner;
    /// Traffic is being taken away.
    Draining = "draining", Agent;
    /// No traffic goes through the box any more.
    Drained = "drained", Agent;
    /// The box reboots.
    Rebooting = "rebooting", Agent;
    /// A machine that is not in the fleet told what it is made of.
    Inventory = "inventory", Agent;
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
