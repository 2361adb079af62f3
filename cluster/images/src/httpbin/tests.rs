use crate::testing::{Pod, Running, World};

async fn client_and_server() -> (World, Pod, Running) {
    let world = World::new();
    let server = world.pod("httpbin", "10.244.0.5", super::httpbin());
    let mut running = server.start_image(&[]);
    running.says("listens").await;
    let client = world.pod("client", "10.244.0.6", crate::curl());
    (world, client, running)
}

#[tokio::test]
async fn a_request_is_shown_in_httpbins_form() {
    let (_world, client, _server) = client_and_server().await;
    insta::assert_snapshot!(client.out("curl -s -H 'X-B3-Traceid: 1' 'httpbin/get?a=1&a=2&b=%20'").await, @r#"
    {
      "args": {
        "a": [
          "1",
          "2"
        ],
        "b": " "
      },
      "headers": {
        "Accept": "*/*",
        "Host": "httpbin",
        "User-Agent": "curl/8.10.1",
        "X-B3-Traceid": "1"
      },
      "origin": "10.244.0.6",
      "url": "http://httpbin/get?a=1&a=2&b=%20"
    }
    "#);
    insta::assert_snapshot!(client.out("curl -s --json '{\"x\": 1}' httpbin/post | grep -vi content").await, @r#"
    {
      "args": {},
      "data": "{\"x\": 1}",
      "files": {},
      "form": {},
      "headers": {
        "Accept": "application/json",
        "Host": "httpbin",
        "User-Agent": "curl/8.10.1"
      },
      "json": {
        "x": 1
      },
      "origin": "10.244.0.6",
      "url": "http://httpbin/post"
    }
    "#);
}

#[tokio::test]
async fn every_path_answers() {
    let (_world, client, _server) = client_and_server().await;
    let code = "-s -o /dev/null -w %{http_code}";
    for (script, expected) in [
        (format!("curl {code} httpbin/status/418"), "418"),
        (format!("curl {code} httpbin/status/204"), "204"),
        (format!("curl {code} httpbin/status/abc"), "400"),
        (format!("curl {code} httpbin/status/100"), "400"),
        (format!("curl {code} httpbin/nonesuch"), "404"),
        (format!("curl {code} httpbin/post"), "405"),
        (format!("curl {code} -L httpbin/redirect/3"), "200"),
        (format!("curl {code} httpbin/redirect/3"), "302"),
        (format!("curl {code} -L --max-redirs 2 httpbin/redirect/3 2>&1"), "302"),
        (format!("curl {code} -u u:p httpbin/basic-auth/u/p"), "200"),
        (format!("curl {code} -u u:x httpbin/basic-auth/u/p"), "401"),
        (format!("curl {code} httpbin/bearer"), "401"),
        (format!("curl {code} -H 'If-None-Match: x' httpbin/cache"), "304"),
        ("curl -s httpbin/ip | grep origin".to_owned(), "  \"origin\": \"10.244.0.6\"\n"),
        ("curl -s httpbin/bytes/1000 | wc -c".to_owned(), "1000\n"),
        ("curl -s httpbin/stream/5 | wc -l".to_owned(), "5\n"),
        ("curl -s httpbin/base64/aGVsbG8=".to_owned(), "hello"),
        ("curl -s --compressed httpbin/gzip | grep gzipped".to_owned(), "  \"gzipped\": true,\n"),
        ("curl -s 'httpbin/drip?numbytes=4&duration=0'".to_owned(), "****"),
        (
            "curl -s -L -c /jar httpbin/cookies/set/a/b | tr -d ' \\n'; curl -s -b /jar httpbin/cookies | grep -c '\"a\": \"b\"'"
                .to_owned(),
            "{\"cookies\":{\"a\":\"b\"}}1\n",
        ),
        ("curl -s -D - -o /dev/null 'httpbin/response-headers?x-lesson=1' | grep x-lesson".to_owned(), "x-lesson: 1\r\n"),
        (
            "curl -s -X PUT -d a=1 httpbin/anything/x | grep -E '\"(method|a)\"'".to_owned(),
            "    \"a\": \"1\"\n  \"method\": \"PUT\",\n",
        ),
        ("curl -s httpbin/uuid | grep -cE '[0-9a-f]{8}-[0-9a-f]{4}-4'".to_owned(), "1\n"),
        (format!("curl {code} httpbin/delay/0.01"), "200"),
    ] {
        assert_eq!(client.sh(&script).await.stdout, expected, "{script}");
    }
}
