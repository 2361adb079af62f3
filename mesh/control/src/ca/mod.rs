//! The mesh's certificate authority: the root and how it is kept, workload certificates, and istiod's own.

mod authenticate;
mod authority;
mod root;

pub use authenticate::{AuthenticateError, Authenticator, Identity};
pub use authority::{Authority, CaError, CaPem, ServingCertificate};
pub use root::{CA_SECRET, PLUGGED_IN_FOLDER, RootError, load_or_create};
