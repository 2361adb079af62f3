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
    #!/usr/bin/env bash
    set -euo pipefail
    [ -n "{{TARGET}}" ] || exec cargo fuzz list
    target=${MESHLAB_FUZZ_TARGET:-{{TARGET}}}
    mkdir -p fuzz/corpus/$target
    exec cargo fuzz run -s none {{TARGET}} fuzz/corpus/$target fuzz/seeds/$target -- \
        -rss_limit_mb=4096 -timeout=10 -max_total_time={{SECONDS}}

# The figures, as tables: the lab, the cluster, a request beside Envoy, a change that reaches many proxies, telemetry.
bench:
    cargo bench -p meshlab --bench lab
    cargo bench -p meshlab-cluster
    cargo bench --profile dist -p meshlab-proxy --bench side_by_side
    cargo bench --profile dist -p meshlab-proxy --bench telemetry
    cargo bench -p meshlab-control --bench convergence
    cargo bench -p meshlab-observe

# Licences, advisories and duplicate crates.
deny:
    cargo deny check
