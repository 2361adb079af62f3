use std::sync::Arc;

use meshlab_program::{Image, Signals, Stdio, pipe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::Sh;
use crate::testing::Pod;

fn shell() -> Pod {
    Pod::alone(Image::builder().executable("sh", Arc::new(Sh)).env("HOME", "/root").build())
}

/// Scripts and what they write.
#[tokio::test]
async fn the_language() {
    let shell = shell();
    let mut wrong = Vec::new();
    for (script, expected) in [
        // Words.
        (r#"a=1; b="$a 2"; echo $b '$b' "$b" \$b"#, "1 2 $b 1 2 $b\n"),
        ("x='a  b'; echo $x; echo \"$x\"", "a b\na  b\n"),
        ("echo ${none:-default} ${none-d} ${HOME:+set} ${none:=assigned} $none", "default d set assigned assigned\n"),
        ("f=a/b/c.tar.gz; echo ${f##*/} ${f%/*} ${f%%.*} ${f#*/} ${#f}", "c.tar.gz a/b a/b/c b/c.tar.gz 12\n"),
        ("s=hello; echo ${s:1:3} ${s/l/L} ${s//l/L}", "ell heLlo heLLo\n"),
        ("echo $((1 + 2 * 3)) $(( (5 > 3) && 2 )); i=4; echo $((i += 1)) $i $((i++)) $i", "7 1\n5 5 5 6\n"),
        ("echo $(echo a; echo b) `echo c`", "a b c\n"),
        ("echo \"$(printf 'x\\n\\n')\"end", "xend\n"),
        ("set -- 'a b' c; for i in \"$@\"; do echo \"<$i>\"; done; echo $# \"$*\" ${2}", "<a b>\n<c>\n2 a b c c\n"),
        ("set --; for i in \"$@\"; do echo never; done; echo \"[$@]\" [$*]", "[] []\n"),
        ("IFS=:; x=a:b::c; set -- $x; echo $# \"$1\" \"$3\" \"$4\"", "4 a  c\n"),
        ("IFS=,; x=\"a, b\"; set -- $x; echo \"$#<$2>\"", "2< b>\n"),
        ("echo ~ ~/x", "/root /root/x\n"),
        // Control.
        ("if false; then echo a; elif true; then echo b; else echo c; fi", "b\n"),
        ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); [ $i = 2 ] && continue; echo $i; done", "1\n3\n"),
        (
            "for i in 1 2 3; do for j in a b; do [ $j = b ] && continue 2; [ $i = 3 ] && break 2; echo $i$j; done; done",
            "1a\n2a\n",
        ),
        ("until true; do echo never; done; echo done", "done\n"),
        ("case foo.txt in *.md) echo md;; *.txt|x) echo text;; *) echo other;; esac", "text\n"),
        ("case 'a*' in a\\*) echo star;; esac; case ab in 'a*') echo no;; *) echo quoted;; esac", "star\nquoted\n"),
        ("f() { local x=2; echo $1 $x; return 3; }; x=1; f arg; echo $? $x", "arg 2\n3 1\n"),
        ("(x=2; echo in $x; exit 4); echo $? $x", "in 2\n4\n"),
        ("{ echo a; echo b; } | while read -r l; do echo \"got $l\"; done", "got a\ngot b\n"),
        ("true && echo yes || echo no; false && echo yes || echo no; ! true; echo $?", "yes\nno\n1\n"),
        ("echo one; false; echo $?; exit", "one\n1\n"),
        ("trap 'echo bye' EXIT; echo hi", "hi\nbye\n"),
        ("eval 'x=5; echo $x'; [[ $x == 5 && abc == a* ]] && echo both", "5\nboth\n"),
        ("a=1 b=2; unset a; echo ${a-gone} $b", "gone 2\n"),
        ("read a b <<EOF\none two three\nEOF\necho $b $a", "two three one\n"),
        // Redirections.
        ("echo hello > /tmp/f; echo more >> /tmp/f; while read l; do echo \"-$l\"; done < /tmp/f", "-hello\n-more\n"),
        ("{ echo out; echo err >&2; } 2>&1 | while read l; do echo \"=$l\"; done", "=out\n=err\n"),
        ("echo lost > /dev/null; echo gone 2>/dev/null", "gone\n"),
        ("x=1; while read l; do echo $l; done <<EOF\n$x $((x+1))\n\"q\"\nEOF", "1 2\n\"q\"\n"),
        ("while read l; do echo $l; done <<'EOF'\n$x\nEOF", "$x\n"),
        ("exec 3>/tmp/three; echo x >&3; exec 3>&-; read l < /tmp/three; echo $l", "x\n"),
        // File names.
        (
            "cd /tmp; echo a > g1; echo b > g2; echo g* 'g*' nothing*; for f in /tmp/g?; do echo $f; done",
            "g1 g2 g* nothing*\n/tmp/g1\n/tmp/g2\n",
        ),
        // Tests.
        ("[ -d /tmp ] && [ ! -e /none ] && test -n x -a 2 -gt 1 && echo ok", "ok\n"),
        ("[ -z \"\" -o x = y ] && echo ok; [ 1 -eq 2 ] || echo ne", "ok\nne\n"),
        ("echo start & wait; echo $?", "start\n0\n"),
        ("echo \"$0 $1\"", "sh \n"),
        ("# a comment\necho a # b\n", "a\n"),
        ("cd /usr/bin && pwd && cd - && echo $PWD", "/usr/bin\n/\n/\n"),
    ] {
        let output = shell.sh(script).await;
        if (output.code, output.stdout.as_str(), output.stderr.as_str()) != (0, expected, "") {
            wrong.push(format!("{script}\n  wanted {expected:?}, got {output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn bash_expands_braces() {
    let image = Image::builder().executable("sh", Arc::new(Sh)).executable("bash", Arc::new(Sh)).build();
    let shell = Pod::alone(image);
    let script = "x=v; echo {1..3} a{b,c{d,e}} '{1,2}' ${x} {3..1} {a..c} {x} \"{1..2}\"; [ $RANDOM -ge 0 ] && echo random";
    assert_eq!(shell.run(&["bash", "-c", script]).await.stdout, "1 2 3 ab acd ace {1,2} v 3 2 1 a b c {x} {1..2}\nrandom\n");
    assert_eq!(shell.run(&["sh", "-c", "echo {1..3}"]).await.stdout, "{1..3}\n");
    assert_ne!(shell.run(&["bash", "-c", "echo {1..99999999}"]).await.code, 0);
}

#[tokio::test]
async fn failures_have_the_usual_codes_and_words() {
    let shell = shell();
    for (script, code, stderr) in [
        ("nonesuch", 127, "sh: nonesuch: not found\n"),
        ("/tmp", 126, "sh: /tmp: Permission denied\n"),
        ("echo x > /none/file", 1, "sh: can't create /none/file: No such file or directory\n"),
        ("cat_missing < /none", 1, "sh: can't open /none: No such file or directory\n"),
        ("set -e; false; echo never", 1, ""),
        ("set -e; if false; then :; fi; false || true; ! true; exit 7", 7, ""),
        ("set -u; echo $none", 2, "sh: none: parameter not set\n"),
        ("echo ${none:?is needed}", 2, "sh: none: is needed\n"),
        ("set -o pipefail; false | true", 1, ""),
        ("if", 2, "sh: syntax error: unexpected end of file\n"),
        ("echo $((1 / 0))", 2, "sh: divide by zero\n"),
        ("f() { f; }; f", 2, "sh: commands are nested more than 50 deep\n"),
        ("a[1]=2", 2, "sh: arrays are not supported by this shell\n"),
        ("readonly x=1; x=2", 2, "sh: x: is read only\n"),
        ("set -x; a=b; echo $a >/dev/null", 0, "+ a=b \n+ echo b\n"),
        ("exit 300", 44, ""),
    ] {
        let output = shell.sh(script).await;
        assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (code, stderr, ""), "{script}");
    }
}

#[tokio::test]
async fn a_script_cannot_fork_without_end() {
    let output = shell().sh("f() { f | f; }; f").await;
    assert_ne!(output.code, 0);
}

#[tokio::test]
async fn nesting_is_bounded_before_the_parser_sees_it() {
    let output = shell().sh(&format!("echo {}1{}", "$(echo ".repeat(5000), ")".repeat(5000))).await;
    assert_eq!((output.code, output.stderr.as_str()), (2, "sh: nested more than 12 deep\n"));
}

#[tokio::test]
async fn commands_come_from_standard_input_and_share_it() {
    let output = shell().run_with_input(&["sh"], "read x\nvalue\necho got $x\nif true\nthen echo yes\nfi\nexit 3\n").await;
    assert_eq!((output.code, output.stdout.as_str()), (3, "got value\nyes\n"));
}

#[tokio::test]
async fn scripts_of_the_file_system_run_with_their_interpreter() {
    let pod = shell();
    pod.container.fs.write("/tmp/run.sh", "#!/bin/sh\necho \"$0 $1 $#\"\n").unwrap();
    assert_eq!(pod.sh("/tmp/run.sh a").await.stderr, "sh: /tmp/run.sh: Permission denied\n");
    pod.container.fs.set_mode("/tmp/run.sh", 0o755).unwrap();
    assert_eq!(pod.out("cd /tmp; ./run.sh a").await, "/tmp/./run.sh a 1\n");
    assert_eq!(pod.run(&["sh", "/tmp/run.sh", "b", "c"]).await.stdout, "/tmp/run.sh b 2\n");
}

#[tokio::test]
async fn sigterm_ends_a_loop_and_runs_its_trap() {
    let mut running = shell().start(&["sh", "-c", "echo up; while true; do :; done"]);
    running.says("up").await;
    assert_eq!(running.stop().await, crate::output::TERMINATED);
    let mut running = shell().start(&["sh", "-c", "trap 'exit 9' TERM; echo up; while true; do :; done"]);
    running.says("up").await;
    assert_eq!(running.stop().await, 9);
}

#[tokio::test]
async fn a_user_at_a_terminal_sees_a_prompt_and_an_echo() {
    let pod = shell();
    let ((mut keys, typed), (screen, mut seen)) = (pipe(), pipe());
    let (sender, signals) = Signals::channel();
    let stdio = Stdio::terminal(typed, screen, watch::channel((80, 24)).1, sender);
    let mut child = pod.process(&["sh"], stdio, signals).spawn().unwrap();
    keys.write_all(b"echo hx\x7fi\recho 'a\rb'\r").await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.contains("b\r\n/ # ") {
        let count = seen.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(text.contains("hi\r\n"), "{text:?}");
    keys.write_all(b"ech\x03").await.unwrap();
    while !text.contains("^C\r\n") {
        let count = seen.read(&mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    keys.write_all(b"echo $?\r").await.unwrap();
    while !text.contains("130\r\n") {
        let count = seen.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    keys.write_all(b"\x04").await.unwrap();
    assert_eq!(child.wait().await, 0);
}

/// What opens a nesting, and what closes it.
const NESTINGS: &[(&str, &str)] = &[
    ("(", ")"),
    ("{ ", " ; }"),
    ("$(echo ", ")"),
    ("echo $((", "))"),
    ("echo $(( (", ") ))"),
    ("${a:-", "}"),
    ("\"${a:-", "}\""),
    ("`", "`"),
    ("if true; then ", "; fi"),
    ("while false; do ", "; done"),
    ("case a in a) ", ";; esac"),
    ("f() { ", " ; }"),
    ("[[ ( ", " ) ]]"),
    ("! ", ""),
    ("a && ", "b"),
    ("a | ", "b"),
    ("cat <<EOF\n$(", ")\nEOF\n"),
    ("echo $((-", "1))"),
    ("echo \"$(", ")\""),
];

#[test]
fn no_nesting_takes_the_parser_too_deep() {
    for (open, close) in NESTINGS {
        for depth in [2, 13, 3000] {
            let inner = format!("{}x{}", open.repeat(depth), close.repeat(depth));
            let scripts = [inner.clone(), open.repeat(depth), format!("echo {inner}")];
            for script in &scripts {
                let _ = super::parse::program(script);
                let _ = super::parse::word(script);
                let _ = super::parse::unquoted(script);
                let _ = super::parse::arithmetic(script);
            }
            let brackets = open.contains(['(', '{']) || open.contains("if") || open.contains("do");
            if depth > 12 && brackets && !open.contains(')') {
                assert!(
                    super::parse::program(&scripts[1]).is_err_and(|err| err.message() == "nested more than 12 deep"),
                    "{open}"
                );
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_script_breaks_the_parser(script in r#"[ -~\n]{0,60}"#, pieces in proptest::collection::vec(0..NESTINGS.len(), 0..3)) {
        let mixed: String = pieces.iter().map(|index| NESTINGS[*index].0).chain([script.as_str()]).collect();
        let _ = super::parse::program(&mixed);
        let _ = super::parse::word(&mixed);
        let _ = super::parse::unquoted(&mixed);
        let _ = super::parse::arithmetic(&script);
        let _ = super::pattern_regex(&script, true);
    }
}
