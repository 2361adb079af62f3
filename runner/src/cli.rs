//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use meshlab_checks::Language;
use meshlab_checks::report::Format;

use crate::backend::Backend;

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
    /// Start a lab, or resume it where you were.
    Start {
        /// Which lab. Default: the one of the last start, else phase3.
        lab: Option<String>,
        /// Where it runs: embedded (in this program, the default), kind, or kubeconfig[:CONTEXT] for a cluster of yours.
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<Backend>,
        /// Where your files go. Default: ./meshlab-LAB.
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
    /// Send one request and tell who decided what about it: gateway, routes, policies, endpoints.
    Explain(ExplainArgs),
    /// Open a page of the lab's Prometheus, Jaeger, Grafana or Kiali.
    Dashboard(DashboardArgs),
    /// Look for mistakes in the mesh's configuration, as `istioctl analyze` does.
    Analyze(AnalyzeArgs),
    /// List the proxies and whether they follow istiod, as `istioctl proxy-status` does.
    #[command(visible_alias = "ps")]
    ProxyStatus {
        /// Print JSON.
        #[arg(short, long, value_enum, default_value_t = Plain::Text)]
        output: Plain,
    },
    /// Show what a proxy was given, as `istioctl proxy-config` does.
    #[command(visible_alias = "pc")]
    ProxyConfig(ProxyConfigArgs),
    /// Grade a folder of submissions, each in a cluster of its own.
    Grade(GradeArgs),
    /// Take progress to another machine.
    Progress {
        /// What to do.
        #[command(subcommand)]
        command: ProgressCommand,
    },
    /// Look for what keeps a lab from running on this machine.
    Doctor,
    /// Work on labs as their author.
    Lab {
        /// What to do.
        #[command(subcommand)]
        command: LabCommand,
    },
    /// The built-in kubectl, on the lab's cluster.
    #[command(disable_help_flag = true)]
    Kubectl(Passed),
    /// kubectl apply
    #[command(disable_help_flag = true)]
    Apply(Passed),
    /// kubectl get
    #[command(disable_help_flag = true)]
    Get(Passed),
    /// kubectl describe
    #[command(disable_help_flag = true)]
    Describe(Passed),
    /// kubectl delete
    #[command(disable_help_flag = true)]
    Delete(Passed),
    /// kubectl logs
    #[command(disable_help_flag = true)]
    Logs(Passed),
    /// kubectl exec
    #[command(disable_help_flag = true)]
    Exec(Passed),
    /// kubectl label
    #[command(disable_help_flag = true)]
    Label(Passed),
    /// kubectl annotate
    #[command(disable_help_flag = true)]
    Annotate(Passed),
    /// kubectl rollout
    #[command(disable_help_flag = true)]
    Rollout(Passed),
    /// kubectl scale
    #[command(disable_help_flag = true)]
    Scale(Passed),
    /// kubectl create
    #[command(disable_help_flag = true)]
    Create(Passed),
    /// kubectl patch
    #[command(disable_help_flag = true)]
    Patch(Passed),
    /// kubectl wait
    #[command(disable_help_flag = true)]
    Wait(Passed),
    /// kubectl port-forward
    #[command(disable_help_flag = true)]
    PortForward(Passed),
    /// Run a proxy of the mesh as a process of this machine: what `pilot-agent proxy` is in a pod.
    Proxy(Passed),
    /// Run the mesh's control plane as a process of this machine: what `pilot-discovery discovery` is in a pod.
    ControlPlane(Passed),
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Run the lab in this process (what `start` does in the background).
    #[command(hide = true)]
    Serve,
}

impl Command {
    /// Whether the process lives on, to serve others.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Serve | Self::Proxy(_) | Self::ControlPlane(_))
    }
}

/// Arguments that another program's command line is to read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Passed {
    /// As that program takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// What `explain` sends.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// [METHOD] URL. Without http:// in front, it is taken for that.
    #[arg(required = true, num_args = 1..=2, value_name = "URL")]
    pub request: Vec<String>,
    /// A header, 'name: value'; can be given several times.
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
    /// Who sends: a client of the lab (outside is a user who comes through the ingress gateway), or NAMESPACE/POD.
    #[arg(long, default_value = "outside")]
    pub from: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Plain::Text)]
    pub output: Plain,
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plain {
    /// For people.
    Text,
    /// JSON.
    Json,
}

/// Which page `dashboard` opens.
#[derive(Debug, Clone, Args)]
pub(crate) struct DashboardArgs {
    /// Which.
    #[arg(value_enum)]
    pub name: Addon,
    /// Port of this machine. Default: the addon's own, or a free one.
    #[arg(long)]
    pub port: Option<u16>,
    /// Only print the address.
    #[arg(long)]
    pub no_browser: bool,
}

/// The addons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Addon {
    /// Metrics.
    Prometheus,
    /// Traces.
    Jaeger,
    /// Dashboards.
    Grafana,
    /// The service graph.
    Kiali,
}

/// What `analyze` looks at.
#[derive(Debug, Clone, Args)]
pub(crate) struct AnalyzeArgs {
    /// Files or folders that are not applied yet: what they would change.
    pub files: Vec<PathBuf>,
    /// Only findings in this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Look at the lab's cluster as well; false: at the files alone.
    #[arg(short = 'k', long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_kube: bool,
    /// How bad a finding must be to end with exit code 1.
    #[arg(long, value_enum, default_value_t = Threshold::Error)]
    pub failure_threshold: Threshold,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Plain::Text)]
    pub output: Plain,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Threshold {
    /// Will not work.
    Error,
    /// May not do what was meant.
    Warning,
    /// Good to know.
    Info,
}

/// What `proxy-config` shows.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyConfigArgs {
    /// What to show.
    #[arg(value_enum)]
    pub kind: ConfigKind,
    /// POD[.NAMESPACE], or TYPE/NAME[.NAMESPACE].
    pub pod: String,
    /// Namespace. Default: the lab's first.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only this port.
    #[arg(long)]
    pub port: Option<u16>,
    /// Only hosts whose name contains this (clusters).
    #[arg(long)]
    pub fqdn: Option<String>,
    /// Only this subset (clusters).
    #[arg(long)]
    pub subset: Option<String>,
    /// Only inbound or outbound (clusters).
    #[arg(long)]
    pub direction: Option<String>,
    /// Only this cluster (endpoints).
    #[arg(long)]
    pub cluster: Option<String>,
    /// Only this address (listeners, endpoints).
    #[arg(long)]
    pub address: Option<String>,
    /// Only the table of this name (routes).
    #[arg(long)]
    pub name: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Plain::Text)]
    pub output: Plain,
}

/// Parts of a proxy's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigKind {
    /// Upstream clusters.
    #[value(alias = "cluster", alias = "c")]
    Clusters,
    /// Listeners and their filter chains.
    #[value(alias = "listener", alias = "l")]
    Listeners,
    /// Routes.
    #[value(alias = "route", alias = "r")]
    Routes,
    /// Members of clusters.
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
}

/// What `grade` judges.
#[derive(Debug, Clone, Args)]
pub(crate) struct GradeArgs {
    /// A folder with a folder for each submission.
    pub folder: PathBuf,
    /// Which lab they are submissions of.
    #[arg(long, default_value = crate::labs::DEFAULT)]
    pub lab: String,
    /// How to report.
    #[arg(short, long, value_enum, default_value_t = GradeOutput::Text)]
    pub output: GradeOutput,
    /// Submissions judged at the same time; each needs about 220 MB.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Seconds that one submission may take.
    #[arg(long, default_value_t = 600)]
    pub timeout: u64,
    /// Also write a report for each submission into this folder.
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
}

/// Formats of grades.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GradeOutput {
    /// For people.
    Text,
    /// JSON.
    Json,
    /// JUnit XML.
    Junit,
    /// One line for each submission.
    Csv,
}

/// What `progress` does.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ProgressCommand {
    /// Write where you are, what has passed and your files into one file.
    Export {
        /// Which file; standard output if none is named.
        file: Option<PathBuf>,
    },
    /// Take over what was exported. Files that differ are kept as *.bak.
    Import {
        /// Which file.
        file: PathBuf,
        /// Where your files go. Default: ./meshlab-LAB, or where they are.
        #[arg(long, value_name = "DIR")]
        workdir: Option<PathBuf>,
    },
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
    /// Make the folder of a new lab: a small one that lints and passes its own test.
    New {
        /// Its name: lower case, digits and dashes.
        name: String,
        /// Where the folder goes. Default: --labs, or here.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Show all that learners will read, in the order in which they do.
    Preview {
        /// Which lab.
        lab: String,
        /// Only this step.
        #[arg(long)]
        step: Option<String>,
        /// Write a page for a browser instead.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
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
