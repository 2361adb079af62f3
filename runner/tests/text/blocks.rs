//! Commands of a text, and what they print.

/// A block of commands with the output that the text shows below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// As it stands in the text, without the indentation of a list.
    pub(crate) command: String,
    /// Empty if the text shows none.
    pub(crate) output: String,
}

impl Block {
    /// Whether meshlab runs in it, which prints in the learner's language.
    pub(crate) fn speaks(&self) -> bool {
        self.command.lines().any(|line| line.starts_with("meshlab "))
    }
}

/// The `sh` blocks of a Markdown text, each with the `output` block that follows it.
///
/// # Errors
/// An `output` block that follows no command.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut found: Vec<Block> = Vec::new();
    let mut follows_command = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let content = line.trim_start();
        let Some(language) = content.strip_prefix("```") else {
            follows_command &= content.is_empty();
            continue;
        };
        let indent = line.len() - content.len();
        let code: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.trim_start().starts_with("```"))
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect();
        match (language, found.last_mut()) {
            ("sh", _) => found.push(Block { command: code, output: String::new() }),
            ("output", Some(block)) if follows_command => block.output = code,
            ("output", _) => return Err(format!("line {}: an output that follows no command", number + 1)),
            _ => {}
        }
        follows_command = language == "sh";
    }
    Ok(found)
}

#[test]
fn an_output_belongs_to_the_commands_right_above_it() {
    let text = "- a\n\n  ```sh\n  x\n  ```\n\n  ```output\n  1\n    2\n  ```\n\n```yaml\nk: v\n```\n\n```sh\ny\n```\n";
    let block = |command: &str, output: &str| Block { command: command.to_owned(), output: output.to_owned() };
    assert_eq!(blocks(text), Ok(vec![block("x\n", "1\n  2\n"), block("y\n", "")]));
    assert!(blocks("```sh\nx\n```\nwords\n```output\n1\n```\n").is_err());
}
