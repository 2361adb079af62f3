//! `kubectl wait`.

use std::time::Duration;

use serde_json::Value;

use super::change::wait_until_gone;
use super::cli::Wait;
use super::jsonpath::{Template, text};
use super::rest::{self, Failure, JSON};
use super::{Session, Step};
use crate::output::print;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is waited for.
enum Wanted {
    Condition(String, String),
    Path(Template, Option<String>),
    Gone,
    There,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "True"));
            return Ok(Self::Condition(name.to_owned(), value.to_owned()));
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            let (path, value) = match path.rsplit_once("}=") {
                Some((path, value)) => (format!("{path}}}"), Some(value.to_owned())),
                None => (path.to_owned(), None),
            };
            return Ok(Self::Path(Template::parse(&path).map_err(Failure::new)?, value));
        }
        match text {
            "delete" => Ok(Self::Gone),
            "create" => Ok(Self::There),
            _ => Err(Failure::new(format!("unrecognized condition: {text:?}"))),
        }
    }

    fn holds(&self, object: &Value) -> bool {
        match self {
            Self::Condition(name, value) => object["status"]["conditions"].as_array().is_some_and(|conditions| {
                let is_it = |condition: &&Value| text(&condition["type"]).eq_ignore_ascii_case(name);
                conditions.iter().find(is_it).is_some_and(|found| text(&found["status"]).eq_ignore_ascii_case(value))
            }),
            Self::Path(template, wanted) => {
                let found = template.render(object);
                wanted.as_ref().map_or(!found.is_empty(), |wanted| found == *wanted)
            }
            Self::Gone => false,
            Self::There => true,
        }
    }
}

pub(super) async fn run(session: &Session, args: &Wait) -> Result<Step, Failure> {
    let wanted = Wanted::parse(&args.wanted)?;
    let timed_out = |what: &str| Failure::new(format!("timed out waiting for the condition on {what}"));
    let deadline = tokio::time::Instant::now() + args.timeout;
    for target in session.targets(&args.what, &args.select)? {
        let found = loop {
            match session.objects(&target, &args.select).await {
                Err(failure) if failure.is_not_found() && matches!(wanted, Wanted::There) => {}
                Err(failure) if failure.is_not_found() && matches!(wanted, Wanted::Gone) => break Vec::new(),
                result => break result?,
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(timed_out(&target.resource().plural));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        if found.is_empty() && !matches!(wanted, Wanted::Gone) {
            return Err(Failure::new("no matching resources found"));
        }
        for (resource, object) in found {
            let name = text(&object["metadata"]["name"]);
            let label = resource.of(&name);
            let path = rest::path(&resource, object["metadata"]["namespace"].as_str(), Some(&name));
            let reached = async {
                if matches!(wanted, Wanted::Gone) {
                    return wait_until_gone(session, &path, &object["metadata"]["uid"]).await;
                }
                while !wanted.holds(&session.rest.get(&path, JSON).await?) {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(())
            };
            tokio::time::timeout_at(deadline, reached).await.map_err(|_| timed_out(&label))??;
            print(&format!("{label} {}\n", if matches!(wanted, Wanted::Gone) { "deleted" } else { "condition met" }));
        }
    }
    Ok(Step::Done)
}
