//! kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{range .items[*]}…{"\n"}{end}`.

use serde_json::Value;

/// A template that is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing jsonpath {template}: {problem}")]
pub(super) struct Malformed {
    template: String,
    problem: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Every,
    Deep(String),
    Slice(Option<i64>, Option<i64>),
    Index(i64),
    Filter(Vec<Step>, Option<(Comparison, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A template, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Node>);

impl Template {
    /// Reads a template. What has no braces is one path.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let braced = if text.contains('{') { text.to_owned() } else { format!("{{{}}}", relaxed(text)) };
        let mut parser = Parser { rest: &braced };
        let (nodes, ended) = parser.nodes(false).map_err(|problem| Malformed { template: text.to_owned(), problem })?;
        debug_assert!(!ended);
        Ok(Self(nodes))
    }

    /// What the template makes of a value.
    pub(super) fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }

    /// The first thing that the template's first path finds.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self.0.first()? {
            Node::Path(steps) => walk(steps, value).into_iter().next(),
            _ => None,
        }
    }
}

/// `metadata.name` and `.metadata.name` are the same.
fn relaxed(path: &str) -> String {
    if path.starts_with(['.', '[', '@', '$']) { path.to_owned() } else { format!(".{path}") }
}

fn render(nodes: &[Node], here: &Value, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(steps) => {
                let found: Vec<String> = walk(steps, here).into_iter().map(text).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(steps, body) => {
                for item in walk(steps, here) {
                    render(body, item, out);
                }
            }
        }
    }
}

/// Strings as they are, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| take(step, value)).collect();
    }
    found
}

fn take<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let items = || value.as_array().map_or(&[][..], Vec::as_slice);
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Every => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        },
        Step::Deep(name) => {
            let mut found: Vec<&Value> = value.get(name).into_iter().collect();
            found.extend(take(&Step::Every, value).into_iter().flat_map(|child| take(step, child)));
            found
        }
        Step::Index(index) => {
            let length = items().len() as i64;
            let at = if *index < 0 { length + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items().get(at)).into_iter().collect()
        }
        Step::Slice(from, to) => {
            let length = items().len() as i64;
            let clamp = |at: i64| usize::try_from(if at < 0 { length + at } else { at }.clamp(0, length)).unwrap_or(0);
            let (from, to) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(length)));
            items().get(from..to.max(from)).unwrap_or_default().iter().collect()
        }
        Step::Filter(path, wanted) => {
            let holds = |item: &&Value| {
                let found = walk(path, item);
                match wanted {
                    None => !found.is_empty(),
                    Some((comparison, wanted)) => found.first().is_some_and(|found| compare(found, *comparison, wanted)),
                }
            };
            items().iter().filter(holds).collect()
        }
    }
}

fn compare(found: &Value, comparison: Comparison, wanted: &Value) -> bool {
    let order = match (found.as_f64(), wanted.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ => Some(text(found).cmp(&text(wanted))),
    };
    let Some(order) = order else { return false };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Nodes up to the end of the text or, in a range, to `{end}`; the flag says whether that was seen.
    fn nodes(&mut self, in_range: bool) -> Result<(Vec<Node>, bool), String> {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            let Some(open) = self.rest.find('{') else {
                nodes.push(Node::Text(std::mem::take(&mut self.rest).to_owned()));
                break;
            };
            if open > 0 {
                nodes.push(Node::Text(self.rest[..open].to_owned()));
            }
            let close = closing(&self.rest[open..]).ok_or("unclosed action")? + open;
            let action = self.rest[open + 1..close].trim();
            self.rest = &self.rest[close + 1..];
            if action == "end" {
                return if in_range { Ok((nodes, true)) } else { Err("not in range, nothing to end".to_owned()) };
            }
            if let Some(path) = action.strip_prefix("range ") {
                let steps = steps(path.trim())?;
                let (body, ended) = self.nodes(true)?;
                if !ended {
                    return Err("range without {end}".to_owned());
                }
                nodes.push(Node::Range(steps, body));
                continue;
            }
            nodes.push(match quoted(action) {
                Some(text) => Node::Text(text),
                None => Node::Path(steps(action)?),
            });
        }
        Ok((nodes, false))
    }
}

/// Where the brace that opens `text` is closed; quotes hide braces.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, character) in text.char_indices().skip(1) {
        match (quote, character) {
            (None, '}') => return Some(at),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    None
}

/// The text of a quoted literal.
fn quoted(action: &str) -> Option<String> {
    let inner = ['"', '\''].iter().find_map(|quote| action.strip_prefix(*quote)?.strip_suffix(*quote))?;
    Some(inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix(['$', '@']).unwrap_or(path);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = field(after);
            steps.push(Step::Deep(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = field(after);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Every),
                _ => steps.push(Step::Field(name)),
            }
            rest = after;
        } else if rest.starts_with('[') {
            let close = bracket(rest).ok_or("unterminated array")?;
            steps.push(subscript(rest[1..close].trim())?);
            rest = &rest[close + 1..];
        } else {
            return Err(format!("unexpected {rest:?}"));
        }
    }
    Ok(steps)
}

/// A field's name, in which a backslash takes a dot along, and what comes after it.
fn field(text: &str) -> (String, &str) {
    let (mut name, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(character),
        }
    }
    (name, "")
}

/// Where the bracket that opens `text` is closed.
fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 1 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn subscript(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = quoted(text) {
        return Ok(Step::Field(name));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return filter(condition.trim());
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| format!("invalid array index {digits}")),
    };
    match text.split_once(':') {
        Some((from, to)) => Ok(Step::Slice(number(from)?, number(to)?)),
        None => number(text)?.map(Step::Index).ok_or_else(|| "empty array index".to_owned()),
    }
}

fn filter(condition: &str) -> Result<Step, String> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let found = operators.iter().find_map(|(sign, comparison)| Some((condition.split_once(sign)?, *comparison)));
    let Some(((path, wanted), comparison)) = found else { return Ok(Step::Filter(steps(condition)?, None)) };
    let wanted = wanted.trim();
    let wanted = match quoted(wanted) {
        Some(text) => Value::String(text),
        None => serde_json::from_str(wanted).map_err(|_| format!("unrecognized value {wanted:?} in a filter"))?,
    };
    Ok(Step::Filter(steps(path.trim())?, Some((comparison, wanted))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn eval(template: &str) -> String {
        let pods = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "status": {"phase": "Running", "n": 1, "conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"phase": "Pending", "n": 2}},
        ]});
        Template::parse(template).map_or_else(|error| error.to_string(), |template| template.render(&pods))
    }

    #[test]
    fn templates() {
        assert_eq!(eval("{.items[*].metadata.name}"), "a b");
        assert_eq!(eval("{.items[0].metadata.name}-{.items[-1].metadata.name}"), "a-b");
        assert_eq!(eval("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.phase}{\"\\n\"}{end}"), "a\tRunning\nb\tPending\n");
        assert_eq!(eval("{.items[?(@.status.phase==\"Running\")].metadata.name}"), "a");
        assert_eq!(eval("{.items[?(@.status.n>=2)].metadata.name}"), "b");
        assert_eq!(eval("{.items[0].metadata.labels.app\\.io/x}"), "1");
        assert_eq!(eval("{.items[0].metadata.labels['app.io/x']}"), "1");
        assert_eq!(eval("{.items[0].status.conditions[?(@.type=='Ready')].status}"), "True");
        assert_eq!(eval("{..phase}"), "Running Pending");
        assert_eq!(eval("{.items[0:1].status.n}"), "1");
        assert_eq!(eval(".items[1].status.n"), "2");
        assert_eq!(eval("{.nothing}"), "");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(eval("{.items"), "error parsing jsonpath {.items: unclosed action");
        assert_eq!(eval("{range .items[*]}x"), "error parsing jsonpath {range .items[*]}x: range without {end}");
        assert_eq!(eval("{.items[x]}"), "error parsing jsonpath {.items[x]}: invalid array index x");
    }

    proptest! {
        #[test]
        fn no_template_panics(template in "[{}.\\[\\]*?@'\"a-z0-9: =\\\\]{0,40}") {
            let _ = Template::parse(&template).map(|template| template.render(&json!({"a": [1, {"b": 2}]})));
        }
    }
}
