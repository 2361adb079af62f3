//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use meshlab_checks::Language;
use meshlab_checks::report::Format;

/// Learn, teach and grade the service mesh.
///
/// Exit codes: 0 all passed, 1 something failed, 2 usage, 3 the lab is not running, 4 could not be measured.
#[derive(Debug, Parser)]
#[command(name = "meshlab", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Where meshlab keeps its state.
    #[arg(long, global = true, env = "MESHLAB_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Language of the course: ja or en. Default: the one chosen at start, else the locale's.
    #[arg(long, global = true, value_name = "LANG")]
    pub lang: Option<Language>,
    /// Take labs from this folder instead of those in the program.
    #[arg(long, global = true, value_name = "DIR")]
    pub labs: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the lab, or resume it where you were.
    Start {
        /// Where your files go. Default: ./meshlab-phase3.
        #[arg(long, value_name = "DIR")]
        workdir: Option<PathBuf>,
        /// Do not open the terminal UI.
        #[arg(long)]
        no_ui: bool,
    },
    /// Say what is running and how far you are.
    Status,
    /// Stop the lab; `start` resumes it.
    Stop,
    /// Bring a step's files, and what they did in the cluster, back to the start.
    Reset {
        /// Which step; all of them if none is named.
        step: Option<String>,
    },
    /// Print shell commands that set KUBECONFIG and PATH: eval "$(meshlab env)".
    Env,
    /// List the steps.
    List,
    /// Show the text of a step.
    Show {
        /// Which step; the current one if none is named.
        step: Option<String>,
    },
    /// Go to the next step.
    Next,
    /// Go back to the previous step.
    Prev,
    /// Show the next hint of the current step.
    Hint,
    /// Show the solution of the current step.
    Solve {
        /// Write it over your files and apply it.
        #[arg(long)]
        apply: bool,
    },
    /// Prove a step, or single checks, by real behaviour.
    Check {
        /// Steps or checks; the current step if none is named, `all` for everything.
        names: Vec<String>,
        /// Look again whenever one of your files is saved.
        #[arg(long)]
        watch: bool,
        /// How to report.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Send steady load through the ingress gateway, and show rates by version and status.
    Traffic(TrafficArgs),
    /// Look for what keeps a lab from running on this machine.
    Doctor,
    /// Work on labs as their author.
    Lab {
        /// What to do.
        #[command(subcommand)]
        command: LabCommand,
    },
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Run the lab in this process (what `start` does in the background).
    #[command(hide = true)]
    Serve,
}

/// What `traffic` sends.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrafficArgs {
    /// How long.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Requests each second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub rps: u32,
    /// Host name.
    #[arg(long, default_value = "webapp.istio.local")]
    pub host: String,
    /// Path.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// A further header, 'name: value'; can be given several times.
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
}

/// Commands for authors.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the labs.
    List,
    /// Look for mistakes in a lab without running it.
    Lint {
        /// Which lab.
        lab: String,
    },
    /// Prove that starters fail, solutions pass, and each broken variant fails where it says.
    Test {
        /// Which lab.
        lab: String,
        /// Only this step.
        #[arg(long)]
        step: Option<String>,
    },
}

/// Report formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// JUnit XML.
    Junit,
    /// GitHub Actions annotations.
    Github,
}

impl From<Output> for Format {
    fn from(output: Output) -> Self {
        match output {
            Output::Text => Self::Text,
            Output::Json => Self::Json,
            Output::Junit => Self::Junit,
            Output::Github => Self::Github,
        }
    }
}
