use crate::testing::{Output, Pod, Running, World};

async fn site(config: &str) -> (World, Pod, Running) {
    let world = World::new();
    let server = world.pod("web", "10.244.0.5", super::nginx());
    let fs = &server.container.fs;
    fs.write("/etc/nginx/conf.d/default.conf", config.to_owned()).unwrap();
    fs.create_dir_all("/site/docs").unwrap();
    for (path, content) in
        [("/site/index.html", "home"), ("/site/app.js", "js"), ("/site/docs/index.html", "docs"), ("/site/404.html", "lost")]
    {
        fs.write(path, content).unwrap();
    }
    let app = world.pod("app", "10.244.0.7", crate::webapp());
    let mut running = app.start_image(&["--service-name=app"]);
    running.says("serves").await;
    // It runs as long as its network is there.
    running.child.detach();
    let mut running = server.start_image(&[]);
    let mut line = [0; 256];
    let count = tokio::io::AsyncReadExt::read(&mut running.stderr, &mut line).await.unwrap();
    assert!(String::from_utf8_lossy(&line[..count]).contains("serving"), "{}", String::from_utf8_lossy(&line[..count]));
    let client = world.pod("client", "10.244.0.6", crate::curl());
    (world, client, running)
}

/// `nginx -t` with a configuration of its own.
async fn check(config: &str) -> Output {
    let pod = Pod::alone(super::nginx());
    pod.container.fs.write("/etc/nginx/conf.d/default.conf", config.to_owned()).unwrap();
    pod.run(&["nginx", "-t"]).await
}

#[tokio::test]
async fn the_image_serves_its_page() {
    let world = World::new();
    let server = world.pod("web", "10.244.0.5", super::nginx());
    let mut running = server.start_image(&[]);
    let client = world.pod("client", "10.244.0.6", crate::curl());
    let mut line = [0; 256];
    tokio::io::AsyncReadExt::read(&mut running.stderr, &mut line).await.unwrap();
    let output = client.out("curl -s http://web | grep '<h1>'; curl -sI web/index.html | grep -E 'server|content-type'").await;
    assert_eq!(output, "<h1>Welcome to nginx</h1>\nserver: nginx/1.27.5\r\ncontent-type: text/html\r\n");
    let log = running.says("\"HEAD /index.html HTTP/1.1\" 200").await;
    assert!(
        log.contains("10.244.0.6 - - [") && log.contains("\"GET / HTTP/1.1\" 200 ") && log.contains("\"-\" \"curl/"),
        "{log}"
    );
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn locations_files_and_returns() {
    let (_world, client, _server) = site(
        r#"
        server {
            listen 80 default_server;
            server_name example.com *.example.org;
            root /site;
            add_header X-Site main always;
            error_page 404 /404.html;
            location / { try_files $uri $uri/ =404; }
            location = /exact { return 200 "exact $host$request_uri\n"; }
            location ^~ /static/ { return 200 static; }
            location ~ ^/user/(\d+)$ { return 200 "user $1"; }
            location ~ ^/order/(?<id>\d+)/(?<part>.*)$ { return 200 "$part of $id for $cookie_user"; }
            location ~* \.JS$ { add_header X-Kind script; }
            location /old { return 301 https://$host/new; }
            location /gone { return 410; }
            location /alias/ { alias /site/docs/; }
            location /list/ { alias /site/; autoindex on; index none; }
            location /agent { default_type text/plain; return 200 "$http_user_agent $arg_q $request_method $remote_addr"; }
            location /rw/ { rewrite ^/rw/(.*)$ /docs/$1 last; }
            location /spa { try_files $uri @back; }
            location @back { return 200 fallback; }
        }
        server { listen 80; server_name other; return 204; }
        server { listen 8080; location / { return 200 "port $server_port"; } }
        "#,
    )
    .await;
    for (script, expected) in [
        ("curl -s web/", "home"),
        ("curl -s web/docs/", "docs"),
        ("curl -s -o /dev/null -w '%{http_code} %{redirect_url}' web/docs", "200 "),
        ("curl -s -w ' %{http_code}' web/none", "lost 404"),
        ("curl -s -H 'Host: a.example.org' web/exact?x=1", "exact a.example.org/exact?x=1\n"),
        ("curl -s web/static/user/1; curl -s web/user/42", "staticuser 42"),
        ("curl -s -b user=jason web/order/7/items", "items of 7 for jason"),
        ("curl -sI web/app.js | grep -iE 'x-|content-type'", "content-type: application/javascript\r\nx-kind: script\r\n"),
        ("curl -sI web/ | grep x-", "x-site: main\r\n"),
        ("curl -s -o /dev/null -w '%{http_code} %{redirect_url}' web/old", "301 https://web/new"),
        ("curl -s web/gone | grep -c '410 Gone'", "2\n"),
        ("curl -s web/alias/index.html; curl -s web/list/ | grep -c href", "docs5\n"),
        ("curl -s -A me 'web/agent?q=7'", "me 7 GET 10.244.0.6"),
        ("curl -s web/rw/index.html; curl -s web/spa", "docsfallback"),
        ("curl -s -o /dev/null -w '%{http_code}' -H 'Host: other' web/", "204"),
        ("curl -s web:8080/x", "port 8080"),
        ("curl -s -X POST -o /dev/null -w '%{http_code}' web/", "405"),
        ("curl -s -o /dev/null -w '%{http_code}' 'web/..%2f..%2fetc/passwd'", "404"),
    ] {
        assert_eq!(client.sh(script).await.stdout, expected, "{script}");
    }
}

#[tokio::test]
async fn requests_are_passed_on() {
    let (_world, client, _server) = site(
        r#"
        upstream backend { server app:8080; }
        server {
            listen 80;
            proxy_set_header X-Real-IP $remote_addr;
            location /plain/ { proxy_pass http://app:8080; }
            location /cut/ { proxy_pass http://backend/api/; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }
            location /dead { proxy_pass http://app:9; }
            location /nobody { proxy_pass http://nobody; }
            location /slow { proxy_pass http://app:8080; proxy_read_timeout 100ms; }
        }
        "#,
    )
    .await;
    for (script, expected) in [
        (
            "curl -s 'web/plain/a%20b?x=1' | grep -E '\"(path|host|x-real-ip)\"'",
            "  \"path\": \"/plain/a%20b?x=1\",\n    \"host\": \"app:8080\",\n    \"x-real-ip\": \"10.244.0.6\"\n",
        ),
        (
            "curl -s -d body 'web/cut/a?x=1' | grep -E '\"(path|host|x-forwarded-for|x-real-ip|body)\"'",
            "  \"path\": \"/api/a?x=1\",\n    \"host\": \"web\",\n    \"x-forwarded-for\": \"10.244.0.6\"\n  \"body\": \"body\"\n",
        ),
        ("curl -s -o /dev/null -w '%{http_code}' web/dead", "502"),
        ("curl -s -o /dev/null -w '%{http_code}' web/nobody", "502"),
        ("curl -s -o /dev/null -w '%{http_code}' 'web/slow?delay=5s'", "504"),
        ("curl -s -o /dev/null -w '%{http_code}' 'web/plain/?status=418'", "418"),
    ] {
        assert_eq!(client.sh(script).await.stdout, expected, "{script}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_in_nginxs_words() {
    let good = check("server { listen 80; }").await;
    assert_eq!((good.code, good.stderr.lines().count()), (0, 2), "{good:?}");
    for (config, message) in [
        ("server {\n  listen 80;\n  foo bar;\n}", "unknown directive \"foo\" in /etc/nginx/conf.d/default.conf:3"),
        ("server {\n  listen 80\n}", "unexpected \"}\" in /etc/nginx/conf.d/default.conf:3"),
        ("server {\n  listen 80;\n", "unexpected end of file, expecting \"}\" in /etc/nginx/conf.d/default.conf:3"),
        ("server { listen http; }", "invalid port in \"http\" of the \"listen\" directive in /etc/nginx/conf.d/default.conf:1"),
        ("server { location ~ ( { } }", "invalid regular expression \"(\" in /etc/nginx/conf.d/default.conf:1"),
        ("server { return 200 $nonsense; }", "unknown \"nonsense\" variable in /etc/nginx/conf.d/default.conf:1"),
        ("server { root; }", "invalid number of arguments in \"root\" directive in /etc/nginx/conf.d/default.conf:1"),
        ("location / { }", "\"location\" directive is not allowed here in /etc/nginx/conf.d/default.conf:1"),
        (
            "include none.conf;",
            "open() \"/etc/nginx/none.conf\" failed (2: No such file or directory) in /etc/nginx/conf.d/default.conf:1",
        ),
        ("include conf.d/default.conf;", "blocks or includes are nested more than 20 deep in /etc/nginx/conf.d/default.conf:1"),
    ] {
        let output = check(config).await;
        let expected = format!("nginx: [emerg] {message}\nnginx: configuration file /etc/nginx/nginx.conf test failed\n");
        assert_eq!((output.code, output.stderr), (1, expected), "{config}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_configuration_breaks_the_reader(text in r#"[ -~\n]{0,80}"#, words in proptest::collection::vec("server|listen|location|\\{|\\}|;|80|/|~|=|return|200|proxy_pass|http://a|\"|'|\\\\|\\$", 0..40)) {
        let fs = meshlab_program::FileSystem::default();
        fs.create_dir_all("/etc/nginx").unwrap();
        for text in [text, format!("http {{ {} }}", words.join(" "))] {
            fs.write(super::CONFIG, text).unwrap();
            let _ = super::config::Config::load(&fs, super::CONFIG);
        }
    }
}
