//! How fast, and how large: the figures that the addons promise, each beside what is measured here.
//!
//! `cargo bench -p meshlab-observe` prints the table; with arguments, only the rows whose name contains one of them. What
//! telemetry adds to a request is the proxy's: `cargo bench -p meshlab-proxy --bench telemetry`.

mod fixtures;
mod memory;
mod query;
mod scrape;
mod search;

/// That of the binary that is handed out.
#[global_allocator]
static ALLOCATOR: meshlab_allocator::MiMalloc = meshlab_allocator::MiMalloc;

/// One row of the table.
struct Row {
    what: &'static str,
    at_most: &'static str,
    measured: String,
}

type Measure = fn() -> Row;

fn main() {
    meshlab_allocator::settle().expect("the program can be started over");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == memory::SERVE) {
        return memory::serve();
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let rows: [(&str, Measure); 4] =
        [("scrape", scrape::measure), ("query", query::measure), ("search", search::measure), ("memory", memory::measure)];
    print("what", "at most", "measured");
    for (name, measure) in rows {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            let row = measure();
            print(row.what, row.at_most, &row.measured);
        }
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn print(what: &str, at_most: &str, measured: &str) {
    println!("{what:<75} | {at_most:>7} | {measured}");
}
