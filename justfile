# The everyday tasks. `just` alone lists them.

default:
    @just --list

# Run all tests, as CI does.
test:
    cargo test --workspace --locked

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Format everything.
fmt:
    cargo fmt --all

# Start the lab from this tree.
start *ARGS:
    cargo run --release -p meshlab -- start {{ARGS}}

# Everything that must pass before a change lands.
ci:
    .ci/run

# Run a fuzz target for a while, or list the targets: `just fuzz`, `just fuzz spdy 60`.
fuzz TARGET="" SECONDS="60":
    cargo fuzz {{ if TARGET == "" { "list" } else { "run -s none " + TARGET + " -- -rss_limit_mb=4096 -max_total_time=" + SECONDS } }}

# What a request costs beside Envoy, and how fast a change reaches the last of many proxies; both as tables.
bench:
    cargo bench --profile dist -p meshlab-proxy --bench side_by_side
    cargo bench -p meshlab-control --bench convergence

# Licences, advisories and duplicate crates.
deny:
    cargo deny check
