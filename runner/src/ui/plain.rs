//! The plain mode: lines in, lines out. For screen readers, and for terminals that can do no more. Nothing is drawn, nothing moves,
//! and what the checks say is only said when it changes.

use std::io::Write;

use meshlab_checks::report::{Style, result_text};
use meshlab_checks::{CheckResult, Lab, Language, Prober, Step, Verdict};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::markdown::{CodeBlock, GUTTER, lay_out};
use super::theme::Theme;
use super::words::word;
use super::{Happening, Surroundings, apply_files, checks_of, cluster, stream_command};
use crate::error::CommandError;
use crate::progress::Progress;
use crate::{steps, watch};

/// Columns of the text.
const WIDTH: usize = 78;

/// `MESHLAB_PLAIN` asks for it; a dumb terminal can do no more.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os("MESHLAB_PLAIN").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Runs until the learner leaves, or there is nothing more to read.
///
/// # Errors
/// The learner's folder cannot be watched, or the progress not be kept.
pub(crate) async fn run(lab: Lab, progress: Progress, surroundings: Surroundings) -> Result<(), CommandError> {
    let mut saves = watch::saves(&progress.workdir)?;
    let mut changes = cluster::changes(surroundings.client.clone(), &lab);
    let mut plain = Plain { lab, progress, surroundings, results: Vec::new() };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    plain.tell_step();
    let mut checking = plain.check();
    plain.prompt();
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) if matches!(line.trim(), "q" | "quit") => return Ok(()),
                Ok(Some(line)) => {
                    if plain.obey(line.trim()).await? {
                        checking.abort();
                        checking = plain.check();
                    }
                    plain.prompt();
                }
                Ok(None) | Err(_) => return Ok(()),
            },
            Some(()) = saves.recv() => { checking.abort(); checking = plain.check(); },
            Some(()) = changes.recv() => { checking.abort(); checking = plain.check(); },
            Ok(results) = &mut checking => {
                if plain.ended(results)? {
                    plain.prompt();
                }
                checking = tokio::spawn(std::future::pending());
            }
        }
    }
}

struct Plain {
    lab: Lab,
    progress: Progress,
    surroundings: Surroundings,
    results: Vec<CheckResult>,
}

impl Plain {
    fn step(&self) -> &Step {
        self.progress.current(&self.lab)
    }

    fn language(&self) -> Language {
        self.progress.language
    }

    fn word(&self, en: &'static str, ja: &'static str) -> &'static str {
        word(self.language(), en, ja)
    }

    fn prompt(&self) {
        say(self.word("Command (? for help): ", "コマンド (? でヘルプ): "));
    }

    fn tell_step(&self) {
        say(&format!("\n{}\n", text(&self.step().text[self.language().tag()], self.language())));
    }

    fn blocks(&self) -> Vec<CodeBlock> {
        let page = lay_out(&self.step().text[self.language().tag()], WIDTH, Theme::Mono);
        page.blocks.into_iter().filter(CodeBlock::is_for_use).collect()
    }

    fn check(&self) -> JoinHandle<Vec<CheckResult>> {
        let prober = Prober::new(self.surroundings.client.clone(), self.lab.file.clients.clone());
        let (lab, checks) = (self.lab.file.name.clone(), checks_of(self.step()));
        tokio::spawn(async move { meshlab_checks::run(&lab, &prober, &checks, |_| {}).await.results })
    }

    /// Says how the checks ended, if that is not what was said last. Returns whether anything was said.
    fn ended(&mut self, results: Vec<CheckResult>) -> Result<bool, CommandError> {
        let verdicts = |results: &[CheckResult]| {
            results.iter().map(|result| (result.id.clone(), std::mem::discriminant(&result.verdict))).collect::<Vec<_>>()
        };
        let is_news = verdicts(&results) != verdicts(&self.results);
        self.results = results;
        if !is_news {
            return Ok(false);
        }
        self.tell_results();
        let id = self.step().file.id.clone();
        let passed = self.results.iter().all(|result| result.verdict == Verdict::Pass);
        if passed && self.progress.passed.insert(id) {
            self.progress.save(&self.surroundings.home)?;
            say(&format!("\n{}\n", text(&self.step().debrief[self.language().tag()], self.language())));
        }
        Ok(true)
    }

    fn tell_results(&self) {
        let passed = self.results.iter().filter(|result| result.verdict == Verdict::Pass).count();
        let all = self.results.len();
        say(&match self.language() {
            Language::En => format!("\n{passed} of {all} checks pass.\n"),
            Language::Ja => format!("\nチェック {all} 件のうち {passed} 件が合格です。\n"),
        });
        for (number, result) in self.results.iter().enumerate() {
            let verdict = match result.verdict {
                Verdict::Pass => continue,
                Verdict::Fail { .. } => self.word("failed", "不合格"),
                Verdict::Skipped { .. } => self.word("waiting", "待機"),
                Verdict::Error { .. } => self.word("not measured", "測定不能"),
            };
            say(&format!("  {}. {verdict}: {}\n", number + 1, result.title.get(self.language())));
        }
    }

    /// Does what a line asks for; true if the checks should be looked at again.
    async fn obey(&mut self, line: &str) -> Result<bool, CommandError> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        let number = argument.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let (client, workdir, step) = (self.surroundings.client.clone(), self.progress.workdir.clone(), self.step().clone());
        match command {
            "" => {}
            "c" => {
                self.results.clear();
                return Ok(true);
            }
            "d" => match number.and_then(|number| self.results.get(number)) {
                Some(result) => say(&result_text(result, self.language(), Style::Plain)),
                None => self.tell_results(),
            },
            "v" => self.tell_step(),
            "r" => self.run_block(number).await,
            "a" => return Ok(self.done(apply_files(&client, &workdir, &step).await)),
            "h" => self.hint()?,
            "s" => step.solution.iter().for_each(|file| say(&format!("{}:\n{}\n", file.name, file.content))),
            "solve" => return Ok(self.done(steps::solve(&client, &workdir, &step).await)),
            "reset" => return Ok(self.done(steps::reset(&client, &workdir, &step).await)),
            "l" => self.list(),
            "n" => return self.go(1),
            "p" => return self.go(-1),
            "L" => {
                self.progress.language = if self.language() == Language::En { Language::Ja } else { Language::En };
                self.progress.save(&self.surroundings.home)?;
                self.tell_step();
            }
            _ => say(self.word(HELP_EN, HELP_JA)),
        }
        Ok(false)
    }

    fn done(&self, result: Result<(), CommandError>) -> bool {
        match &result {
            Ok(()) => say(self.word("Done.\n", "完了しました。\n")),
            Err(error) => say(&format!("{error}\n")),
        }
        result.is_ok()
    }

    async fn run_block(&self, number: Option<usize>) {
        let blocks = self.blocks();
        let Some(block) = number.and_then(|number| blocks.get(number)).filter(|block| block.language == "sh") else {
            say(self.word("Which one? For example: r 1\n", "番号を付けてください。例: r 1\n"));
            return;
        };
        let (sender, mut printed) = mpsc::channel(64);
        let command = stream_command(&block.code, &self.progress.workdir, self.surroundings.environment.clone(), &sender);
        let listen = async {
            while let Some(Happening::Printed(line)) = printed.recv().await {
                say(&format!("{line}\n"));
            }
        };
        tokio::pin!(listen);
        tokio::select! {
            ended = command => if let Err(error) = ended { say(&format!("sh: {error}\n")) },
            () = &mut listen => {}
        }
        drop(sender);
        listen.await;
    }

    fn hint(&mut self) -> Result<(), CommandError> {
        let (id, language) = (self.step().file.id.clone(), self.language());
        let hints = self.step().hints[language.tag()].clone();
        let shown = self.progress.hints.entry(id).or_default();
        let number = (*shown).min(hints.len().saturating_sub(1));
        *shown = number + 1;
        self.progress.save(&self.surroundings.home)?;
        say(&format!("{}/{}\n{}\n", number + 1, hints.len(), hints.get(number).map_or("", String::as_str)));
        Ok(())
    }

    fn list(&self) {
        for step in &self.lab.steps {
            let passed = if self.progress.passed.contains(&step.file.id) { self.word(" (passed)", "（合格）") } else { "" };
            say(&format!("{}{passed}\n", step.file.title.get(self.language())));
        }
    }

    fn go(&mut self, by: isize) -> Result<bool, CommandError> {
        let here = self.lab.steps.iter().position(|step| step.file.id == self.step().file.id).unwrap_or(0);
        let Some(step) = here.checked_add_signed(by).and_then(|index| self.lab.steps.get(index)) else { return Ok(false) };
        self.progress.step = step.file.id.clone();
        self.progress.save(&self.surroundings.home)?;
        self.results.clear();
        self.tell_step();
        Ok(true)
    }
}

const HELP_EN: &str = "\
v        the text of the step once more
r N      run block N
c        check; it is done by itself when a file is saved or the cluster changes
d N      check N in full
a        apply your files
h        the next hint
s        the solution; 'solve' writes and applies it
reset    back to the start of this step
l n p    list, next, previous step
L        Japanese
q        leave; the lab goes on
";

const HELP_JA: &str = "\
v        本文をもう一度表示
r N      ブロック N を実行
c        検証（ファイルの保存やクラスタの変化では自動的に実行されます）
d N      チェック N をくわしく表示
a        自分のファイルを適用
h        次のヒント
s        解答。solve で書き込んで適用
reset    このステップを最初の状態に戻す
l n p    一覧、次、前のステップ
L        英語
q        終了（ラボは動き続けます）
";

/// A text to be read out: blocks of code have numbers, and a picture is told by its description.
fn text(markdown: &str, language: Language) -> String {
    let page = lay_out(&told_pictures(markdown, language), WIDTH, Theme::Mono);
    let blocks: Vec<&CodeBlock> = page.blocks.iter().filter(|block| block.is_for_use()).collect();
    let mut told = String::new();
    for (number, line) in page.lines.iter().enumerate() {
        if let Some(block) = blocks.iter().position(|block| block.line == number) {
            told.push_str(&format!("{} {}:\n", word(language, "Block", "ブロック"), block + 1));
        }
        let line = line.to_string();
        told.push_str(&line.strip_prefix(GUTTER).map_or_else(|| line.clone(), |code| format!("    {code}")));
        told.push('\n');
    }
    told
}

/// Puts a picture's description in its place, and leaves out the block of characters that draws the same.
fn told_pictures(markdown: &str, language: Language) -> String {
    let mut told = String::new();
    let (mut after_picture, mut in_drawing) = (false, false);
    for line in markdown.lines() {
        if let Some(description) =
            line.strip_prefix("![").and_then(|line| line.split_once("](")).map(|(description, _)| description)
        {
            told.push_str(&format!("{}: {description}\n", word(language, "Picture", "図")));
            after_picture = true;
            continue;
        }
        if in_drawing {
            in_drawing = line != "```";
            continue;
        }
        if after_picture && line == "```text" {
            (after_picture, in_drawing) = (false, true);
            continue;
        }
        after_picture &= line.is_empty();
        told.push_str(line);
        told.push('\n');
    }
    told
}

fn say(text: &str) {
    let mut output = std::io::stdout();
    // Nobody reads any more: the next read will end.
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_and_blocks_have_numbers() {
        let markdown = "# Title\n\n![client to webapp](picture.en.svg)\n\n```text\n──▶\n```\n\nRun:\n\n```sh\nkubectl get pods\n```\n\n```output\nNAME\n```\n";
        insta::assert_snapshot!(text(markdown, Language::En), @r"
        Title

        Picture: client to webapp

        Run:

        Block 1:
            kubectl get pods

          NAME
        ");
    }
}
