//! Label selectors, from query parameters and from objects.

use serde_json::Value;

use super::MAX_LENGTH;
use crate::{Status, validation::names};

/// A parsed label selector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Selects nothing at all, as a missing selector in an object does.
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// One of the values; also `=` and `==`.
    In,
    /// None of the values, or no such label; also `!=`.
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// From a query parameter: `app=web,tier!=db,env in (a,b),!canary`.
    ///
    /// # Errors
    /// 400 in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if text.len() > MAX_LENGTH {
            return Err(Status::bad_request(format!("unable to parse requirement: longer than {MAX_LENGTH} bytes")));
        }
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let requirements = parser.selector().map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self { requirements, nothing: false })
    }

    /// From an object's `LabelSelector` (`matchLabels`, `matchExpressions`). A missing one (`null`) selects nothing, an empty one
    /// everything.
    ///
    /// # Errors
    /// 400 in Kubernetes' words.
    pub fn from_value(selector: &Value) -> Result<Self, Status> {
        if selector.is_null() {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(Status::bad_request(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let values = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement { key: text("key").to_owned(), operator, values });
        }
        for requirement in &requirements {
            requirement.check().map_err(Status::bad_request)?;
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From a map of labels that all have to be there, such as a Service's `spec.selector`. A missing or empty one selects nothing.
    pub fn from_labels(labels: Option<&Value>) -> Self {
        let labels = labels.and_then(Value::as_object);
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        let requirements: Vec<Requirement> = labels.into_iter().flatten().map(requirement).collect();
        Self { nothing: requirements.is_empty(), requirements }
    }

    /// Whether the labels (an object's `metadata.labels`, or `None`) match.
    pub fn matches(&self, labels: Option<&Value>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

/// As a query parameter says it.
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(f, "{key}={values}"),
            (Operator::In, _) => write!(f, "{key} in ({values})"),
            (Operator::NotIn, 1) => write!(f, "{key}!={values}"),
            (Operator::NotIn, _) => write!(f, "{key} notin ({values})"),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, _) => write!(f, "{key}>{values}"),
            (Operator::LessThan, _) => write!(f, "{key}<{values}"),
        }
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |holds: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| number(bound));
            matches!((label.and_then(number), bound), (Some(value), Some(bound)) if holds(value, bound))
        };
        match self.operator {
            Operator::In => label.is_some_and(|label| self.values.iter().any(|value| value == label)),
            Operator::NotIn => label.is_none_or(|label| self.values.iter().all(|value| value != label)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compare(|value, bound| value > bound),
            Operator::LessThan => compare(|value, bound| value < bound),
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(fault) = names::qualified_name(&self.key).first() {
            return Err(format!("key: Invalid value: {:?}: {fault}", self.key));
        }
        let faulty = match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if self.values.iter().any(|value| value.parse::<i64>().is_err()) => {
                Some("for 'Gt', 'Lt' operators, the value must be an integer")
            }
            _ => None,
        };
        if let Some(why) = faulty {
            return Err(format!("values: Invalid value: {:?}: {why}", self.values));
        }
        for (index, value) in self.values.iter().enumerate() {
            if let Some(fault) = names::label_value(value).first() {
                return Err(format!("values[{index}][{}]: Invalid value: {value:?}: {fault}", self.key));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
}

/// Symbols, the longer ones first.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", "<", ">"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn skip(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol);
        if found {
            self.at += 1;
        }
        found
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        while self.peek().is_some() {
            let requirement = self.requirement()?;
            requirement.check()?;
            requirements.push(requirement);
            match self.next() {
                None => break,
                // A trailing comma is an error, as in Kubernetes.
                Some(Token::Symbol(",")) if self.peek().is_some() => {}
                Some(Token::Symbol(",")) => return Err("found '', expected: identifier after ','".to_owned()),
                Some(other) => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
        Ok(requirements)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.skip("!");
        let key = match self.next() {
            Some(Token::Word(key)) => key,
            other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", text(other.as_ref()))),
        };
        let end = matches!(self.peek(), None | Some(Token::Symbol(",")));
        if absent || end {
            let operator = if absent { Operator::DoesNotExist } else { Operator::Exists };
            return Ok(Requirement { key, operator, values: Vec::new() });
        }
        let (operator, values) = match self.next() {
            Some(Token::Symbol("=" | "==")) => (Operator::In, vec![self.value()]),
            Some(Token::Symbol("!=")) => (Operator::NotIn, vec![self.value()]),
            Some(Token::Symbol(">")) => (Operator::GreaterThan, vec![self.value()]),
            Some(Token::Symbol("<")) => (Operator::LessThan, vec![self.value()]),
            Some(Token::Word(word)) if word == "in" => (Operator::In, self.values()?),
            Some(Token::Word(word)) if word == "notin" => (Operator::NotIn, self.values()?),
            other => {
                let found = text(other.as_ref());
                return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        Ok(Requirement { key, operator, values })
    }

    /// A value, or an empty one where none stands.
    fn value(&mut self) -> String {
        match self.peek().cloned() {
            Some(Token::Word(value)) => {
                self.at += 1;
                value
            }
            _ => String::new(),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.skip("(") {
            return Err(format!("found '{}' expected: '('", text(self.peek())));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value());
            if self.skip(",") {
                continue;
            }
            if self.skip(")") {
                return Ok(values);
            }
            return Err(format!("found '{}', expected: ',' or ')'", text(self.peek())));
        }
    }
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Symbol(symbol) => symbol,
        }
    }
}

fn text(token: Option<&Token>) -> &str {
    token.map(Token::text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn selects() {
        let labels = json!({"app": "web", "env": "a", "n": "5"});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,env!=b", true),
            ("env in (a, b)", true),
            ("env notin (a)", false),
            ("gone notin (a)", true),
            ("app", true),
            ("!app", false),
            ("! gone", true),
            ("n>4,n<6", true),
            ("gone=", false),
            (" app = web , env ", true),
        ] {
            assert_eq!(LabelSelector::parse(selector).unwrap().matches(Some(&labels)), expected, "{selector}");
        }
    }

    #[test]
    fn faults() {
        let message = |text| LabelSelector::parse(text).unwrap_err().message;
        insta::assert_snapshot!(message("app=web="), @"unable to parse requirement: found '=', expected: ',' or 'end of string'");
        insta::assert_snapshot!(message("app in web"), @"unable to parse requirement: found 'web' expected: '('");
        insta::assert_snapshot!(message("a,"), @"unable to parse requirement: found '', expected: identifier after ','");
        assert!(message("a=b c").contains("found 'c'"));
        assert!(message("-a=b").contains("name part must consist of"));
    }

    #[test]
    fn of_objects() {
        let selector = |value| LabelSelector::from_value(&value).unwrap();
        let labels = json!({"app": "web"});
        assert!(selector(json!({"matchLabels": {"app": "web"}})).matches(Some(&labels)));
        assert!(
            selector(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]})).matches(Some(&labels))
        );
        assert!(selector(json!({})).matches(None));
        assert!(!selector(json!(null)).matches(Some(&labels)));
        assert!(!LabelSelector::from_labels(None).matches(Some(&labels)));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-c=!,()<> in]{0,20}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
