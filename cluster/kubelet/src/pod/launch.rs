//! Starting a container: its image, configuration, files and first process.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::ResourceExt;
use meshlab_controller_runtime::Informers;
use meshlab_net::PodNet;
use meshlab_program::{
    Container as ProgramContainer, FileSystem, Image, ImageNotFound, Process, Processes, Shared, Signals, SpawnError, Stdio, pipe,
};
use thiserror::Error;
use tokio::sync::watch;

use super::run::Launched;
use super::runtime::Running;
use crate::environment::{ConfigError, Objects, PodFacts, environment, expand};
use crate::log::{Log, Stream};
use crate::probe::{ExecTarget, Target};
use crate::volumes::Volumes;

/// A terminal's size until a client says otherwise.
const TERMINAL: (u16, u16) = (80, 24);

/// Why a container did not start.
#[derive(Debug, Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Image(#[from] ImageNotFound),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("unable to start container process: {0}")]
    Spawn(#[from] SpawnError),
}

/// What a container is started with.
pub(crate) struct Launch<'a> {
    pub(crate) facts: PodFacts<'a>,
    pub(crate) container: &'a Container,
    pub(crate) image: Arc<Image>,
    pub(crate) informers: &'a Informers,
    pub(crate) volumes: &'a Volumes,
    pub(crate) net: &'a PodNet,
    pub(crate) node: PodNet,
    pub(crate) hostname: &'a str,
}

impl Launch<'_> {
    /// Starts the container's first process.
    pub(crate) fn start(self) -> Result<(Launched, Running), LaunchError> {
        let objects = NamespaceObjects::of(self.facts.pod, self.informers);
        let links = service_links(self.facts.pod, self.informers);
        let env = environment(&self.image.env, self.container, &self.facts, &objects, &links)?;
        let lookup = |name: &str| env.get(name).cloned();
        let argv = argv(&self.image, self.container, lookup);
        if argv.is_empty() {
            return Err(ConfigError::NoCommand.into());
        }
        let uid = self.uid()?;
        let container = Arc::new(ProgramContainer {
            fs: self.files(lookup)?,
            image: self.image.clone(),
            net: self.net.with_uid(uid),
            hostname: self.hostname.to_owned(),
            uid,
            processes: Processes::default(),
        });
        let own_dir = self.container.working_dir.as_deref().filter(|dir| !dir.is_empty());
        let cwd = own_dir.or(Some(self.image.working_dir.as_str()).filter(|dir| !dir.is_empty())).unwrap_or("/").to_owned();
        let exec = ExecTarget { container, env: Arc::new(env), cwd };
        self.spawn(exec, argv)
    }

    fn spawn(self, exec: ExecTarget, argv: Vec<String>) -> Result<(Launched, Running), LaunchError> {
        let log = Log::new();
        let (sender, signals) = Signals::channel();
        let wants_stdin = self.container.stdin == Some(true);
        let mut running =
            Running { target: exec.clone(), stdin: None, stdin_once: self.container.stdin_once == Some(true), terminal: None };
        let typed = wants_stdin.then(|| {
            let (keys, typed) = pipe();
            running.stdin = Some(Shared::new(keys));
            typed
        });
        let mut shown = None;
        let stdio = if self.container.tty == Some(true) {
            let size = watch::Sender::new(TERMINAL);
            let receiver = size.subscribe();
            running.terminal = Some(size);
            let (screen, all) = log.last_writer(Stream::Out);
            shown = Some(all);
            match typed {
                Some(typed) => Stdio::terminal(typed, screen, receiver, sender.clone()),
                None => Stdio::terminal(tokio::io::empty(), screen, receiver, sender.clone()),
            }
        } else {
            Stdio {
                stdin: typed.map_or_else(|| Box::new(tokio::io::empty()) as Box<_>, |typed| Box::new(typed) as Box<_>),
                stdout: Box::new(log.writer(Stream::Out)),
                stderr: Box::new(log.writer(Stream::Error)),
                terminal: None,
            }
        };
        let process: Process = exec.process(argv, stdio, signals);
        let child = process.spawn()?;
        let target = Target { node: self.node, pod_ip: self.facts.pod_ip.to_owned(), exec };
        Ok((Launched { child, log, shown, signals: sender, target }, running))
    }

    fn uid(&self) -> Result<u32, ConfigError> {
        let own = self.container.security_context.as_ref();
        let pod = self.facts.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let asked = own.and_then(|context| context.run_as_user).or(pod.and_then(|context| context.run_as_user));
        let uid = asked.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(self.image.uid);
        let own_rule = own.and_then(|context| context.run_as_non_root);
        let non_root = own_rule.or(pod.and_then(|context| context.run_as_non_root)) == Some(true);
        if non_root && uid == 0 {
            let pod = self.facts.pod;
            return Err(ConfigError::RunsAsRoot {
                pod: format!("{}_{}({})", pod.name_any(), pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default()),
                container: self.container.name.clone(),
            });
        }
        Ok(uid)
    }

    fn files(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<FileSystem, ConfigError> {
        let fs = FileSystem::new(&self.image);
        let failed = |path: &str, reason: &dyn ToString| ConfigError::Mount {
            container: self.container.name.clone(),
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        for (path, content) in self.system_files() {
            fs.write(path, content).map_err(|error| failed(path, &error))?;
        }
        let mut mounts: Vec<_> = self.container.volume_mounts.iter().flatten().collect();
        mounts.sort_by_key(|mount| mount.mount_path.len());
        for mount in mounts {
            let path = mount.mount_path.as_str();
            let volume = self.volumes.get(&mount.name).ok_or_else(|| failed(path, &format!("no volume {:?}", mount.name)))?;
            let sub_path = match &mount.sub_path_expr {
                Some(expression) => expand(expression, &lookup),
                None => mount.sub_path.clone().unwrap_or_default(),
            };
            let read_only = mount.read_only == Some(true);
            fs.mount(path, volume, &sub_path, read_only).map_err(|error| failed(path, &error))?;
        }
        let context = self.container.security_context.as_ref();
        if context.and_then(|context| context.read_only_root_filesystem) == Some(true) {
            fs.set_root_read_only();
        }
        Ok(fs)
    }

    /// What every container finds in `/etc`.
    fn system_files(&self) -> [(&'static str, String); 3] {
        let options = self.net.host_options();
        let address = self.net.address();
        let host_network = self.facts.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let whose = if host_network { " (host network)" } else { "" };
        let mut hosts = format!(
            "# Kubernetes-managed hosts file{whose}.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{}\n",
            self.hostname
        );
        if !options.aliases.is_empty() {
            hosts.push_str("\n# Entries added by HostAliases.\n");
        }
        for (name, address) in &options.aliases {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        let search = options.search.join(" ");
        // There is no name server to ask over the network: the cluster resolves names itself.
        let resolv = format!("search {search}\noptions ndots:{}\n", options.ndots);
        [("/etc/hosts", hosts), ("/etc/hostname", format!("{}\n", self.hostname)), ("/etc/resolv.conf", resolv)]
    }
}

/// The arguments of the first process. A `command` replaces the image's entrypoint and drops its default arguments.
fn argv(image: &Image, container: &Container, lookup: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let expanded = |words: &Option<Vec<String>>| -> Option<Vec<String>> {
        let words = words.as_ref().filter(|words| !words.is_empty())?;
        Some(words.iter().map(|word| expand(word, &lookup)).collect())
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let default_args = if command.is_some() { Vec::new() } else { image.cmd.clone() };
    let mut argv = command.unwrap_or_else(|| image.entrypoint.clone());
    argv.extend(args.unwrap_or(default_args));
    argv
}

/// The ConfigMaps and Secrets of a pod's namespace.
pub(crate) struct NamespaceObjects<'a> {
    namespace: String,
    informers: &'a Informers,
}

impl<'a> NamespaceObjects<'a> {
    /// Those of this pod's namespace.
    pub(crate) fn of(pod: &Pod, informers: &'a Informers) -> Self {
        Self { namespace: pod.namespace().unwrap_or_default(), informers }
    }
}

impl Objects for NamespaceObjects<'_> {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.informers.config_maps.get(&self.namespace, name)
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.informers.secrets.get(&self.namespace, name)
    }
}

/// The services that a pod's environment tells of: those of its namespace, unless it does not want them, and the API server's.
fn service_links(pod: &Pod, informers: &Informers) -> Vec<Arc<Service>> {
    let namespace = pod.namespace().unwrap_or_default();
    let wanted = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut services = if wanted { informers.services.in_namespace(&namespace) } else { Vec::new() };
    services.retain(|service| !(namespace == "default" && service.name_any() == "kubernetes"));
    services.extend(informers.services.get("default", "kubernetes"));
    services
}

/// The names of the ConfigMaps and Secrets that a pod uses.
pub(crate) fn references(pod: &Pod) -> References {
    let mut references = References::default();
    let Some(spec) = &pod.spec else { return references };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for container in containers {
        for source in container.env_from.iter().flatten() {
            references.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            references.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            references.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            references.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        references.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        references.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            references.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            references.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    references
}

/// See [`references`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn command_and_args_replace_the_images_as_documented() {
        let image = Image::builder().entrypoint(["nginx"]).cmd(["-g", "daemon off;"]).build();
        let lookup = |name: &str| (name == "WHO").then(|| "world".to_owned());
        let of = |container: serde_json::Value| argv(&image, &serde_json::from_value(container).unwrap(), lookup);
        assert_eq!(of(json!({"name": "c"})), ["nginx", "-g", "daemon off;"]);
        assert_eq!(of(json!({"name": "c", "args": ["-t"]})), ["nginx", "-t"]);
        assert_eq!(of(json!({"name": "c", "command": ["echo"]})), ["echo"]);
        assert_eq!(of(json!({"name": "c", "command": ["echo"], "args": ["$(WHO)"]})), ["echo", "world"]);
    }

    #[test]
    fn references_of_all_kinds_are_found() {
        let pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c",
                "envFrom": [{"configMapRef": {"name": "a"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "b"}}]}}, {"name": "w", "secret": {"secretName": "t"}}],
        }}))
        .unwrap();
        let found = references(&pod);
        assert_eq!(found.config_maps.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found.secrets.into_iter().collect::<Vec<_>>(), ["s", "t"]);
    }
}
