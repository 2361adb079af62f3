//! The course itself: every step's solution passes its checks, in order, and every command of the text runs as it stands there.

use anyhow::Result;
use meshlab_checks::Language;

use crate::lab::TestLab;

#[tokio::test(flavor = "multi_thread")]
async fn the_solved_course_passes_and_its_commands_run() -> Result<()> {
    let lab = TestLab::start().await?;
    for step in &lab.lab.steps {
        lab.solve(&step.file.id).await?;
        for language in Language::ALL {
            for command in meshlab_runner::commands_of(&step.text[language.tag()]) {
                // `meshlab` itself is driven by tests of its own; here it is the words around kubectl that are tried.
                if !command.contains("meshlab") {
                    lab.shell(&command).await?;
                }
            }
        }
        lab.must_pass(&step.file.id).await?;
    }
    for step in &lab.lab.steps {
        lab.must_pass(&step.file.id).await?;
    }
    lab.cluster.stop().await;
    Ok(())
}
