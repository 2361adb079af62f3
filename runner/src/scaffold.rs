//! For authors: the folder of a new lab, and a look at what learners will read.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use meshlab_checks::{Lab, Language, Step};
use pulldown_cmark::{Event, Options, Parser, html};

use crate::error::{CommandError, Hint};
use crate::home::is_lab_name;

/// A small lab that lints and passes its own test.
#[derive(rust_embed::RustEmbed)]
#[folder = "template"]
struct Template;

/// Makes the folder of a new lab in `into`; returns its files.
///
/// # Errors
/// The name is none, there is such a folder already, or it cannot be written.
pub(crate) fn create(name: &str, into: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !is_lab_name(name) {
        return Err(CommandError::usage(format!("{name:?} is no name of a lab: lower case letters, digits and dashes")));
    }
    let root = into.join(name);
    if root.exists() {
        return Err(CommandError::usage(format!("{} is there already", root.display()))
            .with_hint(Hint::new("nothing was changed; choose another name")));
    }
    let mut written = Vec::new();
    for path in Template::iter() {
        let Some(content) = Template::get(&path) else { continue };
        let content = String::from_utf8_lossy(&content.data).replace("name: LAB\n", &format!("name: {name}\n"));
        let target = root.join(&*path);
        let folder = target.parent().unwrap_or(&root);
        std::fs::create_dir_all(folder).map_err(|error| CommandError::io(folder, &error))?;
        std::fs::write(&target, content).map_err(|error| CommandError::io(&target, &error))?;
        written.push(target);
    }
    written.sort();
    Ok(written)
}

/// All that learners read of these steps, as Markdown, in the order in which they do.
pub(crate) fn preview(lab: &Lab, steps: &[&Step], language: Language) -> String {
    let tag = language.tag();
    let say = |en: &'static str, ja: &'static str| match language {
        Language::En => en,
        Language::Ja => ja,
    };
    let mut text = format!("# {}\n", lab.file.title.get(language));
    for step in steps {
        let _ = write!(text, "\n---\n\n{}\n", step.text[tag].trim_end());
        let _ = writeln!(text, "\n## {}\n", say("Checks", "チェック"));
        for check in &step.checks {
            let (title, why, fix) = (check.title.get(language), check.why.get(language), check.fix.get(language));
            let _ = writeln!(text, "- **{title}** (`{}`, {})", check.id, check.weight);
            let _ = writeln!(text, "  - {}: {why}\n  - {}: {fix}", say("why", "理由"), say("fix", "直し方"));
            for misconception in &check.misconceptions {
                let hint = misconception.hint.get(language);
                let _ = writeln!(text, "  - {} `{}`: {hint}", say("misconception", "よくある誤り"), misconception.id);
            }
        }
        for (number, hint) in step.hints[tag].iter().enumerate() {
            let _ = write!(text, "\n## {} {}\n\n{hint}\n", say("Hint", "ヒント"), number + 1);
        }
        let _ = writeln!(text, "\n## {}", say("Solution", "解答"));
        for manifest in &step.solution {
            let _ = write!(text, "\n`{}`\n\n```yaml\n{}\n```\n", manifest.name, manifest.content.trim_end());
        }
        let _ = write!(text, "\n## {}\n\n{}\n", say("Debrief", "ふりかえり"), step.debrief[tag].trim_end());
    }
    for page in &lab.pages {
        let _ = write!(text, "\n---\n\n{}\n", page.text[tag].trim_end());
    }
    text
}

/// The pictures of these steps stand in the page itself.
pub(crate) fn with_pictures(markdown: &str, steps: &[&Step], language: Language) -> String {
    let mut text = markdown.to_owned();
    for (step, svg) in steps.iter().filter_map(|step| Some((step, step.pictures.get(language.tag())?))) {
        let own = step.text[language.tag()].trim_end();
        let data = base64::engine::general_purpose::STANDARD.encode(svg);
        let shown = own.replace(&format!("](picture.{language}.svg)"), &format!("](data:image/svg+xml;base64,{data})"));
        text = text.replacen(own, &shown, 1);
    }
    text
}

/// Markdown as a page of its own. HTML in the text is shown, not taken for HTML.
pub(crate) fn page(title: &str, markdown: &str, language: Language) -> String {
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH).map(|event| match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        other => other,
    });
    let mut body = String::new();
    html::push_html(&mut body, events);
    let mut shown = String::new();
    html::push_html(&mut shown, std::iter::once(Event::Text(title.to_owned().into())));
    format!(
        "<!doctype html>\n<html lang=\"{language}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{shown}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

const STYLE: &str = "body{max-width:50rem;margin:2rem auto;padding:0 1rem;font:1rem/1.6 system-ui,sans-serif}\
pre{padding:.8rem;overflow:auto;border:1px solid}table{border-collapse:collapse}td,th{border:1px solid;padding:.2rem .6rem}\
:root{color-scheme:light dark}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labs;

    #[test]
    fn a_new_lab_lints() {
        let folder = tempfile::tempdir().unwrap();
        let files = create("hello", folder.path()).unwrap();
        assert!(files.contains(&folder.path().join("hello/1-strict/controls/permissive.yaml")));
        let lab = labs::load("hello", Some(folder.path())).unwrap();
        assert_eq!(lab.lint(), [""; 0]);
        assert!(create("hello", folder.path()).unwrap_err().message.ends_with("is there already"));
        assert!(create("../hello", folder.path()).is_err());
    }

    #[test]
    fn html_in_a_text_is_shown() {
        let page = page("a <b>", "hello <script>alert(1)</script>\n\n<script>x</script>\n", Language::En);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;") && page.contains("<title>a &lt;b&gt;</title>"));
    }
}
