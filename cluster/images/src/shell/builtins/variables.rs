//! `export`, `readonly`, `local`, `unset` and `set`.

use brush_parser::word::Parameter;

use super::super::state::{Shell, Status, Variable};
use super::quote;

impl Shell {
    pub(super) async fn declare(&mut self, builtin: &str, arguments: &[String]) -> Status {
        let export = builtin == "export";
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        if names.is_empty() {
            let shown = self.variables.iter().filter(|(_, variable)| if export { variable.exported } else { variable.read_only });
            let lines: String = shown.map(|(name, variable)| format!("{builtin} {name}={}\n", quote(&variable.value))).collect();
            return self.say(lines.as_bytes()).await;
        }
        for argument in names {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            if !is_name(name) {
                return self.fail(builtin, &format!("{name}: bad variable name")).await.map(|_| 2);
            }
            if let Some(value) = value
                && let Err(message) = self.set(name, value)
            {
                return self.fail(builtin, &message).await;
            }
            if let Some(variable) = self.variables.get_mut(name) {
                variable.exported |= export;
                variable.read_only |= !export;
            }
        }
        Ok(0)
    }

    pub(super) async fn local(&mut self, arguments: &[String]) -> Status {
        if self.scopes.is_empty() {
            return self.fail("local", "not in a function").await;
        }
        for argument in arguments {
            let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(name, value)| (name, Some(value)));
            let hidden = self.variables.remove(name);
            let exported = hidden.as_ref().is_some_and(|variable| variable.exported);
            if let Some(scope) = self.scopes.last_mut() {
                scope.entry(name.to_owned()).or_insert(hidden);
            }
            if let Some(value) = value {
                self.variables.insert(name.to_owned(), Variable { value: value.to_owned(), exported, read_only: false });
            }
        }
        Ok(0)
    }

    pub(super) async fn unset(&mut self, arguments: &[String]) -> Status {
        for name in arguments.iter().filter(|name| !matches!(name.as_str(), "-v" | "-f")) {
            if self.variables.get(name).is_some_and(|variable| variable.read_only) {
                return self.fail("unset", &format!("{name}: is read only")).await;
            }
            self.variables.remove(name);
            self.functions.remove(name);
        }
        Ok(0)
    }

    pub(super) async fn set_options(&mut self, arguments: &[String]) -> Status {
        if arguments.is_empty() {
            let lines: String =
                self.variables.iter().map(|(name, variable)| format!("{name}={}\n", quote(&variable.value))).collect();
            return self.say(lines.as_bytes()).await;
        }
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let on = word.starts_with('-');
            if word == "--" || word == "-" || !(on || word.starts_with('+')) {
                let first = (word != "--" && word != "-").then(|| word.clone());
                self.positional = first.into_iter().chain(words.cloned()).collect();
                return Ok(0);
            }
            for letter in word[1..].chars() {
                let result = match letter {
                    'o' => words.next().map_or(Ok(()), |name| self.options.set(name, on)),
                    letter => self.options.set_letter(letter, on),
                };
                if let Err(message) = result {
                    return self.fail("set", &message).await.map(|_| 2);
                }
            }
        }
        Ok(0)
    }
}

fn is_name(name: &str) -> bool {
    matches!(brush_parser::word::parse_parameter(name, &brush_parser::ParserOptions::default()), Ok(Parameter::Named(parsed)) if parsed == name)
}
