//! The JSONPath of printer columns: `.spec.ports[0].name`, `.metadata.labels['a.b/c']`, `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items one of whose fields has, or has not, this value.
    Filter {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// Parses a path, with or without the braces kubectl writes around it. `None` where it is malformed or beyond this subset.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (step, after) = bracket(inner)?;
                steps.push(step);
                rest = after;
            } else {
                let (name, after) = field_name(rest.strip_prefix('.').or(steps.is_empty().then_some(rest))?);
                if name == "*" {
                    steps.push(Step::All);
                } else if !name.is_empty() {
                    steps.push(Step::Field(name));
                } else if !after.starts_with('[') && !after.is_empty() {
                    return None;
                }
                rest = after;
            }
        }
        Some(Self { steps })
    }

    /// All values the path leads to.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.steps.iter().fold(vec![root], |values, step| values.into_iter().flat_map(|value| step.follow(value)).collect())
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let index = if *index < 0 { length + index } else { *index };
                usize::try_from(index).ok().and_then(|index| items.get(index)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Filter { path, equal, value: wanted } => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let holds = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, name| value.get(name));
                    found.is_some_and(|found| (found == wanted) == *equal)
                };
                items.iter().filter(holds).collect()
            }
        }
    }
}

/// A name up to the next `.` or `[`; `\.` is part of it.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[place..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// What stands in brackets, and what follows them.
fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]")?;
        return Some((self::filter(&filter[..end])?, &filter[end + 2..]));
    }
    if let Some(quote) = text.chars().next().filter(|c| *c == '\'' || *c == '"') {
        let inner = &text[1..];
        let end = inner.find(quote)?;
        let after = inner[end + 1..].strip_prefix(']')?;
        return Some((Step::Field(inner[..end].replace("\\.", ".")), after));
    }
    let (inner, after) = text.split_once(']')?;
    let step = if inner == "*" { Step::All } else { Step::Index(inner.parse().ok()?) };
    Some((step, after))
}

fn filter(text: &str) -> Option<Step> {
    let (left, equal, right) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => return None,
    };
    let path = left.trim().strip_prefix('@')?.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let right = right.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| right.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = match quoted {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter { path, equal, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds() {
        let object = json!({"a": {"b.c": [1, 2, {"x": "y"}]}, "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]});
        for (path, expected) in [
            (".a", json!([{"b.c": [1, 2, {"x": "y"}]}])),
            (r".a.b\.c[0]", json!([1])),
            (".a['b.c'][-1].x", json!(["y"])),
            (".a['b.c'][*]", json!([1, 2, {"x": "y"}])),
            (r#".conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".conditions[?(@.type!='Ready')].status", json!(["False"])),
            ("{.conditions[9].type}", json!([])),
            (".none.at.all", json!([])),
        ] {
            let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), expected, "{path}");
        }
    }

    #[test]
    fn malformed() {
        for path in [".a[", ".a[x]", ".a[?(@.b)]", ".a['b]", ".a..b"] {
            assert!(JsonPath::parse(path).is_none(), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(text in "[.a\\[\\]'?(@=)0*\\\\ü]{0,16}") {
            if let Some(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [1]}));
            }
        }
    }
}
