//! End-to-end tests with real clients; everything is in `tests/`.
