//! The commands of every day, in kubectl's own words.

use crate::lab::{Lab, manifest};

/// Runs commands, one a line; a line that begins with `!` must fail. Answers what each said, standard error after standard output.
async fn session(lab: &Lab, commands: &str) -> String {
    let mut said = String::new();
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (fails, command) = line.strip_prefix('!').map_or((false, line), |command| (true, command));
        let words = words(command);
        let (code, out, error) = lab.try_kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(code != Some(0), fails, "kubectl {command}\n{out}{error}");
        said.push_str(&out);
        said.push_str(&error);
    }
    said
}

/// Splits a command at blanks that are not between quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for character in command.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_kind_are_created() {
    let lab = Lab::start().await;
    let said = session(
        &lab,
        "create namespace shop
        create configmap settings --from-literal=colour=blue
        create secret generic keys --from-literal=token=hush
        create secret docker-registry pull --docker-username=me --docker-password=secret --docker-server=registry.example
        create serviceaccount robot
        create role reader --verb=get,list --resource=pods,deployments.apps
        create rolebinding reader --role=reader --serviceaccount=default:robot
        create clusterrole watcher --verb=get,watch --resource=nodes
        create clusterrolebinding watcher --clusterrole=watcher --user=bob
        create deployment web --image=tools --replicas=2 --port=8080
        create job once --image=tools -- echo done
        create cronjob nightly --image=tools --schedule='0 3 * * *' -- echo night
        create job now --from=cronjob/nightly
        create service clusterip plain --tcp=80:8080
        create service nodeport open --tcp=80:8080
        create service loadbalancer front --tcp=8080:8080
        create service externalname away --external-name=example.com
        create ingress site --rule=shop.example/*=web:80
        create poddisruptionbudget web --selector=app=web --min-available=1
        create priorityclass high --value=10
        create quota few --hard=pods=100
        !create namespace shop
        !create deployment bad_name --image=tools",
    )
    .await;
    insta::assert_snapshot!(said, @r#"
    namespace/shop created
    configmap/settings created
    secret/keys created
    secret/pull created
    serviceaccount/robot created
    role.rbac.authorization.k8s.io/reader created
    rolebinding.rbac.authorization.k8s.io/reader created
    clusterrole.rbac.authorization.k8s.io/watcher created
    clusterrolebinding.rbac.authorization.k8s.io/watcher created
    deployment.apps/web created
    job.batch/once created
    cronjob.batch/nightly created
    job.batch/now created
    service/plain created
    service/open created
    service/front created
    service/away created
    ingress.networking.k8s.io/site created
    poddisruptionbudget.policy/web created
    priorityclass.scheduling.k8s.io/high created
    resourcequota/few created
    Error from server (AlreadyExists): namespaces "shop" already exists
    error: failed to create deployment: Deployment.apps "bad_name" is invalid: metadata.name: Invalid value: "bad_name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
    "#);
    let token = lab.kubectl(&["create", "token", "robot", "--duration=10m", "--audience=shop"]).await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    lab.kubectl(&["wait", "job/now", "--for=condition=Complete", "--timeout=20s"]).await;
    let rights = session(
        &lab,
        "auth can-i list pods --as=system:serviceaccount:default:robot
        !auth can-i delete pods --as=system:serviceaccount:default:robot
        auth whoami --as=bob --as-group=friends",
    )
    .await;
    insta::assert_snapshot!(rights, @r#"
    yes
    no
    ATTRIBUTE   VALUE
    Username    bob
    Groups      [friends system:authenticated]
    "#);
    let list = lab.kubectl(&["auth", "can-i", "--list", "--as=system:serviceaccount:default:robot"]).await;
    assert!(list.lines().any(|line| line.split_whitespace().eq(["deployments.apps", "[]", "[]", "[get", "list]"])), "{list}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_changed_one_by_one() {
    let lab = Lab::start().await;
    session(&lab, "create deployment web --image=tools --replicas=0").await;
    let said = session(
        &lab,
        r#"label deployment web tier=front
        !label deployment web tier=back
        label deployment web tier=back --overwrite
        label deployment web tier-
        annotate deployment web note='two words'
        patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"tools","env":[{"name":"A","value":"1"}]}]}}}}'
        patch deployment web --type=merge -p '{"spec":{"minReadySeconds":1}}'
        patch deployment web --type=json -p '[{"op":"remove","path":"/spec/minReadySeconds"}]'
        !patch deployment web --type=merge -p '{"spec":{"replicas":"many"}}'
        !patch deployment web -p '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'
        set image deployment/web tools=tools:2
        set env deployment/web B=2
        set resources deployment/web --limits=cpu=1
        !scale deployment/web --replicas=1 --current-replicas=7
        expose deployment web --port=80 --target-port=8080
        !rollout undo deployment/web --to-revision=17
        rollout pause deployment/web
        !rollout restart deployment/web
        run box --image=tools --port=8080 --expose --labels=app=box --env=X=1
        get deployment web -o jsonpath={.spec.template.spec.containers[0].env}{.metadata.labels}{.metadata.annotations.note}"#,
    )
    .await;
    insta::assert_snapshot!(said, @r#"
    deployment.apps/web labeled
    error: 'tier' already has a value (front), and --overwrite is false
    deployment.apps/web labeled
    deployment.apps/web unlabeled
    deployment.apps/web annotated
    deployment.apps/web patched
    deployment.apps/web patched
    deployment.apps/web patched
    Error from server (BadRequest): Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32
    The Deployment "web" is invalid: 
    * spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: `selector` does not match template `labels`
    * spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"other"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable
    deployment.apps/web image updated
    deployment.apps/web env updated
    deployment.apps/web resource requirements updated
    error: Expected replicas to be 7, was 0
    service/web exposed
    error: unable to find specified revision 17 in history
    deployment.apps/web paused
    error: deployments.apps "web" can't restart paused deployment (run rollout resume first)
    service/box created
    pod/box created
    [{"name":"A","value":"1"},{"name":"B","value":"2"}]{"app":"web"}two words
    "#);
    session(&lab, "delete pod,service box --now\n!get pod box").await;
    let scale = lab.kubectl(&["get", "deployment", "web", "--subresource=scale"]).await;
    assert!(scale.split_whitespace().take(7).eq(["NAME", "DESIRED", "AVAILABLE", "AGE", "web", "0", "0"]), "{scale}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_applied_compared_edited_and_pruned() {
    let lab = Lab::start().await;
    let map = |name: &str, colour: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: mine}}}}\ndata: {{colour: {colour}}}\n"
        )
    };
    let both = manifest(&lab, &(map("one", "blue") + "---\n" + &map("two", "blue")));
    let mut said = session(&lab, &format!("apply -f {both}\napply -f {both}")).await;
    let one = manifest(&lab, &map("one", "red"));
    said += &session(
        &lab,
        &format!(
            "apply -f {one} --dry-run=server
            apply -f {one}
            apply -f {one} --prune -l set=mine --prune-allowlist=core/v1/ConfigMap
            apply view-last-applied configmap/one -o json
            replace -f {one}
            apply -f {one} --server-side --field-manager=other"
        ),
    )
    .await;
    insta::assert_snapshot!(said, @r#"
    configmap/one created
    configmap/two created
    configmap/one unchanged
    configmap/two unchanged
    configmap/one configured (server dry run)
    configmap/one configured
    configmap/one unchanged
    configmap/two pruned
    {
      "apiVersion": "v1",
      "data": {
        "colour": "red"
      },
      "kind": "ConfigMap",
      "metadata": {
        "annotations": {},
        "labels": {
          "set": "mine"
        },
        "name": "one",
        "namespace": "default"
      }
    }
    configmap/one replaced
    configmap/one serverside-applied
    "#);
    let blue = manifest(&lab, &map("one", "blue"));
    let (code, diff, _) = lab.try_kubectl(&["diff", "-f", &blue]).await;
    assert_eq!(code, Some(1), "there is a difference");
    assert!(diff.contains("\n-  colour: red\n+  colour: blue\n"), "{diff}");
    let (code, _, error) = lab.try_kubectl(&["apply", "-f", &blue, "--server-side", "--field-manager=third"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("conflict") && error.contains(".data.colour"), "{error}");
    lab.kubectl(&["apply", "-f", &blue, "--server-side", "--field-manager=third", "--force-conflicts"]).await;
    let edited = lab.command(&["edit", "configmap", "one"]).env("EDITOR", "sed -i s/blue/green/").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&edited.stdout), "configmap/one edited\n");
    assert_eq!(lab.kubectl(&["get", "configmap", "one", "-o", "jsonpath={.data.colour}"]).await, "green");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_explains_itself() {
    let lab = Lab::start().await;
    session(&lab, "create deployment web --image=tools").await;
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=20s"]).await;
    let explained = lab.kubectl(&["explain", "deployment.spec.strategy.type"]).await;
    assert!(explained.contains("FIELD: type <string>") && explained.contains("RollingUpdate"), "{explained}");
    let described = lab.kubectl(&["describe", "deployment", "web"]).await;
    for line in [
        "StrategyType:           RollingUpdate",
        "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
    ] {
        assert!(described.contains(line), "{described}");
    }
    assert!(described.contains("ScalingReplicaSet") && described.contains("Scaled up replica set web-"), "{described}");
    let resources = lab.kubectl(&["api-resources", "--no-headers"]).await;
    assert!(resources.lines().any(|line| line.split_whitespace().eq(["deployments", "deploy", "apps/v1", "true", "Deployment"])));
    assert!(lab.kubectl(&["cluster-info"]).await.contains("control plane"));
    let events = lab.kubectl(&["events", "--for", "deployment/web"]).await;
    assert!(events.contains("ScalingReplicaSet"), "{events}");
    let said = session(
        &lab,
        "taint node meshlab lab=shut:NoSchedule
        taint node meshlab lab-
        cordon meshlab
        get nodes --no-headers -o custom-columns=:.spec.unschedulable
        uncordon meshlab
        !top pods
        !explain nonsense
        !get nonsense
        wait deployment/web --for=condition=Available --timeout=5s
        !wait deployment/web --for=condition=Nonsense --timeout=100ms",
    )
    .await;
    insta::assert_snapshot!(said, @r#"
    node/meshlab tainted
    node/meshlab untainted
    node/meshlab cordoned
    true
    node/meshlab uncordoned
    error: Metrics API not available
    the server doesn't have a resource type "nonsense"
    error: the server doesn't have a resource type "nonsense"
    deployment.apps/web condition met
    error: timed out waiting for the condition on deployments/web
    "#);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_every_step_as_a_table() {
    use tokio::io::AsyncBufReadExt;
    let lab = Lab::start().await;
    lab.kubectl(&["run", "there", "--image=tools"]).await;
    let mut watch = lab
        .command(&["get", "pods", "--watch", "--output-watch-events"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(watch.stdout.take().unwrap()).lines();
    // What is there already is shown first.
    let head = lines.next_line().await.unwrap().unwrap();
    assert!(head.split_whitespace().eq(["EVENT", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]), "{head}");
    let run = ["run", "once", "--image=tools", "--restart=Never", "--command", "--", "echo", "done"];
    lab.kubectl(&run).await;
    let mut steps = Vec::new();
    while steps.last().is_none_or(|(event, _)| event != "DELETED") {
        let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines.next_line()).await.expect("no more events");
        let line = line.unwrap().expect("the watch ended");
        let cells: Vec<&str> = line.split_whitespace().collect();
        if cells[1] == "there" {
            continue;
        }
        let step = (cells[0].to_owned(), cells[3].to_owned());
        if step.1 == "Completed" && step.0 == "MODIFIED" {
            lab.kubectl(&["delete", "pod", "once", "--wait=false"]).await;
        }
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    let seen = |event: &str, status: &str| steps.iter().any(|step| step.0 == event && step.1 == status);
    assert!(seen("ADDED", "Pending") && seen("MODIFIED", "Completed") && seen("DELETED", "Completed"), "{steps:?}");
    lab.stop().await;
}
