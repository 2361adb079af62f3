use crate::testing::{Pod, Running, World};

struct Shop {
    _world: World,
    client: Pod,
    front: Running,
    _back: Running,
}

/// A client, `front`, and `back` that `front` calls.
async fn shop(front_flags: &[&str], back_flags: &[&str]) -> Shop {
    let world = World::new();
    let back = world.pod("back", "10.244.0.5", super::webapp());
    let mut back_running = back.start_image(&[&["--service-name=back", "--version=v2", "--tcp-port=9000"], back_flags].concat());
    back_running.says("serves").await;
    let front = world.pod("front", "10.244.0.4", super::webapp());
    let mut front_running = front.start_image(&[&["--service-name=front"], front_flags].concat());
    front_running.says("serves").await;
    let client = world.pod("client", "10.244.0.6", crate::curl());
    Shop { _world: world, client, front: front_running, _back: back_running }
}

#[tokio::test]
async fn it_says_who_it_is_and_what_reached_it() {
    let shop = shop(&["--message=hi"], &[]).await;
    insta::assert_snapshot!(shop.client.out("curl -s front:8080/a?b=1 -H 'x-request-id: 7'").await, @r#"
    {
      "service": "front",
      "version": "v1",
      "hostname": "front",
      "pod_ip": "10.244.0.4",
      "message": "hi",
      "method": "GET",
      "path": "/a?b=1",
      "protocol": "HTTP/1.1",
      "client": "10.244.0.6",
      "headers": {
        "accept": "*/*",
        "host": "front:8080",
        "user-agent": "curl/8.10.1",
        "x-request-id": "7"
      }
    }
    "#);
    let page = shop.client.out("curl -s front:8080/ -H 'accept: text/html' -H 'x-evil: <script>'").await;
    assert!(page.contains("<h1>front v1</h1>") && page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn it_calls_on_and_passes_trace_headers() {
    let shop = shop(&["--upstreams=http://back:8080/x,/grpc=grpc://back:8080"], &[]).await;
    let trace = "-H 'b3: 1-2-1' -H 'traceparent: 00-1-2-01' -H 'x-other: 3' -H 'end-user: jason'";
    let output =
        shop.client.out(&format!("curl -s front:8080/ {trace} | sed -n '/upstreams/,$p' | grep -vE 'duration|user-agent'")).await;
    insta::assert_snapshot!(output, @r#"
      "upstreams": [
        {
          "url": "http://back:8080/x",
          "status": 200,
          "body": {
            "client": "10.244.0.4",
            "headers": {
              "b3": "1-2-1",
              "end-user": "jason",
              "host": "back:8080",
              "traceparent": "00-1-2-01",
              "x-webapp-hops": "1"
            },
            "hostname": "back",
            "method": "GET",
            "path": "/x",
            "pod_ip": "10.244.0.5",
            "protocol": "HTTP/1.1",
            "service": "back",
            "version": "v2"
          }
        }
      ]
    }
    "#);
    let output = shop.client.out("curl -s front:8080/grpc | grep -A8 'url.*grpc' | grep -v duration").await;
    assert!(output.contains("\"status\": 200") && output.contains("\"grpc-status\": \"0\""), "{output}");
    let metrics = shop.client.out("curl -s front:8080/metrics | grep -E '_total|_count'").await;
    assert!(metrics.contains("webapp_requests_total{service=\"front\",version=\"v1\",code=\"200\"} 2"), "{metrics}");
    assert!(metrics.contains("webapp_upstream_requests_total{service=\"front\",version=\"v1\",code=\"200\"} 3"), "{metrics}");
}

#[tokio::test]
async fn it_fails_when_told_to() {
    let shop = shop(&["--upstreams=http://back:8080/"], &["--fail-rate=1", "--fail-status=503"]).await;
    let code = "curl -s -o /dev/null -w %{http_code}";
    for (script, expected) in [
        (format!("{code} back:8080/"), "503"),
        (format!("{code} back:8080/healthz"), "200"),
        (format!("{code} back:8080/?status=404"), "404"),
        (format!("{code} back:8080/?status=204"), "204"),
        (format!("{code} back:8080/?status=nonsense"), "400"),
        (format!("{code} front:8080/"), "502"),
        (format!("{code} front:8080/?status=201"), "201"),
        (format!("{code} 'front:8080/?call=http://nobody/'"), "502"),
        ("curl -s front:8080/ | grep -c '\"status\": 503'".to_owned(), "1\n"),
    ] {
        assert_eq!(shop.client.sh(&script).await.stdout, expected, "{script}");
    }
}

#[tokio::test]
async fn services_that_call_each_other_in_a_circle_stop() {
    let shop = shop(&["--upstreams=http://back:8080/"], &["--upstreams=http://front:8080/"]).await;
    let output = shop.client.out("curl -s front:8080/").await;
    assert!(output.contains("probably in a circle"), "{output}");
}

#[tokio::test]
async fn lines_are_echoed_over_tcp() {
    let shop = shop(&[], &[]).await;
    assert_eq!(shop.client.sh("printf 'a\\nb' | nc back 9000").await.stdout, "hello a\nhello b");
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_it_stops() {
    let shop = shop(&[], &[]).await;
    let mut slow = shop.client.start(&["curl", "-sN", "front:8080/?stream=3&interval=100ms"]);
    slow.says("1 front").await;
    assert_eq!(shop.front.stop().await, 0);
    let rest = slow.says("3 front").await;
    assert!(rest.contains("2 front"), "{rest}");
    assert_eq!(slow.child.wait().await, 0);
}

#[tokio::test]
async fn a_wrong_setting_ends_it_with_its_name() {
    let pod = Pod::alone(super::webapp());
    let output = pod.run(&["webapp", "--port=http"]).await;
    assert_eq!((output.code, output.stderr.as_str()), (2, "webapp: PORT=\"http\" is not a port from 1 to 65535\n"));
}
