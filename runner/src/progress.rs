//! How far the learner is. Written after every change, so that it survives a crash and an upgrade.

use std::collections::BTreeSet;
use std::path::PathBuf;

use meshlab_checks::{Lab, Language, Step};
use serde::{Deserialize, Serialize};

use crate::error::CommandError;
use crate::home::{Home, read_json, write_json};

/// `progress.json`. Unknown fields of a newer version are kept out of the way, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    /// Lab.
    pub lab: String,
    /// The folder that the lab is from, if it is not compiled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labs: Option<PathBuf>,
    /// Id of the step the learner is at.
    pub step: String,
    /// Where the learner's files are.
    pub workdir: PathBuf,
    /// Language.
    pub language: Language,
    /// Ids of the steps that passed once.
    #[serde(default)]
    pub passed: BTreeSet<String>,
    /// Hints shown so far, by step.
    #[serde(default)]
    pub hints: std::collections::BTreeMap<String, usize>,
}

impl Progress {
    /// At the first step.
    ///
    /// # Panics
    /// When the lab has no steps, which its linter refuses.
    pub(crate) fn new(lab: &Lab, workdir: PathBuf, language: Language) -> Self {
        let first = lab.steps.first().expect("a lab has steps");
        Self {
            lab: lab.file.name.clone(),
            labs: None,
            step: first.file.id.clone(),
            workdir,
            language,
            passed: BTreeSet::new(),
            hints: std::collections::BTreeMap::new(),
        }
    }

    /// The progress kept in `home`, if there is any.
    ///
    /// # Errors
    /// The file is damaged; the message names it.
    pub(crate) fn load(home: &Home) -> Result<Option<Self>, CommandError> {
        read_json(&home.progress())
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, home: &Home) -> Result<(), CommandError> {
        write_json(&home.progress(), self)
    }

    /// The step the learner is at; the first one if the lab no longer has it.
    ///
    /// # Panics
    /// When the lab has no steps, which its linter refuses.
    pub(crate) fn current<'a>(&self, lab: &'a Lab) -> &'a Step {
        lab.step(&self.step).or_else(|| lab.steps.first()).expect("a lab has steps")
    }
}
