//! `explain`: one request, and who decided what.

use std::collections::BTreeMap;

use super::Session;
use crate::cli::{ExplainArgs, Plain};
use crate::error::{CommandError, Exit, Hint};
use crate::explain::{Asked, Origin, explain, render};
use crate::output::{colour, print};

pub(super) async fn run(session: &Session, args: &ExplainArgs) -> Result<Exit, CommandError> {
    let from = Origin::parse(&args.from, &session.lab)?;
    let asked = asked(args, from.name())?;
    let client = session.client().await?;
    let explanation = explain(&client, &session.lab, &from, asked).await?;
    match args.output {
        Plain::Text => print(&render(&explanation, session.language, colour())),
        Plain::Json => {
            let value = serde_json::to_value(&explanation).map_err(|error| CommandError::failed(error.to_string()))?;
            print(&format!("{value:#}\n"));
        }
    }
    // Whatever came back was explained; that was the task.
    Ok(Exit::Ok)
}

fn asked(args: &ExplainArgs, from: String) -> Result<Asked, CommandError> {
    let (method, url) = match args.request.as_slice() {
        [url] => ("GET".to_owned(), url),
        [method, url] => (method.to_ascii_uppercase(), url),
        _ => return Err(CommandError::usage("a URL is wanted")),
    };
    http::Method::from_bytes(method.as_bytes()).map_err(|_| CommandError::usage(format!("{method:?} is no method")))?;
    if url.starts_with('/') {
        return Err(CommandError::usage(format!("{url}: a host is missing"))
            .with_hint(Hint::new(format!("for example http://webapp.istio.local{url}"))));
    }
    let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
    let mut headers = BTreeMap::new();
    for header in &args.header {
        let malformed = || CommandError::usage(format!("header {header:?}")).with_hint(Hint::new("write it as 'name: value'"));
        let (name, value) = header.split_once(':').ok_or_else(malformed)?;
        let name = http::HeaderName::try_from(name.trim()).map_err(|_| malformed())?;
        http::HeaderValue::try_from(value.trim()).map_err(|_| malformed())?;
        headers.insert(name.to_string(), value.trim().to_owned());
    }
    crate::explain::check_url(&url)?;
    Ok(Asked { method, url, headers, from })
}
