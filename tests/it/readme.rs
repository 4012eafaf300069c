//! The commands of the README, pasted into a shell as they are: build, publish, tokens,
//! static binary, primer.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use tiny_sse::Config;

use crate::kit::{DEADLINE, Scratch, open, post, server};

/// The blocks of the README in this language, in order.
fn blocks_of(language: &str) -> Vec<&'static str> {
    let readme = include_str!("../../README.md");
    let opening = format!("```{language}\n");
    let blocks = readme.split(&opening).skip(1);
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

# From a program: the stream gets one event of each, `hello` and a JSON object.
curl -N http://127.0.0.1:8080/events/chat > "$SCRATCH/chat" & chat=$!
await connected "$SCRATCH/chat"
cat > "$SCRATCH/publish.py" <<'END'
PYTHON
END
python3 "$SCRATCH/publish.py"
await '^data: hello$' "$SCRATCH/chat"
cat > "$SCRATCH/publish.mjs" <<'END'
JAVASCRIPT
END
node "$SCRATCH/publish.mjs"
await '^data: {"text":"hello"}$' "$SCRATCH/chat"
kill $server $stream $chat; wait $server

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

# Signed tokens: one of the program, and one of PyJWT. The blocks write into the current directory.
root=$PWD; cd "$SCRATCH"
signed() { BLOCK 6
}
signed > signed.out
server=$!
await 'listens on' signed.out
cat > mint.py <<'END'
SIGN
print(token)
END
"$root/target/clients/venv/bin/python" mint.py > minted
for token in $(grep ^eyJ signed.out) $(cat minted); do
    curl -N -H "Authorization: Bearer $token" http://127.0.0.1:8080/events/user/42 > user & stream=$!
    await connected user
    curl -N -H "Authorization: Bearer $token" http://127.0.0.1:8080/events/user/43 > user
    await 'does not include the right' user
    kill $stream
done
kill $server; wait $server
cd "$root"

BLOCK 7
file "$CARGO_TARGET_DIR/x86_64-unknown-linux-musl/release/tiny-sse" > "$SCRATCH/file"
await 'static' "$SCRATCH/file"

# Not into the machine's own files.
mkdir -p "$SCRATCH/system" "$SCRATCH/nginx" /etc/systemd/system /etc/nginx
mount --bind "$SCRATCH/system" /etc/systemd/system
mount --bind "$SCRATCH/nginx" /etc/nginx
BLOCK 8
await ExecStart "$SCRATCH/system/tiny-sse.service"
await proxy_pass "$SCRATCH/nginx/nginx.conf"

( exec BLOCK 10 ) > "$SCRATCH/primer" & primer=$!
await 'listening on' "$SCRATCH/primer"
kill $primer
"#;

#[test]
#[ignore = "needs unshare, mount, ip, file, curl, openssl, python3, node, cargo, the musl target and the packages of tests/clients; builds for a minute"]
fn the_commands_of_the_readme_work_as_they_are() {
    let blocks = blocks_of("sh");
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
        "(umask 077; openssl rand -base64 32 > jwt.key)",
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
    let mut blocks = blocks_of("js").into_iter();
    let javascript = blocks.find(|block| block.starts_with("await fetch"));
    session = session.replace("JAVASCRIPT", javascript.expect("a block with fetch"));
    let [publish, sign] = blocks_of("python")[..] else {
        panic!("another number of blocks in Python");
    };
    session = session.replace("PYTHON", publish).replace("SIGN", sign);
    let target = env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let target = env::current_dir().unwrap().join(target).join("readme");
    let output = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--mount",
            // The shell is the first process of its namespace: at its end, the kernel
            // ends all that it has started.
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

/// A text of the wire without what differs each time: every number is 0, and the client's
/// id is `ID`.
fn without_numbers(text: &str) -> String {
    let key = "\"client_id\":\"";
    let mut text = text.to_owned();
    if let Some(start) = text.find(key).map(|start| start + key.len()) {
        let end = start + text[start..].find('"').unwrap();
        text.replace_range(start..end, "ID");
    }
    let mut plain = String::new();
    for found in text.chars() {
        match found.is_ascii_digit() {
            true if plain.ends_with('0') => {}
            true => plain.push('0'),
            false => plain.push(found),
        }
    }
    plain
}

/// Reads one chunk. SPEC: RFC 9112, 7.1: `chunk = chunk-size CRLF chunk-data CRLF`.
fn read_chunk(stream: &mut impl BufRead) -> String {
    let mut size = String::new();
    stream.read_line(&mut size).unwrap();
    let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
    let mut data = vec![0; size + 2];
    stream.read_exact(&mut data).unwrap();
    let data = data.strip_suffix(b"\r\n").expect("the end of a chunk");
    String::from_utf8(data.to_vec()).unwrap()
}

#[test]
fn the_exchange_of_the_readme_is_what_is_on_the_wire() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```text\nGET /events/chat").unwrap();
    let (exchange, _) = rest.split_once("```").unwrap();
    let (request, answer) = exchange.split_once("\n\n").unwrap();
    let (head, chunks) = answer.split_once("\n\n").unwrap();

    let config = Config {
        heartbeat: Duration::from_millis(20),
        ..open()
    };
    let server = server(config);
    let socket = TcpStream::connect(server.local_addr()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!("GET /events/chat{request}\n\n").replace('\n', "\r\n");
    (&socket).write_all(request.as_bytes()).unwrap();
    let mut stream = BufReader::new(&socket);
    let mut real = String::new();
    while !real.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut real).unwrap(), 0, "{real}");
    }
    let real = real.trim_end().replace("\r\n", "\n");
    // A date has letters too, which differ from day to day.
    let undated = |head: &str| {
        let lines = head.lines().filter(|line| !line.starts_with("Date: "));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(undated(&real), undated(head));

    let mut left = chunks;
    for (number, publish) in [Some("greeting"), None, None].into_iter().enumerate() {
        let (size, rest) = left.trim_start_matches('\n').split_once('\n').unwrap();
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        let (chunk, rest) = rest.split_at(size);
        left = rest;
        // The next chunk of the server that is no heartbeat before its time.
        let real = loop {
            let real = read_chunk(&mut stream);
            if number == 2 || !real.starts_with(':') {
                break real;
            }
        };
        assert_eq!(without_numbers(&real), without_numbers(chunk));
        if let Some(name) = publish {
            let target = format!("/events/chat?event={name}");
            assert_eq!(post(server.local_addr(), &target, "hello").status, 200);
        }
    }
    assert_eq!(left.trim(), "", "the README has more chunks");
}
