//! The lab proves itself: starters fail, solutions pass, and every broken variant fails at the check it names and is told its hint.
//!
//! A test binary of its own: nothing else runs beside it, since some checks look at how long an answer takes.

use anyhow::{Result, ensure};

#[tokio::test(flavor = "multi_thread")]
async fn every_control_of_phase3_fails_where_it_says() -> Result<()> {
    let lab = meshlab_runner::labs::load("phase3", None)?;
    let problems = lab.lint();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let mut findings = Vec::new();
    let failures = meshlab_runner::lab_test::test(&lab, None, |finding| findings.push(finding)).await?;
    ensure!(failures == 0, "{}", findings.join("\n"));
    Ok(())
}
