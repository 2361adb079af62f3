//! Expectations in words, for people who never see how an author writes them.

use serde_json::{Map, Value};

use crate::assertion::is_operators;
use crate::{Language, Text};

/// What an expectation wants, in both languages: `{providers: something that contains {name: "envoy"}}`.
pub(crate) fn of(expected: &Value) -> Text {
    Text { ja: brief(&words(expected, Language::Ja)), en: brief(&words(expected, Language::En)) }
}

/// A value as JSON on one line; a long one keeps its beginning.
pub(crate) fn value(value: &Value) -> String {
    brief(&value.to_string())
}

fn words(expected: &Value, language: Language) -> String {
    match expected {
        Value::Object(fields) if is_operators(fields) => operators(fields, language),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {}", words(value, language))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| words(item, language)).collect();
            format!("[{}]", items.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

fn operators(fields: &Map<String, Value>, language: Language) -> String {
    let all: Vec<String> = fields.iter().map(|(operator, operand)| one_operator(operator, operand, language)).collect();
    all.join(match language {
        Language::En => " and ",
        Language::Ja => "、かつ ",
    })
}

fn one_operator(operator: &str, operand: &Value, language: Language) -> String {
    let nested = || words(operand, language);
    let joined = |word: &str| {
        let options = operand.as_array().into_iter().flatten().map(|option| words(option, language));
        options.collect::<Vec<_>>().join(word)
    };
    let text = operand.as_str().map_or_else(|| operand.to_string(), str::to_owned);
    match (operator, language) {
        ("$regex", Language::En) => format!("something like /{text}/"),
        ("$regex", Language::Ja) => format!("/{text}/ に合うもの"),
        ("$gt", Language::En) => format!("more than {text}"),
        ("$gt", Language::Ja) => format!("{text} より大きい値"),
        ("$gte", Language::En) => format!("at least {text}"),
        ("$gte", Language::Ja) => format!("{text} 以上"),
        ("$lt", Language::En) => format!("less than {text}"),
        ("$lt", Language::Ja) => format!("{text} 未満"),
        ("$lte", Language::En) => format!("at most {text}"),
        ("$lte", Language::Ja) => format!("{text} 以下"),
        ("$oneOf", Language::En) => joined(" or "),
        ("$oneOf", Language::Ja) => joined(" または "),
        ("$all", Language::En) => joined(" and "),
        ("$all", Language::Ja) => joined("、かつ "),
        ("$not", Language::En) => format!("anything but {}", nested()),
        ("$not", Language::Ja) => format!("{} 以外", nested()),
        ("$absent", Language::En) => if operand == true { "nothing" } else { "something" }.to_owned(),
        ("$absent", Language::Ja) => if operand == true { "値なし" } else { "何らかの値" }.to_owned(),
        ("$contains", Language::En) => format!("something that contains {}", nested()),
        ("$contains", Language::Ja) => format!("{} を含むもの", nested()),
        ("$each", Language::En) => format!("a list, not empty, of {}", nested()),
        ("$each", Language::Ja) => format!("{} だけの、空でないリスト", nested()),
        ("$length", Language::En) => format!("a length of {}", nested()),
        ("$length", Language::Ja) => format!("長さ {}", nested()),
        // The comparison names an operator that there is not before anything is put into words.
        _ => format!("{operator} {}", nested()),
    }
}

fn brief(text: &str) -> String {
    const LONGEST: usize = 400;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}… ({} characters)", &text[..cut], text.chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::words;
    use crate::Language;

    #[test]
    fn every_operator_has_words_in_both_languages() {
        let expected = json!([
            {"$regex": "^v1"},
            {"$gt": 1, "$lte": 3},
            {"$gte": "5", "$lt": 9},
            {"$oneOf": [{"$absent": true}, false]},
            {"$all": [{"$contains": {"name": "envoy"}}, {"$length": 2}]},
            {"$each": {"$not": "x"}},
            {"a": {"$absent": false}},
        ]);
        let lines = |language| {
            let items = expected.as_array().into_iter().flatten().map(|item| words(item, language));
            items.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(lines(Language::En), @r#"
        something like /^v1/
        more than 1 and at most 3
        at least 5 and less than 9
        nothing or false
        something that contains {name: "envoy"} and a length of 2
        a list, not empty, of anything but "x"
        {a: something}
        "#);
        insta::assert_snapshot!(lines(Language::Ja), @r#"
        /^v1/ に合うもの
        1 より大きい値、かつ 3 以下
        5 以上、かつ 9 未満
        値なし または false
        {name: "envoy"} を含むもの、かつ 長さ 2
        "x" 以外 だけの、空でないリスト
        {a: 何らかの値}
        "#);
    }
}
