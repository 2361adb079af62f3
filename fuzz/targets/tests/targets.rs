//! Every target takes its seeds, and libFuzzer knows every target.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshlab_fuzz_targets::{TARGETS, target};

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The seeds of a target, by name: files that a fuzzer starts from, some of which once broke something.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{target} has no seeds in {}: {error}", folder.display()));
    files.map(|file| file.unwrap()).map(|file| (file.path().display().to_string(), fs::read(file.path()).unwrap())).collect()
}

#[test]
fn every_target_takes_its_seeds() {
    // A task that panics takes nobody with it, so that only the hook tells.
    let panics = Arc::new(AtomicUsize::new(0));
    let (count, report) = (panics.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        count.fetch_add(1, Ordering::Relaxed);
        report(panic);
    }));
    let bytes: Vec<u8> = (0..=255).collect();
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (seed, input) in
            [("nothing".to_owned(), Vec::new()), ("all bytes".to_owned(), bytes.clone())].into_iter().chain(seeds)
        {
            run(&input);
            assert_eq!(panics.load(Ordering::Relaxed), 0, "{name} panics at {seed}");
        }
    }
}

#[test]
fn every_seed_has_its_target() {
    for folder in fs::read_dir(fuzz().join("seeds")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(target(&name).is_some(), "there is no target {name}");
    }
}

#[test]
fn the_names_are_sorted_and_libfuzzer_knows_each() {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted(), "`target` looks by halving");
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let known: BTreeSet<_> = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let expected: BTreeSet<_> = names.iter().copied().chain(["any", "meshlab-fuzz"]).collect();
    assert_eq!(known, expected);
    for name in names {
        let binary = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(binary.contains(&format!("fuzz!({name:?})")), "fuzz_targets/{name}.rs fuzzes something else");
    }
}
