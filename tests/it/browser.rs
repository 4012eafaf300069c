//! The browser's side: the browser's own `EventSource`, the JavaScript client and the
//! React hook, in a real Chromium against the real program. The test files are in
//! `tests/browser`; this chapter runs them with Node.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// LOCK: held while one file runs, so that only one browser runs at a time. Each browser
/// has up to eight pages, and the other tests of this binary run at the same time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs one file of `tests/browser`. If it fails, the panic message has its output.
#[track_caller]
fn passes(chapter: &str) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(format!("tests/browser/{chapter}.test.mjs"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TINY_SSE", env!("CARGO_BIN_EXE_tiny-sse"))
        // All connections are to the loopback address, so a proxy of this machine must
        // not be used.
        .env("no_proxy", "*")
        .output()
        .expect("node, which .ci/run installs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !stdout.contains("pass 0\n"),
        "{chapter}:\n{stdout}\n{stderr}"
    );
}

#[test]
fn the_lock_file_names_packages_without_hosts_and_paths() {
    let lock = include_str!("../browser/package-lock.json");
    for word in ["resolved", "://", "file:", "\"link\""] {
        assert!(!lock.contains(word), "package-lock.json has {word:?}");
    }
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_parses_the_event_stream_format_exactly_at_any_cut_of_the_bytes() {
    passes("parser");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_handles_every_answer_of_a_server() {
    passes("client");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_and_the_hook_match_their_type_declarations() {
    passes("types");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_event_source_of_a_browser_receives_and_resumes() {
    passes("native");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_client_in_a_page_resumes_reconnects_and_closes() {
    passes("page");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_program_serves_the_client_script_to_pages_of_every_origin() {
    passes("served");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn eight_tabs_share_one_connection_whichever_tab_leads() {
    passes("shared");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_react_hook_shares_one_stream_and_leaves_no_connection_open() {
    passes("hook");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn pages_may_do_what_their_origin_their_cookie_and_their_token_permit() {
    passes("access");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_console_asks_for_tokens_and_does_not_reveal_them() {
    passes("console-access");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_console_shows_every_feature_in_a_browser() {
    passes("console");
}
