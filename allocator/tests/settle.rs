//! A process that settles starts over once, and is then the same process with the settings.

use std::process::Command;

/// Marks the process that the test starts.
const CHILD: &str = "MESHLAB_ALLOCATOR_TEST_CHILD";

#[test]
#[expect(clippy::print_stdout, reason = "how the child tells")]
fn a_settled_process_has_the_settings_its_arguments_and_its_id() {
    if std::env::var_os(CHILD).is_some() {
        meshlab_allocator::settle().expect("it starts over");
        let setting = |name| std::env::var(name).unwrap_or_default();
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        println!(
            "settled: {} {} {} {arguments:?}",
            std::process::id(),
            setting("MIMALLOC_ALLOW_THP"),
            setting("MIMALLOC_PURGE_DELAY")
        );
        return;
    }
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "a_settled_process_has_the_settings_its_arguments_and_its_id", "--nocapture"];
    let child = Command::new(this)
        .args(arguments)
        .env(CHILD, "1")
        .env_remove("MIMALLOC_ALLOW_THP")
        // What somebody has set is kept.
        .env("MIMALLOC_PURGE_DELAY", "7")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("settled: {id} 0 7 {arguments:?}")), "{text}");
}
