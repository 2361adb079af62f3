use crate::base_image;
use crate::testing::{Pod, World, tls_server};

fn pod() -> Pod {
    let pod = Pod::alone(base_image());
    pod.container.fs.write("/tmp/fruit", "banana 3\napple 10\ncherry 2\napple 10\n").unwrap();
    pod
}

/// Scripts and what they write.
#[tokio::test]
async fn the_usual_commands() {
    let pod = pod();
    let mut wrong = Vec::new();
    for (script, expected) in [
        // Text.
        (
            "cd /tmp; cat fruit | head -1; head -n 2 fruit | tail -n 1; tail -n +4 fruit; tail -1 fruit",
            "banana 3\napple 10\napple 10\napple 10\n",
        ),
        ("cat -n /tmp/fruit | head -1", "     1\tbanana 3\n"),
        ("wc -l < /tmp/fruit; wc /tmp/fruit", "4\n        4        8       36 /tmp/fruit\n"),
        ("sort /tmp/fruit | uniq -c", "      2 apple 10\n      1 banana 3\n      1 cherry 2\n"),
        ("sort -k2 -n -r /tmp/fruit | cut -d' ' -f1; sort -u /tmp/fruit | wc -l", "apple\napple\nbanana\ncherry\n3\n"),
        (
            "echo a:b:c | cut -d: -f1,3; echo hello | cut -c2-3; echo HELLO | tr A-Z a-z; echo aabb | tr -s ab; echo a-b | tr -d -- -",
            "a:c\nel\nhello\nab\nab\n",
        ),
        ("seq 3; seq 2 2 6; seq -s, 3; seq 1000000 | head -2", "1\n2\n3\n2\n4\n6\n1,2,3\n1\n2\n"),
        ("yes | head -2; echo x | tee /tmp/t; cat /tmp/t; rev /tmp/t", "y\ny\nx\nx\nx\n"),
        (
            "printf hello | base64; echo aGVsbG8= | base64 -d; echo; printf a | sha256sum",
            "aGVsbG8=\nhello\nca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  -\n",
        ),
        // grep and sed.
        (
            "grep -n apple /tmp/fruit; grep -c apple /tmp/fruit; grep -o 'a[np]*' /tmp/fruit | sort | uniq | head -2",
            "2:apple 10\n4:apple 10\n2\na\nan\n",
        ),
        (
            "grep -vi APPLE /tmp/fruit; grep -E '^(b|c)' /tmp/fruit | wc -l; grep -q none /tmp/fruit; echo $?",
            "banana 3\ncherry 2\n2\n1\n",
        ),
        (
            "grep -A1 banana /tmp/fruit; grep -rl cherry /tmp; grep -w 'ap' /tmp/fruit || echo none",
            "banana 3\napple 10\n/tmp/fruit\nnone\n",
        ),
        ("sed 's/a/A/' /tmp/fruit | head -1; sed -n '2p' /tmp/fruit; sed '1d;3,$d' /tmp/fruit", "bAnana 3\napple 10\napple 10\n"),
        (
            "sed -E 's/([a-z]+) ([0-9]+)/\\2 \\1/g' /tmp/fruit | head -1; sed -n '/cherry/,$p' /tmp/fruit; sed -e 's|an|<&>|2' /tmp/fruit | head -1",
            "3 banana\ncherry 2\napple 10\nban<an>a 3\n",
        ),
        ("cp /tmp/fruit /tmp/f2; sed -i 's/banana/pear/' /tmp/f2; head -1 /tmp/f2; rm /tmp/f2", "pear 3\n"),
        // Files.
        (
            "mkdir -p /a/b && touch /a/b/c && ls /a/b && mv /a/b/c /a/d && ls /a; rm -r /a; ls /a 2>&1; true",
            "c\nb\nd\nls: /a: No such file or directory\n",
        ),
        (
            "cd /tmp; mkdir x; echo 1 > x/f; cp -r x y; cat y/f; ln -s y/f link; cat link; readlink link; readlink -f link; rm -rf x y link",
            "1\n1\ny/f\n/tmp/y/f\n",
        ),
        (
            "cd /tmp; echo 1 > m; chmod 600 m; stat -c '%a %s %F' m; chmod u+x,go+r m; ls -l m | cut -c1-10; rm m",
            "600 2 regular file\n-rwxr--r--\n",
        ),
        (
            "mkdir -p /q/r; touch /q/a.txt /q/r/b.txt; find /q -name '*.txt'; find /q -type d -maxdepth 1; rm -r /q",
            "/q/a.txt\n/q/r/b.txt\n/q\n/q/r\n",
        ),
        ("basename /a/b.txt .txt; dirname /a/b.txt; realpath /usr/../tmp", "b\n/a\n/tmp\n"),
        // System.
        (
            "hostname; id -u; whoami; uname; sleep 0; which cat curlx; env A=1 printenv A",
            "box\n0\nroot\nLinux\n/usr/bin/cat\n1\n",
        ),
        ("X=2 env | grep '^X='; env -i A=b env; hostname -i", "X=2\nA=b\n10.244.0.9\n"),
        ("echo 'a b c' | xargs -n 2 echo got; printf '1\\n2\\n' | xargs -I{} echo 'item {}'", "got a b\ngot c\nitem 1\nitem 2\n"),
        ("timeout 0.05 sleep 10; echo $?; timeout 5 echo fine", "124\nfine\n"),
        ("ps | head -2 | cut -c1-24", "PID   USER     TIME  COM\n    1 root      0:00 cat\n"),
        ("date -u +%Y | grep -c '^20'; expr 2>/dev/null; [ -x /bin/sh ] && echo sh", "1\nsh\n"),
        // Archives.
        (
            "cd /home; mkdir t; echo in > t/f; chmod 755 t/f; tar czf t.tgz t; rm -r t; tar tf t.tgz; tar xzf t.tgz; cat t/f; stat -c %a t/f; rm -r t t.tgz",
            "t/\nt/f\nin\n755\n",
        ),
        ("echo data > /tmp/g; gzip /tmp/g; zcat /tmp/g.gz; gunzip /tmp/g.gz; cat /tmp/g; rm /tmp/g", "data\ndata\n"),
    ] {
        let output = pod.sh(script).await;
        if (output.stdout.as_str(), output.stderr.as_str()) != (expected, "") && !script.starts_with("ps") {
            wrong.push(format!("{script}\n  wanted {expected:?}, got {output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn failures_are_named() {
    let pod = pod();
    for (script, code, stderr) in [
        ("cat /none", 1, "cat: can't open '/none': No such file or directory\n"),
        ("rm /none", 1, "rm: can't remove '/none': No such file or directory\n"),
        ("rm -f /none", 0, ""),
        ("rm /tmp", 1, "rm: '/tmp' is a directory\n"),
        ("mkdir /tmp", 1, "mkdir: can't create directory '/tmp': File exists\n"),
        ("grep '(' -E x", 2, "grep: bad regex '('\n"),
        ("grep x /none", 2, "grep: /none: No such file or directory\n"),
        ("sort -Q", 1, "sort: unrecognized option: Q\n"),
        ("tail -n x /tmp/fruit", 1, "tail: invalid number 'x'\n"),
        ("cp /tmp /x", 1, "cp: omitting directory '/tmp'\n"),
        ("sleep x", 1, "sleep: invalid number 'x'\n"),
        ("echo junk | tar xf -", 1, ""),
        ("timeout 1 nonesuch", 127, "timeout: can't execute 'nonesuch': No such file or directory\n"),
        ("sed 's/a' /tmp/fruit", 1, "sed: unmatched '/'\n"),
    ] {
        let output = pod.sh(script).await;
        assert_eq!(output.code, code, "{script}: {output:?}");
        assert!(stderr.is_empty() || output.stderr == stderr, "{script}: {output:?}");
    }
}

/// What `kubectl cp` runs: <https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/cp/cp.go>.
#[tokio::test]
async fn kubectl_cp_carries_a_file_in_and_out() {
    let (from, to) = (pod(), pod());
    let packed = from.sh("tar cf - /tmp/fruit | base64").await;
    assert_eq!((packed.code, packed.stderr.as_str()), (0, "tar: removing leading '/' from member names\n"));
    let unpack = "base64 -d > /a.tar && tar --no-same-permissions --no-same-owner -xmf - -C /home < /a.tar && cat /home/tmp/fruit | head -1";
    assert_eq!(to.run_with_input(&["sh", "-c", unpack], &packed.stdout).await.stdout, "banana 3\n");
    assert_eq!(to.run(&["test", "-d", "/home"]).await.code, 0);
    assert_eq!(to.run(&["test", "-d", "/none"]).await.code, 1);
}

#[tokio::test]
async fn an_archive_cannot_lead_out_of_its_directory() {
    let pod = pod();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.as_mut_bytes()[..8].copy_from_slice(b"../../ev");
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &b"x"[..]).unwrap();
    pod.container.fs.write("/tmp/evil.tar", archive.into_inner().unwrap()).unwrap();
    let output = pod.sh("mkdir -p /deep/er; tar xf /tmp/evil.tar -C /deep/er; ls /").await;
    assert!(output.stderr.contains("leads out of the archive"), "{output:?}");
    assert!(!output.stdout.contains("\nev\n"), "{output:?}");
}

#[tokio::test]
async fn a_sparse_file_is_no_larger_than_an_archive_may_be() {
    let pod = pod();
    for (length, code) in [("00000010000", 0), ("77777777000", 1)] {
        let mut header = tar::Header::new_gnu();
        header.set_path("hole").unwrap();
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        let sparse = header.as_gnu_mut().unwrap();
        sparse.realsize[..11].copy_from_slice(length.as_bytes());
        sparse.sparse[0].offset[..11].copy_from_slice(length.as_bytes());
        sparse.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, &b""[..]).unwrap();
        pod.container.fs.write("/tmp/sparse.tar", archive.into_inner().unwrap()).unwrap();
        let output = pod.sh("tar xf /tmp/sparse.tar -C /tmp && wc -c /tmp/hole").await;
        let expected = if code == 0 { ("4096 /tmp/hole\n", "") } else { ("", "tar: the archive is over 64 MiB\n") };
        assert_eq!((output.code, (output.stdout.as_str(), output.stderr.as_str())), (code, expected));
    }
}

#[tokio::test]
async fn names_are_looked_up() {
    let world = World::new();
    let _web = world.pod("web", "10.244.0.5", crate::busybox());
    let pod = world.pod("client", "10.244.0.6", crate::busybox());
    insta::assert_snapshot!(pod.out("nslookup web; dig +short web.default.svc.cluster.local; host web; getent hosts web").await, @r"
    Server:		10.96.0.10
    Address:	10.96.0.10:53

    Name:	web.default.svc.cluster.local
    Address: 10.244.0.5

    10.244.0.5
    web.default.svc.cluster.local has address 10.244.0.5
    10.244.0.5      web.default.svc.cluster.local
    ");
    let missing = pod.sh("nslookup none").await;
    assert_eq!(missing.code, 1);
    assert!(missing.stdout.ends_with("** server can't find none: NXDOMAIN\n\n"), "{missing:?}");
    assert_eq!(pod.out("dig +short web").await, "", "dig takes a name as it stands");
    assert_eq!(pod.sh("ping web").await.code, 1);
}

#[tokio::test]
async fn bytes_are_carried_over_tcp() {
    let world = World::new();
    let server = world.pod("echo", "10.244.0.5", crate::tcp_echo());
    let mut running = server.start_image(&["9000", "hello"]);
    running.says("listening").await;
    let client = world.pod("client", "10.244.0.6", crate::busybox());
    assert_eq!(client.sh("echo world | nc echo 9000").await.stdout, "hello world\n");
    assert_eq!(client.sh("nc -zv echo 9000").await.stderr, "echo (10.244.0.5:9000) open\n");
    let refused = client.sh("nc echo 1").await;
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (1, "nc: can't connect to remote host (10.244.0.5): Connection refused\n")
    );
}

#[tokio::test]
async fn wget_speaks_busyboxs_words() {
    let world = World::new();
    let server = world.pod("web", "10.244.0.5", crate::httpbin());
    let mut running = server.start_image(&[]);
    running.says("listens").await;
    let client = world.pod("client", "10.244.0.6", crate::busybox());
    assert_eq!(client.out("wget -qO- http://web/base64/aGVsbG8=").await, "hello");
    let saved = client.sh("cd /tmp; wget web/robots.txt; head -1 robots.txt").await;
    assert_eq!((saved.stdout.as_str(), saved.stderr.as_str()), ("User-agent: *\n", "'robots.txt' saved\n"));
    for (script, message) in [
        ("wget -qO- http://web/status/404", "wget: server returned error: HTTP/1.1 404 Not Found\n"),
        ("wget -qO- http://none/", "wget: bad address 'none'\n"),
        ("wget -qO- http://web:1/", "wget: can't connect to remote host (web): Connection refused\n"),
        ("wget -T 0.1 -qO- http://web/delay/5", "wget: download timed out\n"),
    ] {
        let output = client.sh(script).await;
        assert_eq!((output.code, output.stderr.as_str()), (1, message), "{script}");
    }
}

#[tokio::test]
async fn openssl_shows_a_servers_certificates() {
    let world = World::new();
    let server = world.pod("server", "10.244.0.5", crate::busybox());
    let client = world.pod("client", "10.244.0.6", crate::busybox());
    let authority = tls_server(&server, 443, "server").await;
    client.container.fs.write("/ca.pem", authority).unwrap();
    let shown = client.sh("openssl s_client -connect server:443 -showcerts < /dev/null").await;
    assert!(
        shown.stdout.contains("-----BEGIN CERTIFICATE-----")
            && shown.stdout.contains("Verify return code: 20 (unable to get local"),
        "{shown:?}"
    );
    let trusted = client.sh("openssl s_client -connect server:443 -CAfile /ca.pem < /dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -ext subjectAltName").await;
    insta::assert_snapshot!(trusted.stdout, @r"
    subject=CN = server
    issuer=CN = lab authority
    X509v3 Subject Alternative Name: 
        DNS:server
    ");
    let output = client.sh("openssl s_client -connect server:443 -CAfile /ca.pem < /dev/null").await;
    assert!(output.stdout.contains("Verify return code: 0 (ok)"), "{output:?}");
    assert_eq!(client.sh("openssl genrsa").await.code, 1);
}
