//! Comparing what a text shows with what was printed.
//!
//! Both sides go through [`RULES`], and spaces in a row count as two, since the width of a column depends on what stands in it.
//! In what the text shows, `…` within a line stands for anything, and alone on a line for any number of lines.

use regex::Regex;

/// What is never the same twice, and what takes its place.
const RULES: [(&str, &str); 8] = [
    // The names that Deployments give to pods: webapp-v1-697b869464-hdbsh.
    (r"-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-HASH"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{32,}\b", "HEX"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    // Ages and durations, as kubectl writes them: 5s, 2m10s, 3d4h.
    (r"\b(\d+(\.\d+)?(ms|s|m|h|d))+\b", "AGE"),
    (r"\b10\.\d+\.\d+\.\d+(:\d+)?\b", "IP"),
    (r"\b127\.0\.0\.1:\d+\b", "127.0.0.1:PORT"),
    (r"[ \t]{2,}", "  "),
];

const LEFT_OUT: &str = "…";

/// `Ok` when what was printed is what the text shows; else both, for people to see.
pub(crate) fn compare(shown: &str, printed: &str) -> Result<(), String> {
    let (shown, printed) = (normalise(shown), normalise(printed));
    let mut pattern = String::from(r"\A");
    for line in shown.lines() {
        if line.trim() == LEFT_OUT {
            pattern.push_str(r"(?:.*\n)*?");
        } else {
            let pieces: Vec<String> = line.split(LEFT_OUT).map(regex::escape).collect();
            pattern.push_str(&pieces.join(".*?"));
            pattern.push_str(r"\n");
        }
    }
    pattern.push_str(r"\z");
    let pattern = Regex::new(&pattern).expect("escaped text is a pattern");
    if pattern.is_match(&printed) { Ok(()) } else { Err(format!("--- the text shows\n{shown}--- it printed\n{printed}")) }
}

fn normalise(text: &str) -> String {
    let text = RULES.iter().fold(text.to_owned(), |text, (pattern, replacement)| {
        Regex::new(pattern).expect("a rule is a pattern").replace_all(&text, *replacement).into_owned()
    });
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn what_is_never_the_same_twice_is_not_compared_and_all_else_is() {
    let shown = "NAME                     READY   AGE\nclient-68cd4df5c6-w8hzj   2/2   7s\n…\n{\"ip\": \"10.244.0.1\", …}\n";
    let printed =
        "NAME        READY  AGE\nclient-7987bcf884-9w292  2/2  1m5s\nmore\n\nand more\n{\"ip\": \"10.244.3.17\", \"x\": 1}\n";
    assert_eq!(compare(shown, printed), Ok(()));
    for other in [printed.replace("2/2", "1/2"), printed.replace("ip", "pi"), format!("{printed}at the end\n"), String::new()] {
        assert!(compare(shown, &other).is_err(), "{other}");
    }
    assert!(compare("", "something\n").is_err());
    assert_eq!(compare("", ""), Ok(()));
}
