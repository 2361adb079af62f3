//! The cluster that features are tried on: clients and servers with and without sidecars, and servers outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::TestLab;
use crate::servers::Servers;

/// A feature is in effect within 100 ms; a machine that does other things gets more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between the outputs of two commands.
const SEPARATOR: &str = "=~=~=";

/// A command in a pod, and what its output has to have.
pub(crate) struct Ask {
    from: &'static str,
    command: String,
    /// Texts that must be there; those that begin with `!` must not.
    wanted: Vec<String>,
}

/// A shell command in a pod of Deployment `from`, whose output must have all of `wanted`; what begins with `!` must not be there.
pub(crate) fn ask(from: &'static str, command: impl Into<String>, wanted: &[&str]) -> Ask {
    Ask { from, command: command.into(), wanted: wanted.iter().map(|text| (*text).to_owned()).collect() }
}

/// The same in `client`, a pod of the mesh.
pub(crate) fn client(command: impl Into<String>, wanted: &[&str]) -> Ask {
    ask("client", command, wanted)
}

/// The same in `outside`, a pod without a sidecar.
pub(crate) fn outside(command: impl Into<String>, wanted: &[&str]) -> Ask {
    ask("outside", command, wanted)
}

impl Ask {
    fn objection(&self, output: &str) -> Option<String> {
        let fails = |text: &&String| match text.strip_prefix('!') {
            Some(unwanted) => output.contains(unwanted),
            None => !output.contains(text.as_str()),
        };
        let text = self.wanted.iter().find(fails)?;
        Some(format!("{}$ {}\n  wanted {text:?} in\n{output}", self.from, self.command))
    }
}

/// What was applied.
pub(crate) struct Applied {
    file: String,
    namespace: &'static str,
}

/// One lab, with the pods of `world.yaml`.
pub(crate) struct World {
    lab: TestLab,
    pub(crate) servers: Servers,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let lab = TestLab::start().await?;
        let servers = Servers::start(lab.cluster.cluster().net()).await?;
        let world = Self { lab, servers };
        world.apply(include_str!("world.yaml")).await?;
        world.apply(&world.servers.secrets()).await?;
        world.configure_mesh().await?;
        for namespace in ["feat", "plain"] {
            let ready = world.kubectl(&["rollout", "status", "deployment", "-n", namespace, "--timeout=60s"]).await;
            if let Err(error) = ready {
                bail!("{error}\n{}", world.kubectl(&["describe", "pods", "-n", namespace]).await?);
            }
        }
        Ok(world)
    }

    pub(crate) async fn stop(self) {
        self.lab.cluster.stop().await;
    }

    /// Adds the authorizers that `custom_over_http` and `custom_over_grpc` ask to the mesh's settings.
    async fn configure_mesh(&self) -> Result<()> {
        let mesh = self.kubectl(&["get", "configmap", "istio", "-n", "istio-system", "-o", "jsonpath={.data.mesh}"]).await?;
        let providers = "extensionProviders:\n- name: ask-http\n  envoyExtAuthzHttp: {service: asked.plain.svc.cluster.local, port: 80, includeRequestHeadersInCheck: [x-webapp-status]}\n- name: ask-grpc\n  envoyExtAuthzGrpc: {service: authz.example.com, port: 9000}\n";
        let mesh = mesh.replacen("extensionProviders:\n", providers, 1);
        ensure!(mesh.contains("ask-grpc"), "the mesh's settings have no extensionProviders:\n{mesh}");
        let patch = serde_json::json!({ "data": { "mesh": mesh } }).to_string();
        self.kubectl(&["patch", "configmap", "istio", "-n", "istio-system", "--type=merge", "-p", &patch]).await?;
        Ok(())
    }

    /// Applies resources to namespace `feat`, waits until every command says what it should, and deletes them.
    pub(crate) async fn feature(&self, yaml: &str, asks: &[Ask]) -> Result<()> {
        let applied = self.apply_in_mesh(yaml).await?;
        let outcome = self.all(asks).await;
        outcome.and(self.delete(&applied).await)
    }

    /// Applies resources that name their namespaces. They stay until [`World::delete`].
    pub(crate) async fn apply(&self, yaml: &str) -> Result<Applied> {
        self.apply_to(None, yaml).await
    }

    /// Applies resources to namespace `feat`.
    pub(crate) async fn apply_in_mesh(&self, yaml: &str) -> Result<Applied> {
        self.apply_to(Some("feat"), yaml).await
    }

    async fn apply_to(&self, namespace: Option<&'static str>, yaml: &str) -> Result<Applied> {
        let file = self.lab.kubeconfig().with_file_name("feature.yaml");
        std::fs::write(&file, yaml)?;
        let applied = Applied { file: file.display().to_string(), namespace: namespace.unwrap_or("default") };
        // A file may name a namespace; kubectl wants the same one then.
        let flag = namespace.map(|namespace| format!("--namespace={namespace}"));
        let args: Vec<&str> = ["apply", "-f", &applied.file].into_iter().chain(flag.as_deref()).collect();
        self.kubectl(&args).await?;
        Ok(applied)
    }

    pub(crate) async fn delete(&self, applied: &Applied) -> Result<()> {
        let flag = format!("--namespace={}", applied.namespace);
        let args: Vec<&str> =
            ["delete", "-f", &applied.file].into_iter().chain((applied.namespace != "default").then_some(&*flag)).collect();
        self.kubectl(&args).await.map(drop)
    }

    /// Asks until everything is as wanted. What was so once is not asked again.
    pub(crate) async fn all(&self, asks: &[Ask]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut open: Vec<&Ask> = asks.iter().collect();
        loop {
            let from = open.first().context("nothing is asked")?.from;
            let count = open.iter().take_while(|ask| ask.from == from).count();
            let outputs = self.run(from, &open[..count]).await?;
            let objections: Vec<Option<String>> = open.iter().zip(&outputs).map(|(ask, output)| ask.objection(output)).collect();
            let mut satisfied = objections.iter().map(Option::is_none).chain(std::iter::repeat(false));
            open.retain(|_| !satisfied.next().unwrap_or(false));
            if open.is_empty() {
                return Ok(());
            }
            if let Some(objection) = objections.into_iter().flatten().next()
                && Instant::now() > deadline
            {
                bail!(objection);
            }
        }
    }

    /// Runs commands in a pod, all by one `kubectl exec`.
    async fn run(&self, from: &str, asks: &[&Ask]) -> Result<Vec<String>> {
        let namespace = if ["outside", "asked"].contains(&from) { "plain" } else { "feat" };
        let script: String = asks.iter().map(|ask| format!("{{ {} ; }} 2>&1\necho\necho {SEPARATOR}\n", ask.command)).collect();
        let deployment = format!("deploy/{from}");
        let output = self.kubectl(&["exec", "-n", namespace, &deployment, "-c", "app", "--", "sh", "-c", &script]).await?;
        Ok(output.split(SEPARATOR).map(str::to_owned).collect())
    }

    /// Waits until a pod's proxy has logged all of these.
    pub(crate) async fn logged(&self, deployment: &str, lines: &[&str], patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let log = self.kubectl(&["logs", "-n", "feat", &format!("deploy/{deployment}"), "-c", "istio-proxy"]).await?;
            match lines.iter().find(|line| !log.contains(**line)) {
                None => return Ok(()),
                Some(line) if Instant::now() > deadline => bail!("the log of {deployment} has no {line:?}:\n{log}"),
                Some(_) => {}
            }
        }
    }

    /// What the proxies of a client and a server logged last, for whoever looks for the cause of a failure.
    pub(crate) async fn last_lines(&self) -> String {
        let mut out = String::new();
        for deployment in ["client", "web-v1"] {
            let deployment = format!("deploy/{deployment}");
            let log = self.kubectl(&["logs", "-n", "feat", &deployment, "-c", "istio-proxy", "--tail=6"]).await;
            out.push_str(&format!("--- {deployment}\n{}", log.unwrap_or_else(|error| format!("{error:#}"))));
        }
        out
    }

    /// What kubectl prints.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let command = tokio::process::Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", self.lab.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = command.await.context("kubectl")?;
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        ensure!(output.status.success(), "kubectl {}: {}\n{text}", args.join(" "), output.status);
        Ok(text)
    }
}
