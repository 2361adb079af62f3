//! One lab, and every command that needs one.

use std::time::{Duration, Instant};

use crate::harness::{Home, course};

/// Looks again until it is so: what was changed takes a moment to reach every proxy.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not after 30 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_lab_from_start_to_stop() {
    let home = Home::new();
    starting(&home);
    objects(&home);
    files_that_are_wrong(&home);
    inside_pods(&home);
    solved(&home);
    explained(&home);
    proxies(&home);
    pages(&home);
    without_kubectl(&home);
    another_cluster(&home);
    damage(&home);
    after_a_crash(&home);
}

fn starting(home: &Home) {
    insta::assert_snapshot!(home.line("start --no-ui"), @r#"
    Phase 3: Service mesh with the Istio API is running (up in TIME).

      your files   DIR/meshlab-phase3
      ingress gateway   http://127.0.0.1:PORT
      kubectl   eval "$(meshlab env)"

    Now: 1. Setup: control plane and sidecars
      meshlab show   read the step
      meshlab check   prove it
      meshlab hint   get a nudge
    "#);
    // A second start is the same lab.
    insta::assert_snapshot!(home.line("start --no-ui"), @r#"
    Phase 3: Service mesh with the Istio API is running (up in TIME).

      your files   DIR/meshlab-phase3
      ingress gateway   http://127.0.0.1:PORT
      kubectl   eval "$(meshlab env)"

    Now: 1. Setup: control plane and sidecars
      meshlab show   read the step
      meshlab check   prove it
      meshlab hint   get a nudge
    "#);
    insta::assert_snapshot!(home.line("status"), @r"
    lab   phase3 (process PID, meshlab 0.1.0)
    cluster   embedded
    API server   https://127.0.0.1:PORT
    kubeconfig   DIR/home/kubeconfig
    gateway   127.0.0.1:PORT
    files   DIR/meshlab-phase3
    step   1. Setup: control plane and sidecars
    passed   0/5
    ");
    home.line("lab new mine");
    insta::assert_snapshot!(home.line("--labs . start mine --no-ui"), @r"
    --
    error: lab phase3 is running
    hint: `meshlab stop`, then `meshlab start mine`; what you did in phase3 is kept
    hint: or run both, each with a --home of its own
    exit 1
    ");
}

fn objects(home: &Home) {
    insta::assert_snapshot!(home.line("get pods -n legacy"), @r"
    NAME   READY   STATUS   RESTARTS   AGE
    legacy-client-POD   1/1   Running   0   TIME
    outside-POD   1/1   Running   0   TIME
    ");
    insta::assert_snapshot!(home.line("get deploy,svc -n legacy"), @r"
    NAME   READY   UP-TO-DATE   AVAILABLE   AGE
    deployment.apps/legacy-client   1/1   1   1   TIME
    deployment.apps/outside   1/1   1   1   TIME
    ");
    insta::assert_snapshot!(home.line("get pods -n nowhere"), @r"
    --
    No resources found in nowhere namespace.
    ");
    insta::assert_snapshot!(home.line("get deploy nothing -n legacy"), @r#"
    --
    Error from server (NotFound): deployments.apps "nothing" not found
    exit 1
    "#);
    insta::assert_snapshot!(home.line("get nothing"), @r#"
    --
    error: the server doesn't have a resource type "nothing"
    exit 1
    "#);
    insta::assert_snapshot!(home.line("get ns -o name"), @r"
    namespace/default
    namespace/istio-system
    namespace/kube-node-lease
    namespace/kube-public
    namespace/kube-system
    namespace/legacy
    namespace/webapp
    ");
    insta::assert_snapshot!(home.run(&["get", "deploy", "-n", "legacy", "-o", "jsonpath={range .items[*]}{.metadata.name} {end}{\"\\n\"}"]), @"legacy-client outside");
    insta::assert_snapshot!(home.line("get deploy -n legacy -o custom-columns=NAME:.metadata.name,WANTED:.spec.replicas"), @r"
    NAME   WANTED
    legacy-client   1
    outside   1
    ");
    insta::assert_snapshot!(home.line("get deploy -n legacy -o nothing"), @r"
    --
    error: invalid value 'nothing' for '--output <OUTPUT>': the built-in kubectl knows wide, json, yaml, name, jsonpath=… and custom-columns=…

    For more information, try '--help'.
    exit 2
    ");

    insta::assert_snapshot!(home.line("create namespace shop"), @"namespace/shop created");
    insta::assert_snapshot!(home.line("create namespace shop"), @r#"
    --
    Error from server (AlreadyExists): namespaces "shop" already exists
    exit 1
    "#);
    insta::assert_snapshot!(home.line("label namespace shop istio-injection=enabled"), @"namespace/shop labeled");
    insta::assert_snapshot!(home.line("label namespace shop istio-injection=disabled"), @r"
    --
    error: 'istio-injection' already has a value (enabled), and --overwrite is false
    exit 1
    ");
    insta::assert_snapshot!(home.line("label namespace shop istio-injection=enabled --overwrite"), @"namespace/shop not labeled");
    insta::assert_snapshot!(home.line("get ns shop --show-labels --no-headers"), @"shop   Active   TIME   istio-injection=enabled,kubernetes.io/metadata.name=shop");
    insta::assert_snapshot!(home.line("label namespace shop istio-injection-"), @"namespace/shop unlabeled");
    insta::assert_snapshot!(home.line("annotate namespace shop owner=me"), @"namespace/shop annotated");
    insta::assert_snapshot!(home.line("create configmap settings -n shop --from-literal=a=1"), @"configmap/settings created");
    insta::assert_snapshot!(home.line("create secret generic token -n shop --from-literal=a=1 --dry-run=client -o yaml"), @r"
    apiVersion: v1
    data:
      a: MQ==
    kind: Secret
    metadata:
      name: token
    type: Opaque
    ");
    insta::assert_snapshot!(home.run(&["patch", "cm", "settings", "-n", "shop", "--type=merge", "-p", r#"{"data": {"b": "2"}}"#]), @"configmap/settings patched");
    let described = home.line("describe cm settings -n shop");
    assert!(described.contains("Kind:   ConfigMap\nData:\n  a:  1\n  b:  2\nMetadata:"), "{described}");
    home.write("cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: shop}\ndata: {a: '1'}\n");
    insta::assert_snapshot!(home.line("apply -f cm.yaml"), @"configmap/applied created");
    insta::assert_snapshot!(home.line("apply -f cm.yaml"), @"configmap/applied unchanged");
    home.write("cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: shop}\ndata: {b: '1'}\n");
    insta::assert_snapshot!(home.line("apply -f cm.yaml"), @"configmap/applied configured");
    insta::assert_snapshot!(home.line("get cm applied -n shop -o jsonpath={.data}"), @r#"{"b":"1"}"#);
    insta::assert_snapshot!(home.line("delete -f cm.yaml"), @r#"configmap "applied" deleted from shop namespace"#);
    insta::assert_snapshot!(home.line("delete ns shop"), @r#"namespace "shop" deleted"#);
    insta::assert_snapshot!(home.line("delete ns shop"), @r#"
    --
    Error from server (NotFound): namespaces "shop" not found
    exit 1
    "#);
    insta::assert_snapshot!(home.line("delete pods"), @r"
    --
    error: resource(s) were provided, but no name was specified
    exit 1
    ");
}

fn files_that_are_wrong(home: &Home) {
    home.write("tab.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n");
    insta::assert_snapshot!(home.line("apply -f tab.yaml"), @r"
    --
    error: error parsing tab.yaml: line 4 column 2: tabs disallowed within this context (block indentation)
     --> <input>:4:2
      |
    2 | kind: ConfigMap
    3 | metadata:
    4 |   name: a
      |   ^ tabs disallowed within this context (block indentation)
    exit 1
    ");
    home.write("half.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {");
    insta::assert_snapshot!(home.line("apply -f half.yaml"), @r"
    --
    error: error parsing half.yaml: line 3 column 29: unclosed bracket '{'
     --> <input>:3:29
      |
    1 | apiVersion: v1
    2 | kind: ConfigMap
    3 | metadata: {name: a, labels: {
      |   ^ unclosed bracket '{'
    exit 1
    ");
    insta::assert_snapshot!(home.line("apply -f nothing.yaml"), @r#"
    --
    error: the path "nothing.yaml" does not exist
    exit 1
    "#);
    let unknown_field =
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a, namespace: legacy}\nspec: {selektor: {a: b}}\n";
    insta::assert_snapshot!(home.pipe(&["apply", "-f", "-"], unknown_field), @r#"
    --
    Error from server (BadRequest): error when creating "-": error when applying: strict decoding error: unknown field "spec.selektor"
    exit 1
    "#);
    insta::assert_snapshot!(home.pipe(&["apply", "-f", "-"], "apiVersion: v1\nkind: Pott\nmetadata: {name: a}\n"), @r#"
    --
    error: resource mapping not found for name: "a": no matches for kind "Pott" in version "v1"
    ensure CRDs are installed first
    exit 1
    "#);
    insta::assert_snapshot!(home.pipe(&["apply", "-f", "-"], "kind: Pod\n"), @r#"
    --
    error: Object 'apiVersion' is missing in {"kind":"Pod"}
    exit 1
    "#);
}

fn inside_pods(home: &Home) {
    insta::assert_snapshot!(home.line("exec -n legacy deploy/outside -- echo hello"), @"hello");
    insta::assert_snapshot!(home.run(&["exec", "-n", "legacy", "deploy/outside", "--", "sh", "-c", "echo no >&2; exit 7"]), @r#"
    --
    no
    command terminated with exit code 7
    exit 7
    "#);
    insta::assert_snapshot!(home.pipe(&["exec", "-i", "-n", "legacy", "deploy/outside", "--", "cat"], "passed on"), @"passed on");
    insta::assert_snapshot!(home.line("exec -n legacy deploy/outside -c nothing -- ls"), @r"
    --
    error: container nothing is not valid for pod outside-POD; it has client
    exit 1
    ");
    insta::assert_snapshot!(home.line("logs -n legacy deploy/nothing"), @r#"
    --
    Error from server (NotFound): deployments.apps "nothing" not found
    exit 1
    "#);
    insta::assert_snapshot!(home.line("scale deploy/outside -n legacy --replicas=2"), @"deployment.apps/outside scaled");
    home.line("rollout status deploy/outside -n legacy --timeout=30s");
    insta::assert_snapshot!(home.line("get deploy outside -n legacy --no-headers"), @"outside   2/2   2   2   TIME");
    home.line("scale deploy/outside -n legacy --replicas=1");
    insta::assert_snapshot!(home.line("rollout restart deployment/outside -n legacy"), @"deployment.apps/outside restarted");
    assert!(home.line("rollout status deploy/outside -n legacy --timeout=30s").ends_with("successfully rolled out\n"));
    insta::assert_snapshot!(home.line("wait --for=condition=Available deploy/outside -n legacy"), @"deployment.apps/outside condition met");
    insta::assert_snapshot!(home.line("wait --for=condition=Nothing deploy/outside -n legacy --timeout=0s"), @r#"
    --
    error: timed out waiting for the condition on deployment.apps/outside
    exit 1
    "#);
    let described = home.line("describe deploy outside -n legacy");
    assert!(described.contains("1 desired | 1 updated") && described.contains("Events:"), "{described}");
}

fn solved(home: &Home) {
    until("step 1 is solved", || home.line("solve --apply").starts_with("The solution is written"));
    insta::assert_snapshot!(home.line("check control-plane-ready control-plane-ready"), @r#"
    ✓ The control plane, istiod, is running  control-plane-ready

    1 passed
    "#);
    insta::assert_snapshot!(home.line("check nothing"), @r#"
    --
    error: there is no step and no check "nothing"
    hint: steps: all, setup, routing, canary, security, observability
    exit 2
    "#);
    home.line("next");
    // Not solved yet: what fails, fails by an exit code.
    let report = home.line("check webapp-through-gateway -o junit");
    assert!(report.contains("tests=\"1\" failures=\"1\"") && report.ends_with("exit 1\n"), "{report}");
    insta::assert_snapshot!(home.run(&["apply", "-f", &course().join("2-routing/solution").display().to_string()]), @r#"
    gateway.networking.istio.io/webapp-gateway created
    destinationrule.networking.istio.io/webapp-destination-rule created
    virtualservice.networking.istio.io/webapp-virtualservice created
    destinationrule.networking.istio.io/api-destination-rule created
    virtualservice.networking.istio.io/api-virtualservice created
    "#);
    until("the gateway answers", || home.line("check webapp-through-gateway").contains("1 passed"));
}

fn explained(home: &Home) {
    until("the route is there", || home.line("explain http://webapp.istio.local/").contains("→ 200"));
    insta::assert_snapshot!(home.run(&["explain", "webapp.istio.local", "-H", "x-user-region: asia"]), @r#"
    GET http://webapp.istio.local  (from outside)
    → 200 OK, TIME

    1. istio-ingressgateway-POD.istio-system  gateway
       ├─   client   ADDRESS (legacy/outside-POD)
       │   no certificate: plaintext, or TLS without one
       ├─   listener   0.0.0.0_8080 › http.8080
       ├─   virtual host  webapp.istio.local:80
       ├─ · not taken   maintenance  VirtualService webapp/webapp-virtualservice spec.http[0].match[0]
       │   wanted: header x-maintenance exactly "true"
       ├─ · not taken   beta-users  VirtualService webapp/webapp-virtualservice spec.http[1].match[0]
       │   wanted: header x-user-type exactly "beta"
       ├─ ✓ route   asia  VirtualService webapp/webapp-virtualservice spec.http[2].match[0]
       ├─   cluster   outbound|80|v2|webapp-service.webapp.svc.cluster.local
       │   subset v2
       │   Service webapp/webapp-service
       │   DestinationRule webapp/webapp-destination-rule
       │   DestinationRule webapp/webapp-destination-rule spec.subsets[1]
       ├─ ✓ attempt   ADDRESS (webapp/webapp-v2-POD)  status 200
       └─ ✓ answer   200  via_upstream (from upstream)

    2. webapp-v2-POD.webapp  the server's sidecar, inbound
       ├─   client   ADDRESS (istio-system/istio-ingressgateway-POD)
       │   spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account (mutual TLS)
       ├─   listener   virtualInbound › 0.0.0.0_8080 › inbound|8080||
       ├─   virtual host  inbound|http|80
       ├─ ✓ route   default
       ├─   cluster   inbound|8080||
       │   Service webapp/webapp-service
       ├─ ✓ attempt   ADDRESS (webapp/webapp-v2-POD)  status 200
       └─ ✓ answer   200  via_upstream (from upstream)
    "#);
    let unknown = home.line("explain http://nowhere.istio.local/");
    assert!(unknown.contains("→ 404 Not Found") && unknown.contains("route_not_found (no route fits)"), "{unknown}");
    let plaintext = home.line("explain http://webapp-service.webapp/ --from legacy --lang ja");
    assert!(plaintext.contains("サーバー側サイドカー、受信") && plaintext.contains("クライアント証明書なし"), "{plaintext}");
    assert!(home.line("explain http://webapp-service/ --from deploy/client").contains("the client's sidecar, outbound"));
    let json: serde_json::Value = serde_json::from_str(&home.line("explain http://webapp.istio.local/ -o json")).unwrap();
    assert_eq!(json["hops"][0]["route"]["origin"]["name"], "webapp-virtualservice");
    insta::assert_snapshot!(home.line("explain http://nothing-at-all/ --from mesh"), @r"
    GET http://nothing-at-all/  (from mesh)
    → no answer: nothing-at-all: no such host: nothing-at-all, TIME

    The name is not known where the request was sent from. From the mesh, use the name of a Service; hosts of a Gateway are asked for with `--from outside`.
    ");
}

fn proxies(home: &Home) {
    assert!(home.line("proxy-status").contains("istio-ingressgateway-POD.istio-system"));
    insta::assert_snapshot!(home.line("proxy-config clusters deploy/client --fqdn webapp-service"), @r"
    SERVICE FQDN   PORT   SUBSET   DIRECTION   TYPE   DESTINATION RULE
    webapp-service.webapp.svc.cluster.local   80   -   outbound   EDS   webapp-destination-rule.webapp
    webapp-service.webapp.svc.cluster.local   80   v1   outbound   EDS   webapp-destination-rule.webapp
    webapp-service.webapp.svc.cluster.local   80   v2   outbound   EDS   webapp-destination-rule.webapp
    webapp-service.webapp.svc.cluster.local   80   v2-beta   outbound   EDS   webapp-destination-rule.webapp
    ");
    let routes = home.line("pc routes deploy/istio-ingressgateway -n istio-system --name http.8080");
    assert!(routes.contains("webapp.istio.local:80   webapp.istio.local   /*   webapp-virtualservice.webapp"), "{routes}");
    assert!(
        home.line("pc endpoints deploy/client --cluster outbound|80|v1|webapp-service.webapp.svc.cluster.local")
            .contains("HEALTHY")
    );
    assert!(home.line("pc listeners deploy/client.webapp --port 80").contains("Route: 80"));
    let without = home.line("pc routes deploy/outside -n legacy");
    assert!(without.contains("Proxy not connected") && without.ends_with("exit 1\n"), "{without}");
    insta::assert_snapshot!(home.line("analyze -n webapp"), @"✔ No validation issues found when analyzing namespace: webapp.");
}

/// Opens a page and asks for it.
fn pages(home: &Home) {
    use std::io::{BufRead, BufReader, Read, Write};
    for (name, page) in [("prometheus", "/"), ("jaeger", "/jaeger/search"), ("grafana", "/"), ("kiali", "/kiali")] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_meshlab"))
            .args(["dashboard", name, "--no-browser"])
            .env("MESHLAB_HOME", home.path("home"))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address =
            url.trim().strip_prefix("http://").and_then(|url| url.strip_suffix(page)).unwrap_or_else(|| panic!("{url}"));
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        write!(connection, "GET {page} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with(['2', '3']), "{name}: {answer}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    insta::assert_snapshot!(home.run(&["dashboard", "kiali", "--no-browser", "--port", &port]), @r"
    --
    error: unable to listen on 127.0.0.1:PORT: Address already in use (os error 98)
    hint: leave --port out for a free one
    exit 1
    ");
}

/// Where the machine has no kubectl, `env` brings the built-in one.
fn without_kubectl(home: &Home) {
    std::fs::create_dir_all(home.path("tools")).unwrap();
    for tool in ["sh", "cat"] {
        std::os::unix::fs::symlink(format!("/bin/{tool}"), home.path("tools").join(tool)).unwrap();
    }
    let path = home.path("tools").display().to_string();
    let output = home.command(&["env"]).env("PATH", &path).output().unwrap();
    let script =
        format!("{}kubectl get deploy -n legacy -o name\nkubectl get --nonsense\n", String::from_utf8(output.stdout).unwrap());
    let output = assert_cmd::Command::new("/bin/sh")
        .args(["-c", &script])
        .env("PATH", &path)
        .env("MESHLAB_HOME", home.path("home"))
        .output();
    insta::assert_snapshot!(home.shown(&output.unwrap()), @r"
    deployment.apps/legacy-client
    deployment.apps/outside
    --
    error: unexpected argument '--nonsense' found

      tip: to pass '--nonsense' as a value, use '-- --nonsense'

    Usage: kubectl get [OPTIONS] [WHAT]...

    For more information, try '--help'.
    exit 2
    ");
    // One that is there is left alone.
    std::fs::write(home.path("tools/kubectl"), "").unwrap();
    let output = home.command(&["env"]).env("PATH", &path).output().unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("home/bin"));
}

/// The lab's own cluster stands for one that a kubeconfig names.
fn another_cluster(home: &Home) {
    let other = Home::new();
    let kubeconfig = home.path("home/kubeconfig");
    let start = |context: &str| {
        let cluster = format!("kubeconfig{context}");
        other.shown(&other.command(&["start", "--no-ui", "--cluster", &cluster]).env("KUBECONFIG", &kubeconfig).output().unwrap())
    };
    insta::assert_snapshot!(start(":nothing"), @r#"
    --
    error: the kubeconfig has no context "nothing"
    hint: contexts: meshlab
    exit 2
    "#);
    assert!(start("").contains("is running"));
    insta::assert_snapshot!(other.line("status"), @r"
    lab   phase3 (meshlab 0.1.0)
    cluster   kubeconfig:meshlab
    API server   https://127.0.0.1:PORT
    kubeconfig   DIR/home/kubeconfig
    gateway   127.0.0.1:PORT
    files   DIR/meshlab-phase3
    step   1. Setup: control plane and sidecars
    passed   0/5
    ");
    insta::assert_snapshot!(other.line("check control-plane-ready"), @r#"
    ✓ The control plane, istiod, is running  control-plane-ready

    1 passed
    "#);
    insta::assert_snapshot!(other.line("start --no-ui --cluster embedded"), @r"
    --
    error: the lab runs already, on cluster kubeconfig:meshlab
    hint: `meshlab stop` first
    exit 1
    ");
    insta::assert_snapshot!(other.line("stop"), @"Cluster kubeconfig:meshlab is left as it is. To take the lab off it: kubectl delete namespace istio-system webapp legacy");
    insta::assert_snapshot!(other.line("status"), @r"
    --
    error: the lab is not running
    hint: start it with `meshlab start`
    exit 3
    ");
    // Somebody else's mesh is left alone.
    home.run(&["label", "deploy", "istiod", "-n", "istio-system", "a=b"]);
    let patch =
        r#"{"spec": {"template": {"spec": {"containers": [{"name": "discovery", "image": "docker.io/istio/pilot:1.27.0"}]}}}}"#;
    home.run(&["patch", "deploy", "istiod", "-n", "istio-system", "-p", patch]);
    insta::assert_snapshot!(start(""), @r"
    --
    error: this cluster has a mesh already: istio-system/istiod runs docker.io/istio/pilot:1.27.0
    hint: take a cluster without Istio: meshlab installs its own mesh under the same names
    exit 1
    ");
}

fn damage(home: &Home) {
    // A namespace is gone, and with it a client of the lab: nothing can be measured from there.
    home.line("delete ns legacy");
    insta::assert_snapshot!(home.line("check unknown-host-refused -o json").lines().last().unwrap(), @"exit 4");
    // A webhook that nobody answers, and the mesh's own one deleted.
    let webhook = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: broken}\nwebhooks:\n- name: broken.example.com\n  sideEffects: None\n  admissionReviewVersions: [v1]\n  timeoutSeconds: 1\n  clientConfig: {service: {name: nobody, namespace: default}}\n  rules: [{apiGroups: [''], apiVersions: [v1], operations: ['*'], resources: [configmaps]}]\n";
    insta::assert_snapshot!(home.pipe(&["apply", "-f", "-"], webhook), @"validatingwebhookconfiguration.admissionregistration.k8s.io/broken created");
    insta::assert_snapshot!(home.line("create configmap x --from-literal=a=1"), @r#"
    --
    Error from server (InternalError): Internal error occurred: failed calling webhook "broken.example.com": failed to call webhook: service "nobody" not found
    exit 1
    "#);
    insta::assert_snapshot!(home.line("delete validatingwebhookconfiguration broken"), @r#"validatingwebhookconfiguration.admissionregistration.k8s.io "broken" deleted"#);
    home.line("delete mutatingwebhookconfiguration istio-sidecar-injector");
    insta::assert_snapshot!(home.line("reset"), @"Back at the start; what you had written is kept as *.bak.");
    until("the client is back", || home.line("check unknown-host-refused").contains("1 passed"));
    home.line("label ns legacy istio-injection=enabled");
    home.line("delete pod -n legacy --all");
    until("new pods are injected", || home.line("get pods -n legacy").matches("2/2").count() == 2);
}

fn after_a_crash(home: &Home) {
    let status = home.command(&["status"]).output().unwrap();
    let text = String::from_utf8(status.stdout).unwrap();
    let pid = text.split("process ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    until("the process is gone", || home.line("status").ends_with("exit 3\n"));
    insta::assert_snapshot!(home.line("start --no-ui").lines().next().unwrap(), @"Phase 3: Service mesh with the Istio API is running (up in TIME).");
    insta::assert_snapshot!(home.line("stop"), @"The lab is stopped. `meshlab start` resumes where you were.");
    insta::assert_snapshot!(home.line("stop"), @r#"
    --
    error: the lab is not running
    hint: start it with `meshlab start`
    exit 3
    "#);
}
