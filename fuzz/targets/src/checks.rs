//! Labs.

use meshlab_checks::{Lab, LabSource};

/// A lab with one step, whose checks are this text.
struct Source<'a>(&'a str);

impl LabSource for Source<'_> {
    fn read(&self, path: &str) -> Option<String> {
        match path {
            "lab.yaml" => Some(LAB.to_owned()),
            path if path.ends_with(".md") => Some("text".to_owned()),
            path if path.ends_with("checks.yaml") => Some(self.0.to_owned()),
            _ => None,
        }
    }

    fn list(&self, _folder: &str) -> Vec<String> {
        Vec::new()
    }
}

const LAB: &str = "{format: 1, name: fuzz, title: {ja: a, en: a}, application: [], namespaces: [web], clients: {}, \
                   steps: [{id: one, folder: one, title: {ja: a, en: a}, files: []}]}";

/// The checks of a lab's step.
pub(crate) fn check_file(text: &str) {
    if let Ok(lab) = Lab::load(&Source(text)) {
        lab.lint();
    }
}
