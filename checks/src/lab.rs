//! A lab: steps, files, checks and the cast of clients. Data only; whoever loads it says where the files are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Check, CheckFile, Language, LogProbe, Mode, Probe, Text, TracesProbe, assertion};

/// The newest lab format this version understands.
pub const FORMAT: u32 = 1;

/// `lab.yaml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabFile {
    /// Format of this folder; a newer one than [`FORMAT`] is refused.
    pub format: u32,
    /// `phase3`.
    pub name: String,
    /// Title.
    pub title: Text,
    /// Manifests of the sample application, applied in this order when the lab starts.
    pub application: Vec<String>,
    /// Namespaces that belong to the learner: `reset` brings them back.
    pub namespaces: Vec<String>,
    /// Client name → the pods that send its requests.
    pub clients: BTreeMap<String, Client>,
    /// Steps in order.
    pub steps: Vec<StepFile>,
    /// Background pages: `background/ID.LANG.md`.
    #[serde(default)]
    pub pages: Vec<PageFile>,
}

/// A background page in `lab.yaml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PageFile {
    /// What it is called by.
    pub id: String,
    /// Title.
    pub title: Text,
}

/// Pods that send the requests of a check.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Client {
    /// Namespace.
    pub namespace: String,
    /// Labels; the first ready pod is taken.
    pub label_selector: String,
    /// What it stands for.
    pub title: Text,
}

/// A step in `lab.yaml`; its folder holds `text.LANG.md`, `debrief.LANG.md`, `hints.LANG.md`, `picture.LANG.svg`, `checks.yaml`,
/// `starter/`, `solution/` and `controls/`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepFile {
    /// `setup`.
    pub id: String,
    /// Other names it is called by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Folder, relative to the lab.
    pub folder: String,
    /// Title.
    pub title: Text,
    /// The learner's files, in the order they are applied.
    pub files: Vec<String>,
    /// Namespaces whose Deployments are restarted after the step is solved or reset, because it changes what is injected.
    #[serde(default)]
    pub restart: Vec<String>,
}

/// A lab, loaded and checked.
#[derive(Debug, Clone)]
pub struct Lab {
    /// `lab.yaml`.
    pub file: LabFile,
    /// The sample application's manifests.
    pub application: Vec<Manifest>,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Background pages in order.
    pub pages: Vec<Page>,
}

/// A background page, loaded.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its entry in `lab.yaml`.
    pub file: PageFile,
    /// The text, by language: Markdown.
    pub text: BTreeMap<&'static str, String>,
}

/// A step, loaded.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its entry in `lab.yaml`.
    pub file: StepFile,
    /// The text, by language: Markdown.
    pub text: BTreeMap<&'static str, String>,
    /// What the text draws in characters, as SVG, by language. The linter misses one that is not there.
    pub pictures: BTreeMap<&'static str, String>,
    /// What is said after passing.
    pub debrief: BTreeMap<&'static str, String>,
    /// Hints from a nudge to nearly the answer.
    pub hints: BTreeMap<&'static str, Vec<String>>,
    /// Its checks.
    pub checks: Vec<Check>,
    /// What the learner starts from, by file name.
    pub starter: Vec<Manifest>,
    /// What passes.
    pub solution: Vec<Manifest>,
    /// What must fail, and where.
    pub controls: Vec<ControlCase>,
}

/// A YAML file by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// File name.
    pub name: String,
    /// Content.
    pub content: String,
}

/// A broken variant of the solution: `controls/NAME.yaml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlCase {
    /// Name, from the file's name.
    #[serde(default)]
    pub name: String,
    /// What is wrong.
    pub title: Text,
    /// The check that must fail.
    pub fails: String,
    /// The misconception whose hint must be given, if one is made for it.
    #[serde(default)]
    pub told: Option<String>,
    /// Edits of the solution: file → replacements, each of which must apply.
    #[serde(default)]
    pub edits: Vec<Edit>,
}

/// Replace a piece of one solution file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// File name.
    pub file: String,
    /// Text that stands there exactly once.
    pub find: String,
    /// Text that takes its place.
    pub replace: String,
}

/// Why a lab could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file is missing.
    #[error("{path}: there is no such file in the lab")]
    Missing {
        /// Which.
        path: String,
    },
    /// A file cannot be read as what it should be.
    #[error("{path}: {message}")]
    Malformed {
        /// Which.
        path: String,
        /// Why, with line and column.
        message: String,
    },
    /// The lab was written for a newer version.
    #[error("the lab has format {found}, this meshlab knows formats up to {FORMAT}: use a newer meshlab")]
    TooNew {
        /// Its format.
        found: u32,
    },
}

/// Where a lab's files come from: a folder, or what is compiled into the program.
pub trait LabSource {
    /// The content of a file, `None` if there is none.
    fn read(&self, path: &str) -> Option<String>;
    /// The names of the files in a folder, sorted; empty if there is no such folder.
    fn list(&self, folder: &str) -> Vec<String>;
}

impl Lab {
    /// Loads a lab.
    ///
    /// # Errors
    /// [`LabError`], naming the file.
    pub fn load(source: &impl LabSource) -> Result<Self, LabError> {
        let file: LabFile = yaml(source, "lab.yaml")?;
        if file.format > FORMAT {
            return Err(LabError::TooNew { found: file.format });
        }
        let application = file.application.iter().map(|name| manifest(source, name, name)).collect::<Result<_, _>>()?;
        let steps = file.steps.iter().map(|step| Step::load(source, step)).collect::<Result<_, _>>()?;
        let page = |page: &PageFile| Ok(Page { file: page.clone(), text: texts(source, &format!("background/{}", page.id))? });
        let pages = file.pages.iter().map(page).collect::<Result<_, LabError>>()?;
        Ok(Self { file, application, steps, pages })
    }

    /// A step by id, alias or number (from 1).
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().enumerate().find_map(|(i, step)| {
            let is_it = step.file.id == name || step.file.aliases.iter().any(|a| a == name) || (i + 1).to_string() == name;
            is_it.then_some(step)
        })
    }

    /// Mistakes of the lab's author, each with the place it stands at.
    pub fn lint(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let ids: Vec<&str> = self.steps.iter().flat_map(|step| step.checks.iter().map(|check| check.id.as_str())).collect();
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        for id in &known {
            if ids.iter().filter(|other| other == &id).count() > 1 {
                problems.push(format!("check {id}: stands twice"));
            }
        }
        for step in &self.steps {
            step.lint(&known, &self.file.clients, &mut problems);
        }
        problems
    }
}

impl Step {
    fn load(source: &impl LabSource, file: &StepFile) -> Result<Self, LabError> {
        let folder = &file.folder;
        let texts = |name: &str| texts(source, &format!("{folder}/{name}"));
        let hints = texts("hints")?.into_iter().map(|(language, text)| (language, split_hints(&text))).collect();
        let checks: CheckFile = yaml(source, &format!("{folder}/checks.yaml"))?;
        let manifests = |kind: &str| -> Result<Vec<Manifest>, LabError> {
            file.files.iter().map(|name| manifest(source, &format!("{folder}/{kind}/{name}"), name)).collect()
        };
        let picture = |language: Language| Some((language.tag(), source.read(&format!("{folder}/picture.{language}.svg"))?));
        let controls = source.list(&format!("{folder}/controls")).into_iter().map(|name| {
            let mut case: ControlCase = yaml(source, &format!("{folder}/controls/{name}"))?;
            case.name = name.trim_end_matches(".yaml").to_owned();
            Ok(case)
        });
        Ok(Self {
            text: texts("text")?,
            pictures: Language::ALL.into_iter().filter_map(picture).collect(),
            debrief: texts("debrief")?,
            hints,
            checks: checks.checks,
            starter: manifests("starter")?,
            solution: manifests("solution")?,
            controls: controls.collect::<Result<_, LabError>>()?,
            file: file.clone(),
        })
    }

    fn lint(&self, known: &BTreeSet<&str>, clients: &BTreeMap<String, Client>, problems: &mut Vec<String>) {
        let step = &self.file.id;
        for (language, hints) in &self.hints {
            if hints.len() < 3 {
                problems.push(format!("step {step}: {} hints in {language}, at least 3 are needed", hints.len()));
            }
        }
        for language in Language::ALL {
            let picture = format!("picture.{language}.svg");
            match self.pictures.get(language.tag()) {
                None => problems.push(format!("step {step}: {picture} is missing")),
                Some(svg) if !svg.contains("<title") => {
                    problems.push(format!("step {step}: {picture} has no title to be read out"))
                }
                Some(_) if !self.text[language.tag()].contains(&format!("]({picture})")) => {
                    problems.push(format!("step {step}: the text in {language} does not show {picture}"));
                }
                Some(_) => {}
            }
        }
        if self.checks.is_empty() {
            problems.push(format!("step {step}: an empty set of checks proves nothing"));
        }
        let safeguards: BTreeSet<&str> =
            self.checks.iter().filter(|check| check.mode == Mode::Safeguard).map(|check| check.id.as_str()).collect();
        for check in &self.checks {
            let mut problem = |text: String| problems.push(format!("check {}: {text}", check.id));
            for need in check.needs.iter().filter(|need| safeguards.contains(need.as_str())) {
                problem(format!("needs {need:?}, a safeguard, which only ends when all others did"));
            }
            for misconception in check.misconceptions.iter().filter(|misconception| misconception.edit.is_some()) {
                match misconception.probe.as_ref().unwrap_or(&check.probe) {
                    Probe::Resource(probe) if probe.name.is_some() => {}
                    _ => problem(format!("misconception {:?} edits, but looks at no single object", misconception.id)),
                }
            }
            for need in check.needs.iter().filter(|need| !known.contains(need.as_str())) {
                problem(format!("needs {need:?}, which is no check of this lab"));
            }
            let probes = [Some(&check.probe), check.control.as_ref().map(|control| &control.probe)];
            let probes = probes.into_iter().flatten().chain(check.misconceptions.iter().filter_map(|m| m.probe.as_ref()));
            for client in probes.filter_map(Probe::client).filter(|client| !clients.contains_key(*client)) {
                problem(format!("client {client:?} is not in lab.yaml"));
            }
            match &check.probe {
                Probe::Split(split) if split.shares.values().all(|weight| *weight == 0) => problem("all shares are 0".to_owned()),
                Probe::Split(_) => {}
                _ if check.expect.is_null() => problem("expects nothing, so it could not fail".to_owned()),
                _ => {}
            }
            if expects_refusal(&check.expect) && check.control.is_none() {
                problem("expects a refusal, which proves nothing without a control that works".to_owned());
            }
            let expectations = [Some(&check.expect), check.control.as_ref().map(|control| &control.expect)];
            let patterns = check.misconceptions.iter().map(|misconception| &misconception.when);
            for expectation in expectations.into_iter().flatten().chain(patterns) {
                if let Err(error) = assertion::lint(expectation) {
                    problem(error.to_string());
                }
            }
        }
        for case in &self.controls {
            if !self.checks.iter().any(|check| check.id == case.fails) {
                problems.push(format!("control {step}/{}: fails {:?}, which is no check of this step", case.name, case.fails));
            }
            if let Err(problem) = case.apply(&self.solution) {
                problems.push(format!("control {step}/{}: {problem}", case.name));
            }
        }
    }
}

impl ControlCase {
    /// The solution with this case's mistake in it.
    ///
    /// # Errors
    /// An edit does not apply: its text stands nowhere, or more than once.
    pub fn apply(&self, solution: &[Manifest]) -> Result<Vec<Manifest>, String> {
        let mut broken = solution.to_vec();
        for edit in &self.edits {
            let manifest = broken.iter_mut().find(|manifest| manifest.name == edit.file);
            let manifest = manifest.ok_or_else(|| format!("{} is not a file of the solution", edit.file))?;
            match manifest.content.matches(&edit.find).count() {
                1 => manifest.content = manifest.content.replacen(&edit.find, &edit.replace, 1),
                times => return Err(format!("{:?} stands {times} times in {}", edit.find, edit.file)),
            }
        }
        Ok(broken)
    }
}

impl Probe {
    /// The client it sends from, if it sends.
    pub fn client(&self) -> Option<&str> {
        match self {
            Self::Traffic(probe) => Some(&probe.from),
            Self::Split(probe) => Some(&probe.from),
            Self::Log(LogProbe { after, .. }) | Self::Traces(TracesProbe { after, .. }) => {
                after.as_ref().map(|traffic| traffic.from.as_str())
            }
            _ => None,
        }
    }
}

/// Whether an expectation is that a request is refused: an error, or a 401 or 403.
fn expects_refusal(expect: &serde_json::Value) -> bool {
    let error = expect.get("error").is_some_and(|error| error.get("$absent") != Some(&true.into()));
    error || matches!(expect.get("status").and_then(serde_json::Value::as_u64), Some(401 | 403))
}

/// Hints stand in one file, apart by lines of `---`.
fn split_hints(text: &str) -> Vec<String> {
    text.split("\n---\n").map(|hint| hint.trim().to_owned()).filter(|hint| !hint.is_empty()).collect()
}

/// A text in every language: `PATH.LANG.md`.
fn texts(source: &impl LabSource, path: &str) -> Result<BTreeMap<&'static str, String>, LabError> {
    let read = |language: Language| {
        let path = format!("{path}.{language}.md");
        source.read(&path).map(|text| (language.tag(), text)).ok_or(LabError::Missing { path })
    };
    Language::ALL.into_iter().map(read).collect()
}

fn manifest(source: &impl LabSource, path: &str, name: &str) -> Result<Manifest, LabError> {
    let content = source.read(path).ok_or_else(|| LabError::Missing { path: path.to_owned() })?;
    Ok(Manifest { name: name.to_owned(), content })
}

fn yaml<T: serde::de::DeserializeOwned>(source: &impl LabSource, path: &str) -> Result<T, LabError> {
    let text = source.read(path).ok_or_else(|| LabError::Missing { path: path.to_owned() })?;
    serde_saphyr::from_str(&text).map_err(|error| LabError::Malformed { path: path.to_owned(), message: error.to_string() })
}
