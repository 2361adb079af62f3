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
    insta::assert_snapshot!(table.replace('\r', ""), @r#"
    submission,reached,possible,total,passed,failed,skipped,unmeasured,problems,broken,strict
    alice,1,1,1,1,0,0,0,,,1
    bob,0,1,1,0,1,0,0,,,0
    carol,0,1,1,0,1,0,0,"strict.yaml: line 4 column 2: tabs disallowed within this context (block indentation)
     --> <input>:4:2
      |
    2 | kind: Namespace
    3 | metadata:
    4 |   name: shop
      |   ^ tabs disallowed within this context (block indentation)",,0
    dave,0,1,1,0,1,0,0,strict.yaml: there is no such file,,0
    eve,1,1,1,1,0,0,0,strict.yaml: Deployment many: 100000 replicas; 10 are the most; strict.yaml: the cluster has no kind Pott in v1,,1
    "#);
    assert!(said.ends_with("exit 1\n") && said.contains("/5] alice 1/1\n"), "{said}");
    assert!(home.path("out/eve.csv").is_file());
}
