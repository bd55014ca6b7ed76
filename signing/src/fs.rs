//! The few file operations that must survive a power cut.
