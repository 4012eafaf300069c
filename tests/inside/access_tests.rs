//! Tests of `api/access/tokens.rs`: which rights a table contains, and how long questions
//! and reloads take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::api::Api;
use crate::config::{AccessConfig, Config};
use crate::hub::{Hub, Permit, Subscribe};

/// The table of a file with this text.
fn table(text: &str) -> GrantTable {
    let grants = text
        .lines()
        .filter_map(|line| token_file::parse(line).unwrap());
    GrantTable::new(grants.collect(), &RandomState::new())
}

/// The topics of these rights and of every client, as text.
fn topics(table: &GrantTable, rights: &Rights, verb: Verb) -> String {
    let granted = [rights, table.every_client()].map(|rights| &rights.granted[verb as usize]);
    let patterns: Vec<_> = granted
        .into_iter()
        .flat_map(Patterns::iter)
        .map(ToString::to_string)
        .collect();
    patterns.join(" ")
}

#[test]
fn the_lines_of_a_token_add_up_and_every_client_has_the_rights_of_a_star() {
    let table = table(
        "# token        rights\n\
         a  publish,subscribe  chat/* news # a comment after a grant\n\
         \n\
         b\tsubscribe\t*\r\n\
         a  subscribe          more\n\
         *  subscribe          public/*\n",
    );
    assert_eq!(table.index.len(), 1 + 2);
    let a = table.rights_of("a").unwrap();
    let b = table.rights_of("b").unwrap();
    for (rights, publish, subscribe) in [
        (a, "chat/* news", "chat/* more news public/*"),
        (b, "", "* public/*"),
        // The rights of every client are listed twice here, which does no harm.
        (table.every_client(), "", "public/* public/*"),
    ] {
        assert!(table.index.contains_key(&rights.number));
        assert_eq!(topics(&table, rights, Verb::Publish), publish);
        assert_eq!(topics(&table, rights, Verb::Subscribe), subscribe);
    }
    for unknown in ["", "*", "c", "aa"] {
        assert!(table.rights_of(unknown).is_none());
    }
    for rights in [a, b, table.every_client()] {
        assert!(std::ptr::eq(table.by_number(rights.number), rights));
    }
}

/// A first reload checks 10,000 clients with 8 patterns each against 40,000 grants to
/// every client, and a second one withdraws all of these grants. Another thread can take
/// the hub's lock meanwhile. A linear search would need 3.2 billion comparisons.
#[test]
fn a_reload_with_many_grants_is_fast_and_does_not_block_other_threads() {
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
        // This thread takes the hub's lock again and again.
        let other = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            // ORDER: Relaxed: the loop ends once it sees the flag; the flag guards no
            // other memory.
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
        write("# no grant\n".into());
        let ended = reload();
        is_over.store(true, Ordering::Relaxed);
        (kept, ended, other.join().unwrap())
    });
    fs::remove_file(&path).unwrap();
    println!("all kept: {kept:?}; all ended: {ended:?}; another thread waited at most {longest:?}");
    assert_eq!((kept.1, ended.1), (CLIENTS, 0));
    let most = Duration::from_millis(5_000);
    assert!(kept.0 + ended.0 < most, "{kept:?} {ended:?}");
    assert!(
        longest < most / 10,
        "another thread waited {longest:?} for the hub's lock"
    );
    drop(subscriptions);
}

#[test]
fn a_request_with_many_patterns_is_checked_quickly_against_a_token_with_many() {
    const REQUESTS: u32 = 1_000;
    let granted: Patterns = (0..10_000)
        .map(|n| Pattern::new(&format!("{n:05}/*")).unwrap())
        .collect();
    let asked = |last: &str| -> Patterns {
        let own = (0..63).map(|n| Pattern::new(&format!("{:05}/a", 9_937 + n)).unwrap());
        own.chain([Pattern::new(last).unwrap()]).collect()
    };
    let of_every_client = Patterns::default();
    let start = Instant::now();
    for _ in 0..REQUESTS {
        for (last, is_covered) in [("00000/b*", true), ("00000*", false), ("x", false)] {
            let action = asked(last);
            let action = Action::Subscribe(&action);
            assert_eq!(
                covers(&[&granted, &of_every_client], &action),
                is_covered,
                "{last}"
            );
        }
    }
    let each = start.elapsed() / REQUESTS / 3;
    println!("{each:?} per request");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
