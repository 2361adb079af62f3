//! How fast, and how large: the figures that the addons promise, each beside what is measured here.
//!
//! `cargo bench -p meshlab-observe` prints the table; with arguments, only the rows whose name contains one of them. What
//! telemetry adds to a request is the proxy's: `cargo bench -p meshlab-proxy --bench telemetry`.
//!
//! What was found on two cores that others were busy on, hence processor time. The query took 290 ms to 375 ms when every series
//! was a row of its own, with its times decoded and its windows found each for itself; 87 ms with shared times, windows found
//! once for all series of a target, and rates that are folded as they come; 65 ms with fewer, longer chunks: 35 ms by the clock
//! when both cores are to be had. The samples of the memory row take 4 MB instead of 46. What else they take are labels and lists
//! by label, about 600 bytes a series; huge pages doubled it (see `meshlab_allocator`), and so did labels that were copied before
//! they were looked up.

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
