//! The page's side: the browser's own EventSource, our client and the React hook, in a real Chromium
//! against the real program. What is shown, and how, stands in `tests/browser`; here it is started.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One at a time. Each has a browser with up to eight pages, and other tests run beside it.
static TURN: Mutex<()> = Mutex::new(());

/// Runs one file of `tests/browser`, and shows what it said if it fails.
#[track_caller]
fn passes(chapter: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(format!("tests/browser/{chapter}.test.mjs"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TINY_SSE", env!("CARGO_BIN_EXE_tiny-sse"))
        // A proxy of the machine is for the world, and all of this is on the loopback.
        .env("no_proxy", "*")
        .output()
        .expect("node, which .ci/run installs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !said.contains("pass 0\n"),
        "{chapter}:\n{said}\n{complained}"
    );
}

#[test]
fn the_lock_file_names_packages_and_no_host_or_path_to_get_them_from() {
    let lock = include_str!("../browser/package-lock.json");
    for word in ["resolved", "://", "file:", "\"link\""] {
        assert!(!lock.contains(word), "package-lock.json has {word:?}");
    }
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_reads_the_format_to_the_letter_wherever_it_is_cut() {
    passes("parser");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_comes_back_from_whatever_a_server_answers() {
    passes("client");
}

#[test]
#[ignore = "needs Node and npm ci --prefix tests/browser"]
fn the_client_and_the_hook_have_the_types_they_say() {
    passes("types");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_event_source_of_a_browser_receives_and_resumes() {
    passes("native");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_client_in_a_page_resumes_returns_and_leaves() {
    passes("page");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_client_comes_from_the_program_for_any_origin() {
    passes("served");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn eight_tabs_share_one_connection_whoever_leads() {
    passes("shared");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_hook_shows_one_stream_in_react_and_leaves_nothing() {
    passes("hook");
}

#[test]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn pages_may_do_what_their_origin_their_cookie_and_their_token_allow() {
    passes("access");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_console_asks_for_tokens_and_keeps_them_to_itself() {
    passes("console-access");
}

#[test]
#[cfg(feature = "console")]
#[ignore = "needs Chromium, Node and npm ci --prefix tests/browser"]
fn the_console_shows_all_of_it_to_everybody() {
    passes("console");
}
