//! Keys, roles, pure verification (TUF 1.0), bundle and repository layout.
