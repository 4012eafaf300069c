//! Tests of the tokens of `api/access/tokens.rs`: what a table grants, and how long a reload takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::api::Api;
use crate::config::Config;
use crate::hub::{Hub, Permit, Subscribe};

fn table(text: &str) -> GrantTable {
    let grants = text
        .lines()
        .filter_map(|line| token_file::parse(line).unwrap());
    GrantTable::new(grants.collect(), &RandomState::new())
}

fn shown(table: &GrantTable, holder: &Holder, verb: Verb) -> String {
    let granted = table.granted(holder, verb).into_iter();
    let patterns: Vec<_> = granted
        .flat_map(Patterns::iter)
        .map(ToString::to_string)
        .collect();
    patterns.join(" ")
}

#[test]
fn the_lines_of_a_token_add_up_and_anybodys_are_everybodys() {
    let table = table(
        "# who          what\n\
         a  publish,subscribe  chat/* news # behind a line, too\n\
         \n\
         b\tsubscribe\t*\r\n\
         a  subscribe          more\n\
         *  subscribe          public/*\n",
    );
    assert_eq!(table.index.len(), 1 + 2);
    let a = table.holder_of("a").unwrap();
    let b = table.holder_of("b").unwrap();
    for (holder, publish, subscribe) in [
        (a, "chat/* news", "chat/* more news public/*"),
        (b, "", "* public/*"),
        // What every client has is found twice, which is no more.
        (table.every_client(), "", "public/* public/*"),
    ] {
        assert!(table.index.contains_key(&holder.number));
        assert_eq!(shown(&table, holder, Verb::Publish), publish);
        assert_eq!(shown(&table, holder, Verb::Subscribe), subscribe);
    }
    for stranger in ["", "*", "c", "aa"] {
        assert!(table.holder_of(stranger).is_none());
    }
    for holder in [a, b, table.every_client()] {
        assert!(std::ptr::eq(table.holder(holder.number), holder));
    }
}

/// 10,000 clients with 8 patterns each are checked against 40,000 grants to everybody, and then lose
/// these grants. Other threads go on meanwhile. A linear search would take 3.2 billion comparisons.
#[test]
fn a_reload_costs_no_more_for_many_grants_and_holds_nobody_up() {
    const CLIENTS: usize = 10_000;
    const GRANTS: usize = 40_000;
    let path = std::env::temp_dir().join(format!("tiny-sse-grants-{}", std::process::id()));
    let write = |lines: String| {
        fs::write(&path, lines).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(
        (0..GRANTS)
            .map(|n| format!("* subscribe t/{n}\n"))
            .collect(),
    );
    let config = Config {
        access: AccessConfig {
            tokens: Some(path.clone()),
            ..AccessConfig::default()
        },
        max_clients: CLIENTS,
        ..Config::default()
    };
    let hub = Hub::new(config.clone()).unwrap();
    let api = Api::new(hub.clone(), config).unwrap();
    let tokens = Arc::clone(&api.access.tokens);
    let number = tokens.table().every_client().number;
    let pattern = |n: usize| Pattern::new(&format!("t/{}", n % GRANTS)).unwrap();
    let client = |n: usize| Subscribe {
        patterns: (0..8).map(|i| pattern(n * 3 + i * 5_000)).collect(),
        permit: Some(Permit::new(n as u64).issued_by(tokens.clone(), number)),
        ..Subscribe::default()
    };
    let subscriptions: Vec<_> = (0..CLIENTS)
        .map(|n| hub.subscribe(client(n)).unwrap())
        .collect();
    let is_over = AtomicBool::new(false);
    let (kept, ended, longest) = std::thread::scope(|scope| {
        // Another thread that needs the hub's lock.
        let other = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            // ORDER: Relaxed: the loop ends once it sees the flag; the flag guards no other memory.
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                hub.clients();
                longest = longest.max(start.elapsed());
            }
            longest
        });
        let reload = || {
            let start = Instant::now();
            api.reload_tokens().unwrap();
            (start.elapsed(), hub.clients())
        };
        let kept = reload();
        write("# nobody\n".into());
        let ended = reload();
        is_over.store(true, Ordering::Relaxed);
        (kept, ended, other.join().unwrap())
    });
    fs::remove_file(&path).unwrap();
    println!("none ends: {kept:?}; all end: {ended:?}; another waited at most {longest:?}");
    assert_eq!((kept.1, ended.1), (CLIENTS, 0));
    let most = Duration::from_millis(5_000);
    assert!(kept.0 + ended.0 < most, "{kept:?} {ended:?}");
    assert!(longest < most / 10, "another waited {longest:?}");
    drop(subscriptions);
}

#[test]
fn a_request_with_many_patterns_is_judged_soon_beside_a_token_with_many() {
    const REQUESTS: u32 = 1_000;
    let granted: Patterns = (0..10_000)
        .map(|n| Pattern::new(&format!("{n:05}/*")).unwrap())
        .collect();
    let asked = |last: &str| -> Patterns {
        let own = (0..63).map(|n| Pattern::new(&format!("{:05}/a", 9_937 + n)).unwrap());
        own.chain([Pattern::new(last).unwrap()]).collect()
    };
    let anybodys = Patterns::default();
    let start = Instant::now();
    for _ in 0..REQUESTS {
        for (last, is_covered) in [("00000/b*", true), ("00000*", false), ("x", false)] {
            let action = asked(last);
            let action = Action::Subscribe(&action);
            assert_eq!(
                covers(&[&granted, &anybodys], &action),
                is_covered,
                "{last}"
            );
        }
    }
    let each = start.elapsed() / REQUESTS / 3;
    println!("{each:?} for a request");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
