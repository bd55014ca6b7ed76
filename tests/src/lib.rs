//! End-to-end, contract and bench drivers: real firmware, kernels, packages, clients and wires.
