//! RequestAuthentication: filled in next.
