//! `grade`: a small lab of the author's kit, so that many clusters fit into a test.

use crate::harness::Home;

const SOLUTION: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

#[test]
fn every_submission_gets_its_verdict() {
    let home = Home::new();
    home.line("lab new mine");
    home.write("in/alice/strict.yaml", SOLUTION);
    home.write("in/bob/strict.yaml", &SOLUTION.replace("STRICT", "PERMISSIVE"));
    home.write("in/carol/strict.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n\tname: shop\n");
    home.write("in/dave/notes.txt", "no files of the course");
    home.write("in/eve/strict.yaml", &format!("{SOLUTION}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many, namespace: shop}}\nspec: {{replicas: 100000}}\n---\napiVersion: v1\nkind: Pott\nmetadata: {{name: x}}\n"));
    let graded = home.line("--labs . grade in --lab mine --output csv --jobs 2 --reports out");
    let (table, said) = graded.split_once("--\n").unwrap();
    insta::assert_snapshot!(table.replace('\r', ""), @"");
    assert!(said.ends_with("exit 1\n") && said.contains("/5] alice 1/1\n"), "{said}");
    assert!(home.path("out/eve.csv").is_file());
}
