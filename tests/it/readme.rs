//! The commands of the README, pasted into a shell as they are: build, publish, tokens, static binary, primer.

use std::env;
use std::fs;
use std::process::Command;

use crate::kit::Scratch;

/// The shell commands of the README, a block each, in order.
fn blocks() -> Vec<&'static str> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```sh\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("```\n").next())
        .collect()
}

/// What a reader does with the blocks. `BLOCK n` is the n-th block.
const SESSION: &str = r#"
ip link set lo up
await() { # TEXT FILE: waits until the file contains the text
    for _ in $(seq 200); do
        if grep -q -- "$1" "$2"; then return; fi
        sleep 0.1
    done
    echo "no $1 in $2:"; cat "$2"; return 1
}

BLOCK 0
PATH=$CARGO_INSTALL_ROOT/bin:$PATH

# Three terminals.
( exec BLOCK 1 ) > "$SCRATCH/server" & server=$!
await 'listens on' "$SCRATCH/server"
( exec BLOCK 2 ) > "$SCRATCH/stream" & stream=$!
await connected "$SCRATCH/stream"
BLOCK 3 > "$SCRATCH/published"
await '"recipients":1' "$SCRATCH/published"
await '^data: hello$' "$SCRATCH/stream"

# With an id of its own: a second attempt is a conflict.
BLOCK 4 > "$SCRATCH/published"
await '"id":"m-1"' "$SCRATCH/published"
BLOCK 4 > "$SCRATCH/published"
await 'already published' "$SCRATCH/published"
kill $server $stream; wait $server

# Tokens: the last command of the block may be too early for the server, as a person is not.
tokens() { BLOCK 5
}
tokens > "$SCRATCH/server" 2>&1 || true
await 'listens on' "$SCRATCH/server"
curl -d hello http://127.0.0.1:8080/events > "$SCRATCH/published"
await '"status":"error"' "$SCRATCH/published"
curl -d hello -H "Authorization: Bearer $TINY_SSE_PUBLISH_TOKEN" http://127.0.0.1:8080/events > "$SCRATCH/published"
await '"status":"ok"' "$SCRATCH/published"
kill $!; wait $!
unset TINY_SSE_PUBLISH_TOKEN

BLOCK 6
file "$CARGO_TARGET_DIR/x86_64-unknown-linux-musl/release/tiny-sse" > "$SCRATCH/file"
await 'static' "$SCRATCH/file"

# Not into the machine's own files.
mkdir -p "$SCRATCH/system" "$SCRATCH/nginx" /etc/systemd/system /etc/nginx
mount --bind "$SCRATCH/system" /etc/systemd/system
mount --bind "$SCRATCH/nginx" /etc/nginx
BLOCK 7
await ExecStart "$SCRATCH/system/tiny-sse.service"
await proxy_pass "$SCRATCH/nginx/nginx.conf"

( exec BLOCK 9 ) > "$SCRATCH/primer" & primer=$!
await 'listening on' "$SCRATCH/primer"
kill $primer
"#;

#[test]
#[ignore = "needs unshare, mount, ip, file, curl, openssl, cargo and the musl target; builds for a minute"]
fn the_commands_of_the_readme_work_as_they_are() {
    let blocks = blocks();
    let first_words: Vec<&str> = blocks
        .iter()
        .map(|block| block.lines().next().unwrap())
        .collect();
    let expected = [
        "cargo install --locked --path .",
        "tiny-sse",
        "curl -N http://127.0.0.1:8080/events",
        "curl -d 'hello' http://127.0.0.1:8080/events",
        "curl -d 'hello' 'http://127.0.0.1:8080/events/chat?event=greeting&id=m-1'",
        "export TINY_SSE_PUBLISH_TOKEN=$(openssl rand -base64 32)        # also TINY_SSE_SUBSCRIBE_TOKEN",
        "rustup target add x86_64-unknown-linux-musl",
        "tiny-sse config systemd > /etc/systemd/system/tiny-sse.service",
        // Creates a group of the machine; `proxies` runs the line that makes the file.
        "groupadd --system tiny-sse-tokens",
        "cargo run --example primer",
        // Runs this test.
        "cargo test",
    ];
    assert_eq!(first_words, expected, "a block that this test does not run");

    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path()).unwrap();
    let mut session = SESSION.to_owned();
    // The longest number first, because `BLOCK 1` begins `BLOCK 10` too.
    for (number, block) in blocks.iter().enumerate().rev() {
        session = session.replace(&format!("BLOCK {number}"), block.trim_end());
    }
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let target = env::current_dir().unwrap().join(target).join("readme");
    let output = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--mount",
            // The shell is the first process of its namespace: at its end, the kernel ends all that it has started.
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-euxc",
            &session,
        ])
        .env("SCRATCH", scratch.name())
        .env(
            "CARGO_INSTALL_ROOT",
            format!("{}/installed", scratch.name()),
        )
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("unshare");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
