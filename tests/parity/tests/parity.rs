//! Runs all case files, or those whose name holds an argument: `cargo test -p meshlab-parity -- retries`.

#![expect(clippy::print_stdout, reason = "a test of its own harness: its report is its output")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use futures::StreamExt;
use meshlab_parity::case;
use meshlab_parity::certificates::Authority;
use meshlab_parity::envoy;
use meshlab_parity::place::Ports;
use meshlab_parity::run::{self, Bench, Outcome, Verdict};
use meshlab_parity::shares::ERROR_RATE;
use meshlab_parity::tokens::Keys;
use meshlab_parity::upstream::Upstreams;
use meshlab_parity::world::World;

/// Envoys that run at the same time.
const AT_ONCE: usize = 3;

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(suite(&wanted))
}

async fn suite(wanted: &[String]) -> Result<ExitCode> {
    let started = Instant::now();
    let mut subjects = case::load(&run::data().join("cases"))?;
    let tests = run::number_of_tests(&subjects).max(1);
    subjects.retain(|subject| wanted.is_empty() || wanted.iter().any(|name| subject.name.contains(name.as_str())));
    let world = World::load(&run::data().join("world.yaml"))?;
    let authority = Authority::new()?;
    let bench = Bench {
        upstreams: Upstreams::start(world.pods().cloned(), &authority).await?,
        world,
        authority,
        keys: Keys::new()?,
        ports: Ports::default(),
        envoy: envoy::find().await?,
        threshold: ERROR_RATE / tests as f64,
    };
    let bench = &bench;
    let running = subjects.iter().map(|subject| async move { (subject, run::run(bench, subject).await) });
    let results: Vec<_> = futures::stream::iter(running).buffered(AT_ONCE).collect().await;

    let mut failed = 0;
    let mut rows = Vec::new();
    let mut total = (0, 0, 0);
    for (subject, result) in results {
        let outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(error) => {
                println!("{}: {error:#}\n", subject.name);
                failed += 1;
                continue;
            }
        };
        let stated = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Stated)).count();
        let same = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Same)).count();
        failed += report(&outcomes);
        total = (total.0 + outcomes.len(), total.1 + same, total.2 + stated);
        rows.push((subject.name.clone(), outcomes.len(), same, stated));
    }
    println!("{:<20} {:>6} {:>6} {:>19} {:>7}", "subject", "cases", "same", "stated differences", "failed");
    rows.push(("all".into(), total.0, total.1, total.2));
    for (name, cases, same, stated) in &rows {
        println!("{name:<20} {cases:>6} {same:>6} {stated:>19} {:>7}", cases - same - stated);
    }
    println!(
        "\nEnvoy {}; {tests} tests of shares, error rate of the suite {ERROR_RATE}; {:.1} s",
        envoy::VERSION,
        started.elapsed().as_secs_f64()
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(outcomes: &[Outcome]) -> usize {
    let mut failed = 0;
    for outcome in outcomes {
        if let Verdict::Failed(problems) = &outcome.verdict {
            failed += 1;
            println!("{}\n    {}\n", outcome.name, problems.join("\n    "));
        }
    }
    failed
}
