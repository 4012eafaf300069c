//! Web pages of other sites: how the server recognizes their requests, what these
//! requests may do, and which answers their browsers let them read.

use std::net::SocketAddr;

use tiny_sse::{AccessConfig, Config, Origin, Server};

use crate::kit::{Answer, Raw, Stream, config, open, proxied, server};
use crate::program::serve;

/// Sends a request as a browser does, with `Host` among the fields.
#[track_caller]
fn ask(address: SocketAddr, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    let mut raw = Raw::connect(address);
    let length = body.len();
    raw.send(format!(
        "{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\nConnection: close\r\n{fields}\r\n{body}"
    ));
    if method == "HEAD" {
        raw.head()
    } else {
        raw.answer()
    }
}

fn with_token(origins: &[&str]) -> Config {
    let token = || Some("TOKEN".parse().expect("the token is valid"));
    Config {
        access: AccessConfig {
            publish_token: token(),
            subscribe_token: token(),
            ..with_origins(origins).access
        },
        ..with_origins(origins)
    }
}

fn with_origins(origins: &[&str]) -> Config {
    let origins = origins.iter().map(|origin| origin.parse().unwrap());
    Config {
        access: AccessConfig {
            cors_origins: origins.collect::<Vec<Origin>>(),
            ..AccessConfig::default()
        },
        ..config()
    }
}

const BEARER: &str = "Authorization: Bearer TOKEN\r\n";
const COOKIE: &str = "Cookie: tiny_sse_token=TOKEN\r\n";

// ---- what pages may do

/// Requests by their sender: `Host`, the other fields, and the expected status of
/// requests that publish or that tell about clients. The first status is that of a server
/// for this machine without tokens, the second that of a server with tokens, for a
/// request with the right token.
#[rustfmt::skip]
const SENDERS: &[(&str, &str, u16, u16)] = &[
    // Not a page: no field of a browser, and `Host` is a name of this machine.
    ("localhost:8080", "", 200, 200),
    ("LOCALHOST", "", 200, 200),
    ("127.0.0.1", "", 200, 200),
    ("127.1.2.3:8080", "", 200, 200),
    ("[::1]:8080", "", 200, 200),
    ("app.localhost", "", 200, 200),
    ("", "", 200, 200),
    // With another name it may be a page of a site whose name resolves to this machine
    // (DNS rebinding): for a GET to its own site, a browser sends none of these fields,
    // or `same-origin`.
    ("box.example.org", "", 403, 200),
    ("evil.test", "", 403, 200),
    ("evil.test:8080", "", 403, 200),
    ("localhost.evil.test", "", 403, 200),
    ("127.0.0.1.evil.test", "", 403, 200),
    ("evil.localhost.test", "", 403, 200),
    ("notlocalhost", "", 403, 200),
    ("192.168.0.1", "", 403, 200),
    ("0.0.0.0", "", 403, 200),
    ("[::2]", "", 403, 200),
    ("evil.test", "Sec-Fetch-Site: same-origin\r\n", 403, 200),
    ("evil.test", "Sec-Fetch-Site: none\r\n", 403, 200),
    ("evil.test", "Referer: http://evil.test/page\r\n", 403, 200),
    ("evil.test", "Referer: http://localhost/\r\n", 403, 403),
    // A page of this server.
    ("localhost:8080", "Origin: http://localhost:8080\r\n", 200, 200),
    ("LocalHost:8080", "Origin: http://localhost:8080\r\n", 200, 200),
    ("localhost:8080", "Origin: https://localhost:8080\r\n", 200, 200),
    ("127.0.0.1:8080", "Origin: http://127.0.0.1:8080\r\n", 200, 200),
    ("[::1]:8080", "Origin: http://[::1]:8080\r\n", 200, 200),
    ("[::1]", "Origin: http://[::1]\r\n", 200, 200),
    ("app.localhost:1", "Origin: http://app.localhost:1\r\n", 200, 200),
    ("localhost:8080", "Sec-Fetch-Site: same-origin\r\n", 200, 200),
    ("localhost:8080", "Sec-Fetch-Site: none\r\n", 200, 200),
    // Behind a proxy that changes Host, only the browser knows that the page is of this
    // site.
    ("localhost:8080", "Origin: https://example.org\r\nSec-Fetch-Site: same-origin\r\n", 200, 200),
    // Over plain HTTP, a browser may send only a Referer.
    ("localhost:8080", "Referer: http://localhost:8080/page?a=b\r\n", 200, 200),
    ("localhost:8080", "Referer: HTTPS://LOCALHOST:8080\r\n", 200, 200),
    ("localhost:8080", "Referer:\r\n", 200, 200),
    ("localhost:8080", "Referer: http://evil.test/\r\n", 403, 403),
    ("localhost:8080", "Referer: http://evil.test/localhost:8080\r\n", 403, 403),
    ("localhost:8080", "Referer: http://localhost:8080.evil.test/\r\n", 403, 403),
    ("localhost:8080", "Referer: http://localhost/\r\n", 403, 403),
    ("localhost:8080", "Referer: http://localhost:8080@evil.test/\r\n", 403, 403),
    ("localhost:8080", "Referer: evil.test\r\n", 403, 403),
    ("localhost:8080", "Referer: /page\r\n", 403, 403),
    ("localhost:8080", "Referer: http://localhost:8080/\r\nReferer: http://evil.test/\r\n", 403, 403),
    // Sec-Fetch-Site and Origin take precedence over Referer.
    ("localhost:8080", "Referer: http://evil.test/\r\nSec-Fetch-Site: none\r\n", 200, 200),
    ("localhost:8080", "Referer: http://evil.test/\r\nSec-Fetch-Site: same-origin\r\n", 200, 200),
    ("localhost:8080", "Referer: http://localhost:8080/\r\nSec-Fetch-Site: cross-site\r\n", 403, 403),
    ("localhost:8080", "Referer: http://localhost:8080/\r\nOrigin: http://evil.test\r\n", 403, 403),
    // A page of another site, of another port, or without an origin.
    ("localhost:8080", "Origin: http://evil.test\r\n", 403, 403),
    ("localhost:8080", "Origin: http://localhost:3000\r\n", 403, 403),
    ("localhost:8080", "Origin: http://localhost\r\n", 403, 403),
    ("localhost:8080", "Origin: http://127.0.0.1:8080\r\n", 403, 403),
    ("localhost:8080", "Origin: http://localhost:8080.evil.test\r\n", 403, 403),
    ("localhost:8080", "Origin: http://evil.test/http://localhost:8080\r\n", 403, 403),
    ("localhost:8080", "Origin: null\r\n", 403, 403),
    ("null", "Origin: null\r\n", 403, 403),
    ("localhost:8080", "Origin: localhost:8080\r\n", 403, 403),
    ("localhost:8080", "Origin: *\r\n", 403, 403),
    ("localhost:8080", "Origin:\r\n", 403, 403),
    ("localhost:8080", "Origin: null\r\nSec-Fetch-Site: same-origin\r\n", 403, 403),
    ("localhost:8080", "Sec-Fetch-Site: cross-site\r\n", 403, 403),
    ("localhost:8080", "Sec-Fetch-Site: same-site\r\n", 403, 403),
    ("localhost:8080", "Sec-Fetch-Site: something-new\r\n", 403, 403),
    ("localhost:8080", "Origin: http://evil.test\r\nSec-Fetch-Site: cross-site\r\n", 403, 403),
    // http://localhost:8080 and https://localhost:8080 are different sites, and only the
    // browser knows which one this is.
    ("localhost:8080", "Origin: http://localhost:8080\r\nSec-Fetch-Site: cross-site\r\n", 403, 403),
    ("localhost:8080", "Origin: http://localhost:8080\r\nSec-Fetch-Site: same-site\r\n", 403, 403),
    // A page that reached this server by a name that an attacker has made to resolve to
    // it. It has no token.
    ("evil.test", "Origin: http://evil.test\r\n", 403, 200),
    ("evil.test:8080", "Origin: http://evil.test:8080\r\n", 403, 200),
    ("evil.test", "Origin: https://evil.test\r\nSec-Fetch-Site: same-origin\r\n", 403, 200),
    ("localhost.evil.test", "Origin: http://localhost.evil.test\r\n", 403, 200),
    ("127.0.0.1.evil.test", "Origin: http://127.0.0.1.evil.test\r\n", 403, 200),
    ("10.0.0.1:8080", "Origin: http://10.0.0.1:8080\r\n", 403, 200),
    ("[::2]:8080", "Origin: http://[::2]:8080\r\n", 403, 200),
    ("0.0.0.0:8080", "Origin: http://0.0.0.0:8080\r\n", 403, 200),
    ("", "Origin: http://\r\n", 403, 200),
    // Repeated fields, which two parsers could read differently.
    ("localhost:8080", "Origin: http://localhost:8080\r\nOrigin: http://localhost:8080\r\n", 400, 400),
    ("localhost:8080", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n", 400, 400),
];

#[test]
fn a_page_of_another_site_may_only_read_without_a_client_id_also_with_the_right_token() {
    let (without, with) = (server(config()), server(with_token(&[])));
    for (host, fields, status, status_with_token) in SENDERS {
        for (address, token, status) in [
            (without.local_addr(), "", *status),
            (with.local_addr(), BEARER, *status_with_token),
        ] {
            let fields = format!("Host: {host}\r\n{fields}{token}");
            for (method, target, done) in [
                ("POST", "/events", 200),
                ("POST", "/events/a", 200),
                ("POST", "/broadcast", 200),
                ("POST", "/send?topic=a", 200),
                ("POST", "/clients/nobody", 404),
                ("DELETE", "/clients/nobody", 404),
                ("GET", "/stats?clients=1", 200),
                ("HEAD", "/stats?clients=1", 200),
                ("GET", "/events/a?client_id=me", 200),
                ("HEAD", "/events/a?client_id=me", 200),
                ("GET", "/poll?client_id=me", 200),
            ] {
                let expected = if status == 200 { done } else { status };
                for body in ["", "{}"] {
                    // These endpoints need an object.
                    let body = if target.starts_with("/broadcast") || target.starts_with("/send") {
                        "{}"
                    } else {
                        body
                    };
                    let answer = ask(address, method, target, &fields, body);
                    assert_eq!(
                        answer.status, expected,
                        "{method} {target} {fields:?}: {answer:?}"
                    );
                }
            }
            for (method, target) in [
                ("GET", "/events/a"),
                ("HEAD", "/events/a"),
                ("GET", "/poll?topic=*"),
                ("GET", "/stats"),
                ("GET", "/metrics"),
                ("GET", "/health"),
            ] {
                let answer = ask(address, method, target, &fields, "");
                let is_checked = !target.contains("health");
                let expected = if status == 400 && is_checked {
                    400
                } else {
                    200
                };
                assert_eq!(
                    answer.status, expected,
                    "{method} {target} {fields:?}: {answer:?}"
                );
                let shared = answer.field("access-control-allow-origin");
                assert_eq!(shared, Some("*"), "{method} {target} {fields:?}");
            }
        }
    }
    // Only the allowed requests were published: four targets with two bodies for each
    // sender.
    let count = |statuses: Vec<u16>| 8 * statuses.iter().filter(|&&s| s == 200).count() as u64;
    let statuses = SENDERS.iter().map(|&(_, _, without, _)| without);
    assert_eq!(without.hub().stats().events, count(statuses.collect()));
    let statuses = SENDERS.iter().map(|&(_, _, _, with)| with);
    assert_eq!(with.hub().stats().events, count(statuses.collect()));
}

#[test]
fn a_request_without_host_and_without_fields_of_a_browser_does_not_count_as_a_page() {
    let server = server(config());
    for (fields, status) in [
        ("", 200),
        ("Origin: http://evil.test\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Referer: http://evil.test/\r\n", 403),
        ("Host: evil.test\r\n", 403),
        ("Host: localhost\r\n", 200),
    ] {
        for target in ["/stats?clients=1", "/poll?client_id=me"] {
            let mut raw = Raw::connect(server.local_addr());
            raw.send(format!("GET {target} HTTP/1.0\r\n{fields}\r\n"));
            let answer = raw.answer();
            assert_eq!(answer.status, status, "{target} {fields:?}: {answer:?}");
        }
    }
}

#[test]
fn the_host_in_an_absolute_target_takes_precedence_over_the_field_host() {
    let server = server(config());
    for (target, host, status) in [
        ("http://localhost/stats?clients=1", "evil.test", 200),
        ("http://evil.test/stats?clients=1", "localhost", 403),
    ] {
        let fields = format!("Host: {host}\r\n");
        let answer = ask(server.local_addr(), "GET", target, &fields, "");
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
}

/// With tokens, with `--open`, and for other clients behind a proxy, any host will do.
#[test]
fn where_only_this_machine_has_a_right_the_host_must_be_a_name_of_this_machine() {
    let publish = || Config {
        access: AccessConfig {
            publish_token: Some("TOKEN".parse().unwrap()),
            ..AccessConfig::default()
        },
        ..config()
    };
    let listed = || with_origins(&["http://sse.test:8080"]);
    let here = "X-Forwarded-For: 127.0.0.1\r\n";
    #[rustfmt::skip]
    let rows: [(&str, Config, &str, &str, [u16; 4]); 9] = [
        // The statuses of: publish, list the clients, choose a client id, read.
        ("nothing", config(), "sse.test", "", [403, 403, 403, 200]),
        ("--open", open(), "sse.test", "", [200, 200, 200, 200]),
        ("--publish-token", publish(), "sse.test", BEARER, [200, 200, 200, 200]),
        // Without the token, a client is identified by its address, which it shares with
        // the browser on this machine.
        ("--publish-token", publish(), "sse.test", "", [401, 401, 403, 200]),
        ("--trust-proxy", proxied(), "sse.test", "X-Forwarded-For: 192.0.2.7\r\n", [403, 403, 403, 403]),
        ("--trust-proxy", proxied(), "sse.test", here, [403, 403, 403, 403]),
        ("--trust-proxy", proxied(), "localhost", here, [403, 403, 403, 403]),
        // The host of an allowed origin counts as a name of this machine.
        ("--cors-origin", listed(), "sse.test:8080", "", [200, 200, 200, 200]),
        ("--cors-origin", listed(), "sse.test", "", [403, 403, 403, 200]),
    ];
    for (name, config, host, fields, expected) in rows {
        let server = server(config);
        let fields = format!("Host: {host}\r\n{fields}");
        let requests = [
            ("POST", "/events/a"),
            ("GET", "/stats?clients=1"),
            ("GET", "/events/a?client_id=me"),
            ("GET", "/events/a"),
        ];
        for ((method, target), status) in requests.into_iter().zip(expected) {
            let answer = ask(server.local_addr(), method, target, &fields, "x");
            assert_eq!(
                answer.status, status,
                "{name} {method} {target} {fields:?}: {answer:?}"
            );
        }
    }
}

#[test]
fn only_the_servers_own_pages_and_pages_of_listed_origins_may_choose_a_client_id() {
    let lists: [&[&str]; 3] = [&[], &["https://app.test"], &["*"]];
    for (index, list) in lists.iter().enumerate() {
        for server in [server(with_origins(list)), server(with_token(list))] {
            for (fields, expected) in [
                ("Origin: https://app.test\r\n", [403, 200, 200]),
                ("Referer: https://app.test/page\r\n", [403, 200, 200]),
                ("Origin: https://evil.test\r\n", [403, 403, 200]),
                ("Referer: https://evil.test/page\r\n", [403, 403, 200]),
                ("Origin: null\r\n", [403, 403, 200]),
                (
                    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
                    [403; 3],
                ),
                ("Sec-Fetch-Site: same-site\r\n", [403; 3]),
                ("Origin: http://localhost\r\n", [200; 3]),
                ("", [200; 3]),
            ] {
                for target in ["/events/a?client_id=me", "/poll?topic=a&client_id=me"] {
                    let fields = format!("Host: localhost\r\n{fields}{BEARER}");
                    let answer = ask(server.local_addr(), "GET", target, &fields, "");
                    let case = format!("{list:?} {target} {fields:?}: {answer:?}");
                    assert_eq!(answer.status, expected[index], "{case}");
                    if answer.status == 403 {
                        assert!(answer.text().contains("client_id \\\"me\\\""), "{case}");
                        assert!(
                            answer.text().contains("--cors-origin") || fields.contains("null"),
                            "{case}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_image_in_a_page_of_another_site_cannot_replace_a_client() {
    let server = server(config());
    let address = server.local_addr();
    let mut alice = Stream::subscribe(address, "/events/a?client_id=alice");
    for fields in [
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\nReferer: https://evil.test/\r\n",
        "Referer: http://evil.test/\r\n",
    ] {
        let fields = format!("Host: localhost\r\n{fields}");
        let answer = ask(address, "GET", "/events?client_id=alice", &fields, "");
        assert_eq!(answer.status, 403, "{fields:?}: {answer:?}");
    }
    server
        .hub()
        .send_to("alice", &tiny_sse::Event::new("hers"))
        .unwrap();
    assert_eq!(alice.next().data, "hers");
}

#[test]
fn a_refusal_names_the_forbidden_action_and_the_options_that_would_allow_it() {
    let server = server(config());
    for (fields, parts) in [
        (
            "Host: localhost:8080\r\nOrigin: http://evil.test\r\n",
            &[
                "http://evil.test",
                "publish to \\\"news\\\"",
                "--cors-origin http://evil.test",
            ][..],
        ),
        (
            "Host: localhost:8080\r\nOrigin: null\r\n",
            &["without an origin", "publish to \\\"news\\\""],
        ),
        (
            "Host: localhost:8080\r\nSec-Fetch-Site: cross-site\r\n",
            &["of another site", "publish to \\\"news\\\""],
        ),
        (
            "Host: evil.test:80\r\nOrigin: http://evil.test:80\r\n",
            &[
                "evil.test:80",
                "publish to \\\"news\\\"",
                "--publish-token",
                "--open",
            ],
        ),
    ] {
        let answer = ask(server.local_addr(), "POST", "/events/news", fields, "x");
        assert_eq!(answer.status, 403, "{answer:?}");
        for part in parts {
            assert!(answer.text().contains(part), "no {part} in {answer:?}");
        }
        // The page may read the refusal.
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.field("www-authenticate"), None);
    }
}

#[test]
fn a_token_in_a_cookie_counts_only_for_programs_own_pages_and_pages_of_listed_origins() {
    let own = "Host: sse.test\r\nOrigin: https://sse.test\r\n";
    let listed = "Host: sse.test\r\nOrigin: https://app.test\r\n";
    let other = "Host: sse.test\r\nOrigin: https://evil.test\r\n";
    let image = "Host: sse.test\r\nSec-Fetch-Site: cross-site\r\n";
    let same_site = "Host: sse.test\r\nSec-Fetch-Site: same-site\r\n";
    let linked = "Host: sse.test\r\nReferer: https://evil.test/page\r\n";
    let linked_from_listed = "Host: sse.test\r\nReferer: https://app.test/page\r\n";
    let null = "Host: sse.test\r\nOrigin: null\r\n";
    let star = "Host: sse.test\r\nOrigin: *\r\n";
    let downgraded = "Host: sse.test\r\nOrigin: http://sse.test\r\nSec-Fetch-Site: cross-site\r\n";
    let lists: [&[&str]; 4] = [
        &[],
        &["https://app.test"],
        &["*"],
        &["*", "https://app.test"],
    ];
    #[rustfmt::skip]
    let rows = [
        // The statuses of reading with each of the lists, and of publishing with each of
        // them.
        ("Host: sse.test\r\n", [200, 200, 200, 200], [200, 200, 200, 200]),
        (own, [200, 200, 200, 200], [200, 200, 200, 200]),
        (listed, [401, 200, 401, 200], [403, 200, 401, 200]),
        (other, [401, 401, 401, 401], [403, 403, 401, 401]),
        (image, [401, 401, 401, 401], [403, 403, 403, 403]),
        (same_site, [401, 401, 401, 401], [403, 403, 403, 403]),
        (linked, [401, 401, 401, 401], [403, 403, 401, 401]),
        (linked_from_listed, [401, 200, 401, 200], [403, 200, 401, 200]),
        (null, [401, 401, 401, 401], [403, 403, 401, 401]),
        (star, [401, 401, 401, 401], [403, 403, 401, 401]),
        (downgraded, [401, 401, 401, 401], [403, 403, 401, 401]),
    ];
    for (index, list) in lists.iter().enumerate() {
        let server = server(with_token(list));
        for (fields, to_read, to_publish) in &rows {
            let fields = format!("{fields}{COOKIE}");
            for target in ["/events/a", "/poll", "/stats", "/metrics"] {
                let answer = ask(server.local_addr(), "GET", target, &fields, "");
                assert_eq!(
                    answer.status, to_read[index],
                    "{list:?} {target} {fields:?}"
                );
            }
            let answer = ask(server.local_addr(), "POST", "/events", &fields, "x");
            assert_eq!(
                answer.status, to_publish[index],
                "{list:?} {fields:?}: {answer:?}"
            );
        }
    }
}

// ---- what pages may read

/// Returns what tells a browser whether its page may read an answer: the allowed origin,
/// whether credentials are allowed, and whether the answer has `Vary: Origin`.
fn shared(answer: &Answer) -> (Option<&str>, Option<&str>, bool) {
    let origins = answer.head.matches("Access-Control-Allow-Origin").count();
    assert!(origins < 2, "{answer:?}");
    (
        answer.field("access-control-allow-origin"),
        answer.field("access-control-allow-credentials"),
        answer.head.contains("\nVary: Origin"),
    )
}

/// Sends a request for each part of the server that makes answers. Returns a name, the
/// expected status and the answer of each. `may_publish`: whether the sender may publish.
fn answers(
    address: SocketAddr,
    fields: &str,
    may_publish: bool,
) -> Vec<(&'static str, u16, Answer)> {
    let if_allowed = |status| if may_publish { status } else { 403 };
    let with_token = format!("{fields}{BEARER}");
    let raw = |bytes: String| {
        let mut raw = Raw::connect(address);
        raw.send(bytes);
        raw.answer()
    };
    let ask_as =
        |fields: &str, method: &str, target: &str| ask(address, method, target, fields, "x");
    let large = (2 << 20).to_string();
    vec![
        (
            "a stream",
            200,
            ask(address, "GET", "/events/a?token=TOKEN", fields, ""),
        ),
        (
            "the head of a stream",
            200,
            ask(address, "HEAD", "/events/a?token=TOKEN", fields, ""),
        ),
        ("a poll", 200, ask(address, "GET", "/poll", &with_token, "")),
        (
            "a 401 of a stream",
            401,
            ask(address, "GET", "/events/a", fields, ""),
        ),
        (
            "a 401 of a poll",
            401,
            ask(address, "GET", "/poll", fields, ""),
        ),
        (
            "numbers",
            200,
            ask(address, "GET", "/stats", &with_token, ""),
        ),
        (
            "a script",
            200,
            ask(address, "GET", "/sse-client.js", fields, ""),
        ),
        ("the index", 200, ask(address, "GET", "/", fields, "")),
        ("a 404", 404, ask(address, "GET", "/nowhere", fields, "")),
        ("a 405", 405, ask_as(fields, "PUT", "/events")),
        ("a 501", 501, ask_as(fields, "BREW", "/events")),
        (
            "a 400 of an endpoint",
            400,
            ask(address, "GET", "/poll?wait=x", &with_token, ""),
        ),
        (
            "a preflight",
            204,
            ask(address, "OPTIONS", "/events/a", fields, ""),
        ),
        (
            "a 413 for Content-Length",
            if_allowed(413),
            raw(format!(
                "POST /events HTTP/1.1\r\nContent-Length: {large}\r\n{with_token}\r\n"
            )),
        ),
        (
            "a 413 for a Content-Length above 64 bits",
            if_allowed(413),
            raw(format!(
                "POST /events HTTP/1.1\r\nContent-Length: {large}{large}{large}{large}\r\n{with_token}\r\n"
            )),
        ),
        (
            "a 413 for chunks",
            if_allowed(413),
            raw(format!(
                "POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{with_token}\r\nFFFFFF\r\n"
            )),
        ),
        (
            "a 400 for chunks",
            if_allowed(400),
            raw(format!(
                "POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{with_token}\r\nx\r\n"
            )),
        ),
    ]
}

#[test]
fn without_a_list_of_origins_and_with_a_star_pages_of_all_origins_may_read() {
    for list in [&[][..], &["*"]] {
        let server = server(with_token(list));
        for fields in [
            "Host: sse.test\r\n",
            "Host: sse.test\r\nOrigin: https://app.test\r\n",
            "Host: sse.test\r\nOrigin: null\r\n",
        ] {
            let may_publish = !list.is_empty() || !fields.contains("Origin");
            for (name, status, answer) in answers(server.local_addr(), fields, may_publish) {
                let case = format!("{name}, {list:?}, {fields:?}: {answer:?}");
                assert_eq!(answer.status, status, "{case}");
                assert_eq!(shared(&answer), (Some("*"), None, false), "{case}");
            }
        }
    }
}

#[test]
fn with_a_list_of_origins_only_their_pages_may_read_with_credentials() {
    let alone = ["https://app.test", "http://localhost:3000"];
    let among_all = ["*", "https://app.test", "http://localhost:3000"];
    for list in [&alone[..], &among_all] {
        let server = server(with_token(list));
        let others = if list == alone { None } else { Some("*") };
        for (origin, is_listed) in [
            (Some("https://app.test"), true),
            (Some("http://localhost:3000"), true),
            (Some("http://app.test"), false),
            (Some("https://app.test:444"), false),
            (Some("https://app.test.evil.test"), false),
            (Some("https://xapp.test"), false),
            (Some("HTTPS://APP.TEST"), false),
            (Some("null"), false),
            (Some("https://sse.test"), false),
            (None, false),
        ] {
            let field = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
            let fields = format!("Host: sse.test\r\n{field}");
            let is_own = [None, Some("https://sse.test")].contains(&origin);
            let may_publish = is_listed || is_own || others.is_some();
            for (name, status, answer) in answers(server.local_addr(), &fields, may_publish) {
                let case = format!("{name}, {list:?}, {origin:?}: {answer:?}");
                let credentials = is_listed.then_some("true");
                let readable = if is_listed { origin } else { others };
                assert_eq!(answer.status, status, "{case}");
                assert_eq!(shared(&answer), (readable, credentials, true), "{case}");
            }
            let fields = format!("{fields}{BEARER}");
            let answer = ask(server.local_addr(), "POST", "/events", &fields, "x");
            assert_eq!(
                answer.status,
                if may_publish { 200 } else { 403 },
                "{list:?} {origin:?}"
            );
            assert_eq!(shared(&answer).0, if is_listed { origin } else { others });
        }
    }
}

#[test]
fn without_tokens_a_page_of_a_listed_origin_may_publish_only_to_a_host_of_this_machine() {
    let server = server(with_origins(&["http://localhost:3000"]));
    for (host, status) in [("localhost:8080", 200), ("evil.test:8080", 403)] {
        let fields = format!("Host: {host}\r\nOrigin: http://localhost:3000\r\n");
        let answer = ask(server.local_addr(), "POST", "/events", &fields, "x");
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[test]
fn a_preflight_needs_no_token_and_only_a_listed_origin_is_allowed() {
    let server = server(with_token(&["https://app.test"]));
    for (target, methods) in [
        ("/events/a", "GET, HEAD, POST, OPTIONS"),
        ("/clients/a", "POST, DELETE, OPTIONS"),
        ("/poll", "GET, HEAD, OPTIONS"),
    ] {
        for (origin, echo) in [
            ("https://app.test", Some("https://app.test")),
            ("https://evil.test", None),
        ] {
            let fields = format!(
                "Host: sse.test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: authorization\r\n"
            );
            let answer = ask(server.local_addr(), "OPTIONS", target, &fields, "");
            let field = |name| answer.field(name);
            assert_eq!(answer.status, 204, "{answer:?}");
            assert_eq!(field("access-control-allow-origin"), echo, "{answer:?}");
            assert_eq!(field("access-control-allow-methods"), Some(methods));
            assert_eq!(field("access-control-allow-headers"), Some("authorization"));
            let vary = "Origin, Access-Control-Request-Headers";
            assert_eq!(field("vary"), Some(vary), "{answer:?}");
            assert_eq!(field("access-control-max-age"), Some("86400"));
        }
    }
}

#[test]
fn the_program_normalizes_the_origins_on_its_command_line() {
    let program = serve(&[
        "--cors-origin",
        "HTTPS://App.Test:443",
        "--cors-origin=http://[::1]:3000",
    ]);
    for (origin, status) in [
        ("https://app.test", 200),
        ("http://[::1]:3000", 200),
        ("https://app.test:443", 403),
        ("http://app.test", 403),
    ] {
        let fields = format!("Host: localhost\r\nOrigin: {origin}\r\n");
        let answer = ask(program.address, "POST", "/events", &fields, "x");
        assert_eq!(answer.status, status, "{origin}: {answer:?}");
        let echo = (status == 200).then_some(origin);
        assert_eq!(answer.field("access-control-allow-origin"), echo);
    }
}

#[test]
fn a_server_that_listens_on_all_addresses_applies_the_same_rules_to_pages() {
    let bound = Server::bind("0.0.0.0:0", with_token(&[])).unwrap();
    let server = bound.spawn().unwrap();
    let address = ([127, 0, 0, 1], server.local_addr().port()).into();
    for (fields, status) in [
        ("Host: sse.test\r\n", 200),
        ("Host: sse.test\r\nOrigin: http://sse.test\r\n", 200),
        ("Host: sse.test\r\nOrigin: http://evil.test\r\n", 403),
        ("Host: sse.test\r\nOrigin: null\r\n", 403),
    ] {
        let fields = format!("{fields}{BEARER}");
        let answer = ask(address, "POST", "/events", &fields, "x");
        assert_eq!(answer.status, status, "{fields:?}: {answer:?}");
    }
    // A page of any site may have a URL with a token. It may open a stream with it.
    let fields = "Origin: http://evil.test\r\n";
    let mut stream = Stream::open(address, "/events/a?token=TOKEN", fields);
    assert_eq!(stream.next().name, "system");
}
