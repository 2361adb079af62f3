use std::net::SocketAddr;

use meshlab_net::{Listener, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::testing::{Pod, Running, World, tls_server};

/// A pod with curl, and a web app that it can call.
async fn client_and_app() -> (World, Pod, Running) {
    let world = World::new();
    let app = world.pod("web", "10.244.0.5", crate::webapp());
    let mut running = app.start_image(&["--version=v2", "--service-name=web"]);
    running.says("serves").await;
    let client = world.pod("client", "10.244.0.6", crate::curl());
    (world, client, running)
}

#[tokio::test]
async fn what_is_written_out() {
    let (_world, client, _app) = client_and_app().await;
    for (script, expected) in [
        ("curl -s -o /dev/null -w '%{http_code}\\n' http://web:8080/", "200\n"),
        (
            "curl -sS -o /dev/null -w '%{http_code} %{remote_ip} %{http_version} %{num_connects}' web:8080/?status=503",
            "503 10.244.0.5 1.1 1",
        ),
        ("curl -s http://web:8080/healthz", "ok\n"),
        ("curl -sI http://web:8080/healthz | head -1", "HTTP/1.1 200 OK\r\n"),
        ("curl -si http://web:8080/healthz | grep content-type", "content-type: text/plain; charset=utf-8\r\n"),
        ("curl -s --http2-prior-knowledge -o /dev/null -w '%{http_version}' http://web:8080/", "2"),
        ("curl -s 'http://web:8080/[1-3]' | grep -c '\"v2\"'", "3\n"),
        (
            "curl -s -H 'end-user: jason' -A agent http://web:8080/x | grep -E '\"(end-user|user-agent|path)\"'",
            "  \"path\": \"/x\",\n    \"end-user\": \"jason\",\n    \"user-agent\": \"agent\"\n",
        ),
        (
            "curl -s -d a=1 -d b=2 http://web:8080/ | grep -E '\"(body|method|content-type)\"'",
            "  \"method\": \"POST\",\n    \"content-type\": \"application/x-www-form-urlencoded\",\n  \"body\": \"a=1&b=2\"\n",
        ),
        ("curl -s -G --data-urlencode 'q=a b' http://web:8080/ | grep '\"path\"'", "  \"path\": \"/?q=a%20b\",\n"),
        (
            "curl -s -X DELETE -u me:secret http://web:8080/ | grep -E '\"(method|authorization)\"'",
            "  \"method\": \"DELETE\",\n    \"authorization\": \"Basic bWU6c2VjcmV0\",\n",
        ),
        ("curl -s --resolve other:8080:10.244.0.5 http://other:8080/ | grep '\"host\"'", "    \"host\": \"other:8080\",\n"),
        ("curl -s --connect-to other:80:web:8080 http://other/ | grep '\"host\"'", "    \"host\": \"other\",\n"),
        ("curl -s -H 'Host: bookinfo.com' http://10.244.0.5:8080/ | grep '\"host\"'", "    \"host\": \"bookinfo.com\",\n"),
        (
            "curl -s -o /tmp/f http://web:8080/healthz; cat /tmp/f; cd /tmp; curl -sO http://web:8080/readyz; cat readyz",
            "ok\nok\n",
        ),
        ("curl -s 'http://web:8080/?stream=3&interval=1ms' | cut -d' ' -f1", "1\n2\n3\n"),
        ("curl -s 'http://web:8080/?bytes=100000' | wc -c", "100000\n"),
        ("curl -s --retry 2 --retry-delay 0 -o /dev/null -w '%{http_code}' 'http://web:8080/?status=503'", "503"),
    ] {
        let output = client.sh(script).await;
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (expected, ""), "{script}");
    }
}

#[tokio::test]
async fn failures_have_curls_codes_and_words() {
    let (_world, client, _app) = client_and_app().await;
    for (arguments, code, message) in [
        ("http://nonesuch/", 6, "Could not resolve host: nonesuch"),
        ("http://web:81/", 7, "Failed to connect to web port 81 after 0 ms: Could not connect to server"),
        ("-f http://web:8080/?status=404", 22, "The requested URL returned error: 404"),
        ("-m 0.1 http://web:8080/?delay=5s", 28, ""),
        ("https://web:8080/", 35, ""),
        ("ftp://web/", 1, "Protocol \"ftp\" not supported"),
        ("http://", 3, "URL rejected: Malformed input to a URL function"),
        ("--cacert /none https://web:8080/", 77, ""),
    ] {
        let output = client.sh(&format!("curl -sS {arguments}")).await;
        assert_eq!(output.code, code, "{arguments}: {output:?}");
        let expected = format!("curl: ({code}) {message}");
        assert!(output.stderr.starts_with(&expected), "{arguments}: {output:?}");
        assert_eq!(client.sh(&format!("curl -s {arguments} 2>&1 >/dev/null")).await.stdout, "", "{arguments}");
    }
}

#[tokio::test]
async fn a_server_that_closes_or_talks_nonsense_is_told_apart() {
    let world = World::new();
    let server = world.pod("server", "10.244.0.5", crate::busybox());
    let client = world.pod("client", "10.244.0.6", crate::curl());
    for (port, reply, code) in
        [(1, "", 52), (2, "hello there\r\n\r\n", 1), (3, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", 18)]
    {
        let mut listener = server.container.net.listen(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap();
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            stream.write_all(reply.as_bytes()).await.unwrap();
        });
        let output = client.sh(&format!("curl -sS http://server:{port}/")).await;
        assert_eq!(output.code, code, "{output:?}");
    }
}

#[tokio::test]
async fn verbose_shows_both_heads() {
    let (_world, client, _app) = client_and_app().await;
    let output = client.sh("curl -sv http://web:8080/healthz 2>&1 | grep -v date").await;
    insta::assert_snapshot!(output.stdout.replace('\r', ""), @r"
    *   Trying 10.244.0.5:8080...
    * Connected to web (10.244.0.5) port 8080
    > GET /healthz HTTP/1.1
    > Host: web:8080
    > User-Agent: curl/8.10.1
    > Accept: */*
    > 
    < HTTP/1.1 200 OK
    < content-type: text/plain; charset=utf-8
    < content-length: 3
    < 
    ok
    * Connection #0 to host web left intact
    ");
}

#[tokio::test]
async fn certificates_are_verified() {
    let world = World::new();
    let server = world.pod("server", "10.244.0.5", crate::busybox());
    let client = world.pod("client", "10.244.0.6", crate::curl());
    let authority = tls_server(&server, 443, "server").await;
    client.container.fs.write("/ca.pem", authority).unwrap();
    assert_eq!(client.out("curl -sS --cacert /ca.pem https://server/").await, "secure");
    assert_eq!(client.out("curl -sk -w ' %{ssl_verify_result}' https://server/").await, "secure 20");
    let unknown = client.sh("curl -sS https://server/").await;
    assert_eq!(unknown.code, 60);
    assert!(
        unknown.stderr.starts_with("curl: (60) SSL certificate problem: unable to get local issuer certificate\nMore details")
    );
    let misnamed = client.sh("curl -sS --cacert /ca.pem --resolve other:443:10.244.0.5 https://other/").await;
    assert_eq!(misnamed.code, 60);
    assert!(misnamed.stderr.contains("no alternative certificate subject name matches target host name 'other'"), "{misnamed:?}");
}
