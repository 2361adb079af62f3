//! The command line of the built-in kubectl: kubectl's own names and letters.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The everyday part of kubectl, built into meshlab for machines that have none.
#[derive(Debug, Parser)]
#[command(name = "kubectl", version, disable_help_subcommand = true)]
pub(crate) struct Kubectl {
    /// Namespace.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Kubeconfig file.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show objects.
    Get(Get),
    /// Show one object in words, with its events.
    Describe(Describe),
    /// Create or change objects as files say.
    Apply(Apply),
    /// Create objects.
    Create(Create),
    /// Delete objects.
    Delete(Delete),
    /// Set or remove labels: KEY=VALUE, KEY-.
    Label(Mark),
    /// Set or remove annotations: KEY=VALUE, KEY-.
    Annotate(Mark),
    /// Change fields of an object.
    Patch(Patch),
    /// Set the number of replicas.
    Scale(Scale),
    /// Restart the pods of Deployments, or wait for them.
    Rollout {
        #[command(subcommand)]
        verb: Rollout,
    },
    /// Wait until objects are in a state.
    Wait(Wait),
    /// Show what containers print.
    Logs(Logs),
    /// Run a command in a container.
    Exec(Exec),
    /// Open ports of this machine that lead into a pod.
    PortForward(PortForward),
    /// List the kinds that the server has.
    ApiResources,
    /// Show versions.
    Version {
        /// Only this program's.
        #[arg(long)]
        client: bool,
    },
}

/// How to print objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(String),
    CustomColumns(String),
}

/// `wide`, `json`, `yaml`, `name`, `jsonpath=…`, `custom-columns=…`.
pub(super) fn output(text: &str) -> Result<Output, String> {
    let (name, argument) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "wide" => Ok(Output::Table { wide: true }),
        "json" => Ok(Output::Json),
        "yaml" => Ok(Output::Yaml),
        "name" => Ok(Output::Name),
        "jsonpath" => Ok(Output::JsonPath(argument.to_owned())),
        "custom-columns" => Ok(Output::CustomColumns(argument.to_owned())),
        _ => Err("the built-in kubectl knows wide, json, yaml, name, jsonpath=… and custom-columns=…".to_owned()),
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// TYPE[,TYPE…] [NAME…], or TYPE/NAME….
    pub what: Vec<String>,
    #[command(flatten)]
    pub select: Select,
    /// wide, json, yaml, name, jsonpath=…, custom-columns=….
    #[arg(short, long, value_parser = output)]
    pub output: Option<Output>,
    /// Go on showing changes.
    #[arg(short, long)]
    pub watch: bool,
    /// Show labels as the last column.
    #[arg(long)]
    pub show_labels: bool,
    /// Show these labels as columns.
    #[arg(short = 'L', long = "label-columns", value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Leave out the header.
    #[arg(long)]
    pub no_headers: bool,
    /// Order by this field: a JSONPath.
    #[arg(long, value_name = "JSONPATH")]
    pub sort_by: Option<String>,
    /// What is not there is no error.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Show managedFields in json and yaml.
    #[arg(long)]
    pub show_managed_fields: bool,
}

/// Which objects.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Select {
    /// Files or folders that name the objects; - for standard input.
    #[arg(short, long)]
    pub filename: Vec<String>,
    /// Labels: app=web,version!=v1.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    /// Fields: status.phase=Running.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub field_selector: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// TYPE [NAME…], or TYPE/NAME….
    pub what: Vec<String>,
    #[command(flatten)]
    pub select: Select,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    None,
    Client,
    Server,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Files or folders; - for standard input.
    #[arg(short, long, required = true)]
    pub filename: Vec<String>,
    /// Only say what would be done.
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Taken for granted here: the server merges.
    #[arg(long)]
    pub server_side: bool,
    /// Taken for granted here.
    #[arg(long, hide = true)]
    pub force_conflicts: bool,
    #[arg(short, long, value_parser = output)]
    pub output: Option<Output>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Create {
    /// Files or folders; - for standard input.
    #[arg(short, long)]
    pub filename: Vec<String>,
    #[command(subcommand)]
    pub kind: Option<CreateKind>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreateKind {
    /// A namespace.
    #[command(alias = "ns")]
    Namespace {
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// A ConfigMap.
    #[command(alias = "cm")]
    Configmap {
        name: String,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        how: How,
    },
    /// A Secret.
    Secret {
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// A ServiceAccount.
    #[command(alias = "sa")]
    Serviceaccount {
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// A Deployment.
    #[command(alias = "deploy")]
    Deployment {
        name: String,
        #[arg(long)]
        image: String,
        #[arg(long, default_value_t = 1)]
        replicas: u32,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretKind {
    /// Of any content.
    Generic {
        name: String,
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        how: How,
    },
    /// A certificate and its key.
    Tls {
        name: String,
        #[arg(long)]
        cert: PathBuf,
        #[arg(long)]
        key: PathBuf,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Data {
    /// KEY=VALUE.
    #[arg(long)]
    pub from_literal: Vec<String>,
    /// [KEY=]FILE.
    #[arg(long)]
    pub from_file: Vec<String>,
}

/// What to do with an object that was made up from arguments.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Only show it.
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    #[arg(short, long, value_parser = output)]
    pub output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// TYPE NAME…, or TYPE/NAME….
    pub what: Vec<String>,
    #[command(flatten)]
    pub select: Select,
    /// All of the type.
    #[arg(long)]
    pub all: bool,
    /// What is not there is no error.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Return only when the objects are gone.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,
    /// Do not wait for containers to end.
    #[arg(long)]
    pub now: bool,
    /// Do not wait for containers to end, nor for the node to say so.
    #[arg(long)]
    pub force: bool,
    /// Seconds that containers get to end.
    #[arg(long)]
    pub grace_period: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Mark {
    /// TYPE NAME… (or TYPE/NAME…), then KEY=VALUE or KEY-.
    #[arg(required = true)]
    pub what: Vec<String>,
    #[command(flatten)]
    pub select: Select,
    /// All of the type.
    #[arg(long)]
    pub all: bool,
    /// Change a value that is there.
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
}

#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// TYPE NAME, or TYPE/NAME.
    pub what: Vec<String>,
    /// The patch, JSON or YAML.
    #[arg(short, long)]
    pub patch: String,
    #[arg(long = "type", value_enum, default_value = "strategic")]
    pub kind: PatchType,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// TYPE NAME…, or TYPE/NAME….
    pub what: Vec<String>,
    #[arg(long)]
    pub replicas: u32,
    #[command(flatten)]
    pub select: Select,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Start new pods.
    Restart {
        what: Vec<String>,
        #[command(flatten)]
        select: Select,
    },
    /// Wait until the pods are as the object says.
    Status {
        what: Vec<String>,
        #[command(flatten)]
        select: Select,
        /// Give up after this long, such as 90s; 0s: never.
        #[arg(long, default_value = "0s", value_parser = duration)]
        timeout: std::time::Duration,
        /// Wait; false only looks.
        #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
        watch: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// TYPE [NAME…], or TYPE/NAME….
    pub what: Vec<String>,
    #[command(flatten)]
    pub select: Select,
    /// All of the type.
    #[arg(long)]
    pub all: bool,
    /// condition=NAME[=VALUE], delete, create, or jsonpath='{…}'[=VALUE].
    #[arg(long = "for")]
    pub wanted: String,
    /// Give up after this long.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// POD, or TYPE/NAME; then the container.
    pub what: Vec<String>,
    /// Labels of pods.
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    pub selector: String,
    #[arg(short, long)]
    pub container: Option<String>,
    /// Every container of the pod.
    #[arg(long)]
    pub all_containers: bool,
    /// Go on as lines come.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines; -1: all. With a selector 10 unless it is said.
    #[arg(long, allow_hyphen_values = true)]
    pub tail: Option<i64>,
    /// Only lines newer than this, such as 5m.
    #[arg(long, value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// Of the container before the last restart.
    #[arg(short, long)]
    pub previous: bool,
    #[arg(long)]
    pub timestamps: bool,
    /// Begin each line with where it comes from.
    #[arg(long)]
    pub prefix: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// POD, or TYPE/NAME.
    pub target: String,
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// The command, after --.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// POD, or TYPE/NAME.
    pub target: String,
    /// [LOCAL:]REMOTE; nothing before the colon: any free port.
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
}

/// Go's durations: 90s, 5m, 1h30m, 500ms.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let malformed = || format!("{text:?} is no duration; write 90s, 5m or 1h");
    let (mut rest, mut total) = (text, 0.0);
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| malformed())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |next| digits + next);
        total += number
            * match &rest[digits..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" if text == "0" => 0.0,
                _ => return Err(malformed()),
            };
        rest = &rest[unit..];
    }
    std::time::Duration::try_from_secs_f64(total).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Kubectl::command().debug_assert();
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("5").is_err() && duration("").is_err() && duration("m").is_err());
    }

    #[test]
    fn commands_of_the_course_are_understood() {
        for line in [
            "kubectl get gateway,virtualservice -A",
            "kubectl label namespace webapp istio-injection=enabled --overwrite",
            "kubectl label namespace legacy istio-injection-",
            "kubectl rollout restart deployment -n webapp",
            "kubectl rollout status deployment/webapp-v1 -n webapp --timeout=60s",
            "kubectl exec -n webapp deploy/client -c client -- curl -s http://webapp-service/",
            "kubectl exec -it -n webapp deploy/client -- sh",
            "kubectl logs -n webapp -l app=webapp -c istio-proxy --tail=20",
            "kubectl logs -f deploy/client --tail=-1",
            "kubectl -n webapp get pods -o jsonpath={.items[*].metadata.name}",
            "kubectl apply -n webapp -f a.yaml -f b.yaml --dry-run=server",
            "kubectl create namespace x --dry-run=client -o yaml",
            "kubectl create -f x.yaml",
            "kubectl scale deploy/webapp-v1 --replicas=3",
            "kubectl port-forward svc/prometheus 9090 -n istio-system",
            "kubectl wait --for=condition=Ready pod -l app=webapp -n webapp --timeout=90s",
            "kubectl delete pod x --wait=false --grace-period=0 --force",
        ] {
            Kubectl::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
