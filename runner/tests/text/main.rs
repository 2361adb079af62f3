//! The course's text, proven: every command is run as it stands there, in one shell, in order, by the real binary on a running lab,
//! and what it prints is what the text says.
//!
//! A block of code marked `sh` is run; a block marked `output` right below it holds what it prints. One without prints nothing.
//! What is never the same twice is made the same before the two are compared: see [`expectation`]. `…` stands for what is left out.

mod blocks;
mod expectation;
mod shell;

use std::path::{Path, PathBuf};

use blocks::{Block, blocks};
use shell::Shell;

const LANGUAGES: [&str; 2] = ["en", "ja"];

/// The folders of the steps, in order.
fn steps() -> Vec<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../labs/phase3");
    let entries = std::fs::read_dir(&lab).expect("the course's folder");
    let mut steps: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.join("checks.yaml").exists()).collect();
    steps.sort();
    assert!(!steps.is_empty(), "{} has no steps", lab.display());
    steps
}

/// The blocks of what a learner reads in a step: the text, and what is said after passing.
fn blocks_of(step: &Path, language: &str) -> Vec<Block> {
    ["text", "debrief"]
        .into_iter()
        .flat_map(|name| {
            let path = step.join(format!("{name}.{language}.md"));
            let text = std::fs::read_to_string(&path).expect("a text in every language");
            blocks(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
        })
        .collect()
}

#[test]
fn commands_and_what_they_print_are_the_same_in_both_languages() {
    for step in steps() {
        let [english, japanese] = LANGUAGES.map(|language| blocks_of(&step, language));
        let commands = |blocks: &[Block]| blocks.iter().map(|block| block.command.clone()).collect::<Vec<_>>();
        assert_eq!(commands(&english), commands(&japanese), "{}", step.display());
        // Only meshlab itself speaks two languages.
        for (english, japanese) in english.iter().zip(&japanese).filter(|(block, _)| !block.speaks()) {
            assert_eq!(english.output, japanese.output, "{}: {}", step.display(), english.command);
        }
    }
}

#[test]
fn every_command_prints_what_the_text_says() {
    let mut shell = Shell::start();
    let mut wrong = Vec::new();
    for step in steps() {
        // What a learner has written by the time they apply it.
        shell.copy_files(&step.join("solution"));
        let [english, japanese] = LANGUAGES.map(|language| blocks_of(&step, language));
        for (english, japanese) in english.iter().zip(&japanese) {
            let mut compare = |block: &Block, shell: &mut Shell| {
                let printed = shell.run(&block.command);
                if let Err(difference) = expectation::compare(&block.output, &printed) {
                    wrong.push(format!("{}\n$ {}{difference}", step.display(), block.command));
                }
            };
            compare(english, &mut shell);
            // Only meshlab itself speaks two languages.
            if japanese.speaks() {
                shell.speak("ja");
                compare(japanese, &mut shell);
                shell.speak("en");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
