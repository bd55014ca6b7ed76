//! What a machine boots: one pure function of machine, firmware, intent and boot ledger.
