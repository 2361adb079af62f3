//! Commands that need no lab, and what is said where there is none.

use crate::harness::Home;

#[test]
fn without_a_lab_commands_say_so() {
    let home = Home::new();
    for line in
        ["status", "stop", "check", "next", "hint", "get pods", "explain http://a", "dashboard kiali", "proxy-status", "analyze"]
    {
        assert_eq!(home.line(line), "--\nerror: the lab is not running\nhint: start it with `meshlab start`\nexit 3\n", "{line}");
    }
}

#[test]
fn what_is_called_wrongly_is_told() {
    let home = Home::new();
    insta::assert_snapshot!(home.line("start nosuch --no-ui"), @r#"
    --
    error: there is no lab "nosuch"
    hint: `meshlab lab list` shows the labs there are
    exit 2
    "#);
    insta::assert_snapshot!(home.line("start ../phase3 --no-ui"), @r#"
    --
    error: "../phase3" is no name of a lab: lower case letters, digits and dashes
    exit 2
    "#);
    insta::assert_snapshot!(home.line("start --cluster minikube"), @r"
    --
    error: invalid value 'minikube' for '--cluster <CLUSTER>': use embedded, kind, or kubeconfig[:CONTEXT]

    For more information, try '--help'.
    exit 2
    ");
    insta::assert_snapshot!(home.line("explain /order"), @r"
    --
    error: /order: a host is missing
    hint: for example http://webapp.istio.local/order
    exit 2
    ");
    insta::assert_snapshot!(home.line("explain http://a -H nothing"), @r#"
    --
    error: header "nothing"
    hint: write it as 'name: value'
    exit 2
    "#);
    insta::assert_snapshot!(home.line("explain http://a --from nobody/x/y/z"), @r#"
    --
    error: --from "nobody/x/y/z": the lab has no such client
    hint: clients: legacy, mesh, outside; or a pod as NAMESPACE/POD or NAMESPACE/deploy/NAME
    exit 2
    "#);
    insta::assert_snapshot!(home.line("explain ftp://a"), @r"
    --
    error: ftp://a: an http:// or https:// URL is wanted
    exit 2
    ");
    insta::assert_snapshot!(home.line("analyze --use-kube=false"), @r"
    --
    error: without the cluster, files must be named
    exit 2
    ");
    insta::assert_snapshot!(home.line("progress export"), @r"
    --
    error: there is no progress yet
    hint: `meshlab start` begins a lab
    exit 1
    ");
    insta::assert_snapshot!(home.line("progress import nothing.json"), @r"
    --
    error: nothing.json: there is no such file
    exit 2
    ");
    std::fs::create_dir(home.path("empty")).unwrap();
    insta::assert_snapshot!(home.line("grade empty"), @r#"
    --
    error: empty: there are no submissions in it
    hint: each submission is a folder in it, with the learner's files
    exit 2
    "#);
    insta::assert_snapshot!(home.line("show nothing"), @r#"
    --
    error: there is no step "nothing"
    hint: steps: setup, routing, canary, security, observability
    exit 2
    "#);
}

#[test]
fn other_clusters_are_asked_for_what_they_need() {
    let home = Home::new();
    let missing = |arguments: &[&str]| home.shown(&home.command(arguments).env("PATH", home.path("empty")).output().unwrap());
    insta::assert_snapshot!(missing(&["start", "--cluster", "kind", "--no-ui"]), @r"
    --
    error: kind is not installed, or not in PATH
    hint: install kind and Docker: https://kind.sigs.k8s.io/docs/user/quick-start/
    hint: or leave --cluster out: the embedded cluster needs neither
    exit 1
    ");
    let nowhere = home.command(&["start", "--cluster", "kubeconfig", "--no-ui"]).env("KUBECONFIG", home.path("nothing")).output();
    insta::assert_snapshot!(home.shown(&nowhere.unwrap()), @r#"
    --
    error: there is no kubeconfig: failed to read kubeconfig from '"DIR/nothing"': No such file or directory (os error 2)
    hint: set KUBECONFIG to the cluster's
    exit 2
    "#);
}

#[test]
fn a_lab_of_a_newer_version_is_refused() {
    let home = Home::new();
    home.line("lab new mine");
    let path = home.path("mine/lab.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("format: 1", "format: 99")).unwrap();
    insta::assert_snapshot!(home.line("--labs . start mine --no-ui"), @r"
    --
    error: lab mine: the lab has format 99, this meshlab knows formats up to 1: use a newer meshlab
    exit 2
    ");
    std::fs::write(&path, text.replace("name: mine", "name: other")).unwrap();
    insta::assert_snapshot!(home.line("--labs . lab lint mine"), @r#"
    --
    error: lab mine: lab.yaml calls it "other"
    hint: the folder and the name in lab.yaml must be the same
    exit 2
    "#);
    std::fs::write(&path, text.replace("steps:", "\tsteps:")).unwrap();
    insta::assert_snapshot!(home.line("--labs . lab lint mine"), @r"
    --
    error: lab mine: lab.yaml: error: line 15 column 2: tabs disallowed within this context (block indentation)
      --> <input>:15:2
       |
    13 |   labelSelector: app=visitor
    14 |   title: {ja: メッシュの外のクライアント, en: a client outside the mesh}
    15 |   steps:
       |   ^ tabs disallowed within this context (block indentation)
    16 |   - id: strict
    17 |   aliases: [mtls]
       |
    exit 2
    ");
}

#[test]
fn damaged_progress_is_named_and_nothing_is_overwritten() {
    let home = Home::new();
    home.write("home/progress.json", "{\"lab\": \"phase3\", \"st");
    insta::assert_snapshot!(home.line("list"), @r"
    --
    error: DIR/home/progress.json: EOF while parsing a string at line 1 column 21
    hint: move DIR/home/progress.json away to start afresh
    exit 1
    ");
    assert_eq!(std::fs::read_to_string(home.path("home/progress.json")).unwrap(), "{\"lab\": \"phase3\", \"st");
}

#[test]
fn a_new_lab_is_made_linted_and_previewed() {
    let home = Home::new();
    insta::assert_snapshot!(home.line("lab new mine"), @r"
    ./mine/1-strict/checks.yaml
    ./mine/1-strict/controls/permissive.yaml
    ./mine/1-strict/debrief.en.md
    ./mine/1-strict/debrief.ja.md
    ./mine/1-strict/hints.en.md
    ./mine/1-strict/hints.ja.md
    ./mine/1-strict/picture.en.svg
    ./mine/1-strict/picture.ja.svg
    ./mine/1-strict/solution/strict.yaml
    ./mine/1-strict/starter/strict.yaml
    ./mine/1-strict/text.en.md
    ./mine/1-strict/text.ja.md
    ./mine/app/app.yaml
    ./mine/lab.yaml

    meshlab --labs . lab lint mine
    meshlab --labs . lab test mine
    meshlab --labs . start mine
    ");
    insta::assert_snapshot!(home.line("lab new mine"), @r#"
    --
    error: ./mine is there already
    hint: nothing was changed; choose another name
    exit 2
    "#);
    assert_eq!(home.line("--labs . lab lint mine"), "");
    assert_eq!(home.line("--labs . lab list"), "mine\n");
    assert!(home.line("--labs . lab preview mine --lang ja").contains("## ヒント 3"));
    insta::assert_snapshot!(home.line("--labs . lab preview mine --html page.html"), @"page.html");
    let page = std::fs::read_to_string(home.path("page.html")).unwrap();
    assert!(page.contains("src=\"data:image/svg+xml;base64,") && page.contains("<h1>Refuse plaintext</h1>"));
}

#[test]
fn progress_goes_to_another_machine() {
    let (here, there) = (Home::new(), Home::new());
    let folder = here.path("work").display().to_string();
    here.write(
        "home/progress.json",
        &format!(r#"{{"lab": "phase3", "step": "canary", "workdir": "{folder}", "language": "en", "passed": ["setup"], "hints": {{"setup": 2}}}}"#),
    );
    here.write("work/01-istio-setup.yaml", "# mine\n");
    assert_eq!(here.line("progress export out.json"), "");
    std::fs::copy(here.path("out.json"), there.path("in.json")).unwrap();
    there.write("new/01-istio-setup.yaml", "# another\n");
    insta::assert_snapshot!(there.line("progress import in.json --workdir new"), @"Imported: lab phase3, steps passed: 1. Your files are in DIR/new; those that differed are kept as *.bak.");
    assert_eq!(std::fs::read_to_string(there.path("new/01-istio-setup.yaml")).unwrap(), "# mine\n");
    assert_eq!(std::fs::read_to_string(there.path("new/01-istio-setup.yaml.bak")).unwrap(), "# another\n");
    insta::assert_snapshot!(there.line("list"), @r"
      ✓ 1 setup   1. Setup: control plane and sidecars
       2 routing   2. Routing: Gateway and VirtualService
    →   3 canary   3. Canary releases and resilience
       4 security   4. Security: mTLS and authorization
       5 observability  5. Observability: traces, metrics, logs
       components   What a mesh is made of
       nginx-ingress  NGINX Ingress and Istio
       ecs-service-connect ECS Service Connect and Istio
       next   Where to go next
    ");
    there.write("newer.json", r#"{"format": 99, "anything": []}"#);
    insta::assert_snapshot!(there.line("progress import newer.json"), @r"
    --
    error: newer.json: it has format 99, this meshlab knows up to 1
    hint: use a newer meshlab
    exit 2
    ");
    there.write("bad.json", r#"{"format": 1, "progress"#);
    insta::assert_snapshot!(there.line("progress import bad.json"), @r"
    --
    error: bad.json: EOF while parsing a string at line 1 column 23
    hint: move bad.json away to start afresh
    exit 1
    ");
}

#[test]
fn files_are_analyzed_without_a_cluster() {
    let home = Home::new();
    home.write("good.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: webapp, labels: {istio-injection: enabled}}\n");
    insta::assert_snapshot!(home.line("analyze --use-kube=false good.yaml"), @"✔ No validation issues found when analyzing all namespaces.");
    home.write(
        "bad.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: {hosts: [nowhere], http: [{route: [{destination: {host: nowhere}}]}]}\n",
    );
    insta::assert_snapshot!(home.line("analyze --use-kube=false good.yaml bad.yaml"), @r#"
    Error [IST0101] (VirtualService webapp/x) host "nowhere" is not found; it was looked for as nowhere.webapp.svc.cluster.local
    exit 1
    "#);
    home.write("tab.yaml", "a:\n\tb: 1\n");
    insta::assert_snapshot!(home.line("analyze --use-kube=false tab.yaml"), @r"
    --
    error: tab.yaml: line 2 column 2: tabs disallowed within this context (block indentation)
     --> <input>:2:2
      |
    1 | a:
    2 |   b: 1
      |   ^ tabs disallowed within this context (block indentation)
    exit 1
    ");
}

#[test]
fn the_meshs_programs_say_what_they_lack_as_processes() {
    let home = Home::new();
    insta::assert_snapshot!(home.line("proxy sidecar"), @r"
    Error: POD_NAME is not set; it says who the proxy is
    exit 1
    ");
    insta::assert_snapshot!(home.line("proxy waypoint"), @r#"
    Error: invalid proxy type "waypoint": want sidecar or router
    exit 1
    "#);
    insta::assert_snapshot!(home.line("control-plane --no-such-flag"), @r"
    --
    Error: unknown flag: --no-such-flag
    exit 1
    ");
}

#[test]
fn the_command_line_is_told() {
    let home = Home::new();
    insta::assert_snapshot!(home.line("--help"), @r#"
    Learn, teach and grade the service mesh.

    Exit codes: 0 all passed, 1 something failed, 2 usage, 3 the lab is not running, 4 could not be
    measured.

    Usage: meshlab [OPTIONS] <COMMAND>

    Commands:
      start   Start a lab, or resume it where you were
      status   Say what is running and how far you are
      stop   Stop the lab; `start` resumes it
      reset   Bring a step's files, and what they did in the cluster, back to the start
      env   Print shell commands that set KUBECONFIG and PATH: eval "$(meshlab env)"
      list   List the steps
      show   Show the text of a step
      next   Go to the next step
      prev   Go back to the previous step
      hint   Show the next hint of the current step
      solve   Show the solution of the current step
      check   Prove a step, or single checks, by real behaviour
      traffic   Send steady load through the ingress gateway, and show rates by version and status
      explain   Send one request and tell who decided what about it: gateway, routes, policies,
       endpoints
      dashboard   Open a page of the lab's Prometheus, Jaeger, Grafana or Kiali
      analyze   Look for mistakes in the mesh's configuration, as `istioctl analyze` does
      proxy-status   List the proxies and whether they follow istiod, as `istioctl proxy-status` does
       [alias: ps]
      proxy-config   Show what a proxy was given, as `istioctl proxy-config` does [alias: pc]
      grade   Grade a folder of submissions, each in a cluster of its own
      progress   Take progress to another machine
      doctor   Look for what keeps a lab from running on this machine
      lab   Work on labs as their author
      kubectl   The built-in kubectl, on the lab's cluster
      apply   kubectl apply
      get   kubectl get
      describe   kubectl describe
      delete   kubectl delete
      logs   kubectl logs
      exec   kubectl exec
      label   kubectl label
      annotate   kubectl annotate
      rollout   kubectl rollout
      scale   kubectl scale
      create   kubectl create
      patch   kubectl patch
      wait   kubectl wait
      port-forward   kubectl port-forward
      proxy   Run a proxy of the mesh as a process of this machine: what `pilot-agent proxy` is
       in a pod
      control-plane  Run the mesh's control plane as a process of this machine: what `pilot-discovery
       discovery` is in a pod
      completions   Print a completion script
      help   Print this message or the help of the given subcommand(s)

    Options:
       --home <DIR>
       Where meshlab keeps its state

       [env: MESHLAB_HOME=DIR/home]

       --lang <LANG>
       Language of the course: ja or en. Default: the one chosen at start, else the locale's

       --labs <DIR>
       Take labs from this folder instead of those in the program

      -h, --help
       Print help (see a summary with '-h')

      -V, --version
       Print version
    "#);
    assert!(home.line("completions bash").contains("meshlab"));
}
