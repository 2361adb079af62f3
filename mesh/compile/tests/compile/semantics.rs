//! `docs/semantics.md` names, for every fact of the Istio API, the tests that prove it. A test says which fact it proves by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const FACTS: u32 = 51;
/// Where the page's tables from kubectl to traffic begin.
const END_TO_END: &str = "## From kubectl to traffic";

/// The tests of a folder by the number in their names, as `crate: test, test`.
fn tests(mesh: &Path) -> BTreeMap<u32, BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<u32, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for part in std::fs::read_dir(mesh).unwrap() {
        let part = part.unwrap();
        for folder in ["src", "tests"] {
            read(&part.path().join(folder), &mut |name| {
                let number = name.strip_prefix("fact_").and_then(|rest| rest.get(..2)?.parse().ok());
                if let Some(number) = number {
                    let crate_name = part.file_name().to_string_lossy().into_owned();
                    found.entry(number).or_default().entry(crate_name).or_default().insert(name.to_owned());
                }
            });
        }
    }
    found
}

/// Every function of the Rust files in a folder.
fn read(folder: &Path, on_function: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, on_function);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let line = line.trim_start();
                let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if let Some((name, _)) = rest.and_then(|rest| rest.split_once('(')) {
                    on_function(name);
                }
            }
        }
    }
}

#[test]
fn every_fact_has_a_test_and_the_page_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let rows: BTreeMap<u32, &str> =
        page.lines().filter_map(|line| Some((line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok()?, line))).collect();
    let tests = tests(&root.join("mesh"));
    assert!(tests.keys().all(|number| (1..=FACTS).contains(number)), "a number that is no fact: {:?}", tests.keys());
    let mut wrong = Vec::new();
    for number in 1..=FACTS {
        let Some(proofs) = tests.get(&number) else {
            wrong.push(format!("fact {number} has no test whose name begins with fact_{number:02}_"));
            continue;
        };
        let listed: Vec<_> = proofs
            .iter()
            .map(|(part, names)| {
                let names: Vec<_> = names.iter().map(|name| format!("`{}`", &name["fact_00_".len()..])).collect();
                format!("{part}: {}", names.join(", "))
            })
            .collect();
        let cell = format!("| {} |", listed.join("; "));
        if !rows.get(&number).is_some_and(|row| row.ends_with(&cell)) {
            wrong.push(format!("docs/semantics.md, row {number}, should end in\n{cell}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names in the tables from kubectl to traffic: what stands between backquotes in their rows, of the form `a::b` or `a/b`.
fn listed(page: &str) -> BTreeSet<&str> {
    let (_, tables) = page.split_once(END_TO_END).expect("the page has the heading");
    let rows = tables.lines().filter(|line| line.starts_with("| "));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn what_the_page_lists_from_kubectl_to_traffic_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/semantics.md")).unwrap();
    let listed = listed(&page);
    let mut there = BTreeSet::new();
    let features = root.join("tests/tests/features");
    for module in ["routing", "destinations", "gateways", "external", "security"] {
        let text = std::fs::read_to_string(features.join(format!("{module}.rs"))).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("pub(crate) async fn ")?.split('(').next());
        there.extend(names.map(|name| format!("{module}::{name}")));
    }
    let missing: Vec<_> = there.iter().filter(|name| !listed.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "features that docs/semantics.md does not list: {missing:?}");
    read(&root.join("mesh/agent/tests"), &mut |name| {
        there.insert(format!("agent::{name}"));
    });
    for step in std::fs::read_dir(root.join("labs/phase3")).unwrap() {
        let step = step.unwrap();
        let checks = std::fs::read_to_string(step.path().join("checks.yaml")).unwrap_or_default();
        let ids = checks.lines().filter_map(|line| line.trim_start().strip_prefix("- id: "));
        there.extend(ids.map(|id| format!("{}/{id}", step.file_name().to_string_lossy())));
    }
    let gone: Vec<_> = listed.iter().filter(|name| !there.contains(**name)).collect();
    assert!(gone.is_empty(), "docs/semantics.md lists what is not there: {gone:?}");
}
