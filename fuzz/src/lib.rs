//! Joins libFuzzer to [`meshlab_fuzz_targets`].

pub use libfuzzer_sys;
pub use meshlab_fuzz_targets::target;

/// Fuzzes the target of this name.
#[macro_export]
macro_rules! fuzz {
    ($name:expr) => {
        static TARGET: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();

        $crate::libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            let run = TARGET.get_or_init(|| {
                let name: &str = &$name;
                $crate::target(name).unwrap_or_else(|| panic!("there is no target {name}"))
            });
            run(input);
        });
    };
}
