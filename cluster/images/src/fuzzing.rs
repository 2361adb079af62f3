//! The parsers of what a learner writes, for the fuzz targets in `fuzz/`.

use meshlab_program::FileSystem;

use crate::nginx;
use crate::shell;

/// A script, and each of its parts as what else it could be.
pub fn shell(text: &str) {
    shell::parse_all(text);
    let _ = shell::decode_escapes(text);
    let _ = shell::pattern_regex(text, true);
}

/// nginx's configuration file.
pub fn nginx_conf(text: &str) {
    let fs = FileSystem::default();
    if fs.create_dir_all("/etc/nginx").is_ok() && fs.write("/etc/nginx/nginx.conf", text.to_owned()).is_ok() {
        nginx::load(&fs, "/etc/nginx/nginx.conf");
    }
}
