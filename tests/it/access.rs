//! Which credential permits which request: tokens in every part of a request that may
//! carry one, the token file and its reload, client ids in use, refusals before the body
//! is read, and a guard that the embedding program installs.
//!
//! Rules for pages of other origins are tested in the chapter `origins`.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tiny_sse::http::Response;
use tiny_sse::hub::SubscribeError;
use tiny_sse::wire::jwt::{JwtKey, sign};
use tiny_sse::{
    AccessConfig, Action, Config, Event, Hub, Pattern, Permit, Report, Running, Server, Subscribe,
    Token, Topic, Verdict,
};

use crate::chance::Random;
use crate::kit::{
    OnDrop, Raw, Scratch, Stream, config, eventually, get, number_after, open, post, request,
    server,
};
use crate::program::{
    PROGRAM, Process, Serving, all_lines, lines_up_to, run_to_end, serve, serve_with_listen,
    wait_for_greeting,
};

// The first two tokens have the characters that a token may have but a URL must escape.
const PUBLISHER: &str = "Publisher-7f3a+x/Q==";
const SUBSCRIBER: &str = "Subscriber.91c~e/+=";
const MASTER: &str = "Master_c0ffee";
const UNKNOWN_TOKEN: &str = "Stranger-0bad";

/// The token file. It does not contain `UNKNOWN_TOKEN`.
const FILE: &str = "\
    # token               verbs              topics\n\
    Publisher-7f3a+x/Q==  publish            sensors/* news\n\
    Subscriber.91c~e/+=   subscribe          chat/* news\n\
    Master_c0ffee         publish,subscribe  *\n\
    *                     subscribe          public/*\n";

/// A token file that only its owner may read. It is deleted when the value is dropped.
struct TokenFile(Scratch);

impl TokenFile {
    fn new(text: impl AsRef<[u8]>) -> TokenFile {
        let file = TokenFile(Scratch::new());
        fs::create_dir(file.0.path()).unwrap();
        file.write(text);
        file
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).unwrap();
        self.set_mode(0o600);
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("tokens")
    }

    fn name(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn config(&self) -> Config {
        Config {
            access: AccessConfig {
                tokens: Some(self.path()),
                ..AccessConfig::default()
            },
            ..config()
        }
    }
}

fn token(text: &str) -> Option<Token> {
    Some(text.parse().expect("a token"))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Adds a report to the configuration that collects all log lines, at every level.
fn with_log(config: Config) -> (Config, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let collected = Arc::clone(&lines);
    let report = Report::new(move |level, line| {
        let line = format!("{level} {line}");
        collected.lock().unwrap().push(line);
    });
    (Config { report, ..config }, lines)
}

// ---- the tokens

/// The part of a request that carries the token, and how it is spelled there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Bearer,
    LowerCaseScheme,
    Cookie,
    AmongCookies,
    SecondCookieField,
    Query,
}

const CARRIERS: [Carrier; 6] = [
    Carrier::Bearer,
    Carrier::LowerCaseScheme,
    Carrier::Cookie,
    Carrier::AmongCookies,
    Carrier::SecondCookieField,
    Carrier::Query,
];

impl Carrier {
    /// Returns the target and the header fields of a request that carries the token this
    /// way.
    fn put(self, token: &str, target: &str) -> (String, String) {
        let fields = match self {
            Carrier::Bearer => bearer(token),
            Carrier::LowerCaseScheme => format!("authorization: bearer {token}\r\n"),
            Carrier::Cookie => format!("Cookie: tiny_sse_token={token}\r\n"),
            Carrier::AmongCookies => {
                format!("Cookie: a=b; tiny_sse_token={token}; xtiny_sse_token=c\r\n")
            }
            Carrier::SecondCookieField => {
                format!("Cookie: theme=dark\r\nCookie: tiny_sse_token={token}\r\n")
            }
            Carrier::Query => return (with_query(target, token), String::new()),
        };
        (target.to_owned(), fields)
    }
}

fn with_query(target: &str, token: &str) -> String {
    let token = token
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}token={token}")
}

/// The method, the target, the action that the error names, and five statuses: of the
/// answer to a request without a token, with an unknown token, and with the publisher's,
/// the subscriber's and the master token.
type Row = (&'static str, &'static str, &'static str, [u16; 5]);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Publish to a topic that is granted by name, to one that a pattern grants, and to
    // similar topics.
    ("POST", "/events/news", "publish to \\\"news\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events?topic=news", "publish to \\\"news\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events/sensors/1", "publish to \\\"sensors/1\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events/sensors/a/b", "publish to \\\"sensors/a/b\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events/sensors%2F1", "publish to \\\"sensors/1\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events/sensors/", "publish to \\\"sensors/\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/events/sensors", "publish to \\\"sensors\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/Sensors/1", "publish to \\\"Sensors/1\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/news/1", "publish to \\\"news/1\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/new", "publish to \\\"new\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/%D0%BF", "publish to \\\"п\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/chat/1", "publish to \\\"chat/1\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/events/public/1", "publish to \\\"public/1\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/broadcast?topic=news", "publish to \\\"news\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/broadcast?topic=chat/1", "publish to \\\"chat/1\\\"", [401, 401, 403, 403, 200]),
    ("POST", "/send?topic=sensors/1", "publish to \\\"sensors/1\\\"", [401, 401, 200, 403, 200]),
    ("POST", "/send?topic=chat/1", "publish to \\\"chat/1\\\"", [401, 401, 403, 403, 200]),
    // Publish to all topics at once, and to one client.
    ("POST", "/events", "publish to everybody", [401, 401, 403, 403, 200]),
    ("POST", "/broadcast", "publish to everybody", [401, 401, 403, 403, 200]),
    ("POST", "/send", "publish to everybody", [401, 401, 403, 403, 200]),
    ("POST", "/clients/nobody", "publish to the client \\\"nobody\\\" or end its stream", [401, 401, 403, 403, 404]),
    ("DELETE", "/clients/nobody", "publish to the client \\\"nobody\\\" or end its stream", [401, 401, 403, 403, 404]),
    // Two topics, or a pattern, are a 400 with every token: a publisher names exactly one
    // topic.
    ("POST", "/events/news?topic=chat/1", "", [400; 5]),
    ("POST", "/events?topic=news&topic=chat/1", "", [400; 5]),
    ("POST", "/send?topic=sensors/1&topic=chat/1", "", [400; 5]),
    ("POST", "/events/sensors/*", "", [400; 5]),
    ("POST", "/events/", "", [400; 5]),
    // Subscribe, with the topic in the path, in the query, and in both.
    ("GET", "/events/chat/1", "subscribe to \\\"chat/1\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events?topic=chat/1", "subscribe to \\\"chat/1\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events?topic=chat/1&topic=news", "subscribe to \\\"chat/1\\\", \\\"news\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events/news?topic=chat/*", "subscribe to \\\"chat/*\\\", \\\"news\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events?topic=chat/1&topic=sensors/1", "subscribe to \\\"chat/1\\\", \\\"sensors/1\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/news?topic=*", "subscribe to \\\"*\\\"", [401, 401, 403, 403, 200]),
    // A pattern that is as wide as the granted one, narrower, and wider.
    ("GET", "/events/chat/*", "subscribe to \\\"chat/*\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events/chat/a/*", "subscribe to \\\"chat/a/*\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events/chat/**", "subscribe to \\\"chat/**\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/events/chat*", "subscribe to \\\"chat*\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/chat", "subscribe to \\\"chat\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/Chat/1", "subscribe to \\\"Chat/1\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/news*", "subscribe to \\\"news*\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/*", "subscribe to \\\"*\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events/sensors/1", "subscribe to \\\"sensors/1\\\"", [401, 401, 403, 403, 200]),
    // Every client may do this, also with a token that grants less, or with an unknown
    // token.
    ("GET", "/events", "subscribe", [200; 5]),
    ("GET", "/events/public/1", "", [200; 5]),
    ("GET", "/events/public/*", "", [200; 5]),
    ("GET", "/events/public*", "subscribe to \\\"public*\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/events?topic=public/1&topic=chat/1", "subscribe to \\\"chat/1\\\", \\\"public/1\\\"", [401, 401, 403, 200, 200]),
    ("HEAD", "/events/chat/1", "", [401, 401, 403, 200, 200]),
    ("HEAD", "/events/public/1", "", [200; 5]),
    ("GET", "/poll?topic=chat/1", "subscribe to \\\"chat/1\\\"", [401, 401, 403, 200, 200]),
    ("GET", "/poll?topic=chat/1&topic=sensors/1&last_event_id=earliest", "subscribe to \\\"chat/1\\\", \\\"sensors/1\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/poll?topic=*&last_event_id=earliest", "subscribe to \\\"*\\\"", [401, 401, 403, 403, 200]),
    ("GET", "/poll?topic=public/1", "", [200; 5]),
    ("GET", "/poll", "", [200; 5]),
    ("HEAD", "/poll?topic=chat/1", "", [401, 401, 403, 200, 200]),
    // Read the statistics.
    ("GET", "/stats", "see the statistics", [401, 401, 403, 403, 200]),
    ("GET", "/stats?clients=0", "see the statistics", [401, 401, 403, 403, 200]),
    ("GET", "/stats?clients=1", "see the clients", [401, 401, 403, 403, 200]),
    ("GET", "/stats?clients=1&clients=0", "see the clients", [401, 401, 403, 403, 200]),
    ("HEAD", "/stats", "", [401, 401, 403, 403, 200]),
    ("GET", "/metrics", "see the statistics", [401, 401, 403, 403, 200]),
    ("HEAD", "/metrics", "", [401, 401, 403, 403, 200]),
    // Endpoints that need no right, and paths and methods that do not exist.
    ("GET", "/health", "", [200; 5]),
    ("GET", "/", "", [200; 5]),
    ("GET", "/sse-client.js", "", [200; 5]),
    ("GET", "/use-sse.js", "", [200; 5]),
    ("OPTIONS", "/events/chat/1", "", [204; 5]),
    ("OPTIONS", "*", "", [204; 5]),
    ("GET", "/nowhere", "", [404; 5]),
    ("GET", "//events/chat/1", "", [404; 5]),
    ("POST", "/Events/news", "", [404; 5]),
    ("PUT", "/events/news", "", [405; 5]),
    ("DELETE", "/events/news", "", [405; 5]),
    ("GET", "/events/%2e%2e/stats", "", [400; 5]),
    ("GET", "/events/%2E", "", [400; 5]),
    // A target in absolute form means the same request.
    ("GET", "http://elsewhere.test/events/chat/1", "subscribe to \\\"chat/1\\\"", [401, 401, 403, 200, 200]),
    ("POST", "http://elsewhere.test/events/news", "publish to \\\"news\\\"", [401, 401, 200, 403, 200]),
];

/// The tokens of a table's holders: none, an unknown one, the publisher's, the
/// subscriber's, and the master token.
type Holders<'a> = [Option<&'a str>; 5];

/// The tokens of [`FILE`], and an unknown one.
const LISTED: Holders = [
    None,
    Some(UNKNOWN_TOKEN),
    Some(PUBLISHER),
    Some(SUBSCRIBER),
    Some(MASTER),
];

/// Sends the request of one row with the token of one holder, carried in one way, and
/// checks the answer. Returns its status.
#[track_caller]
fn check(
    address: SocketAddr,
    row: &Row,
    (holders, holder): (&Holders, usize),
    carrier: Carrier,
    extra: &str,
) -> u16 {
    let (method, target, action, expected) = row;
    let token = holders[holder];
    let is_stream = ["GET", "HEAD"].contains(method) && target.contains("/events");
    // Only streams accept a token in the query; other endpoints ignore it.
    let is_seen = token.is_some() && (carrier != Carrier::Query || is_stream);
    let expected = expected[if is_seen { holder } else { 0 }];
    let (target, fields) = match token {
        Some(token) if *target != "*" => carrier.put(token, target),
        _ => (target.to_string(), String::new()),
    };
    let fields = format!("{fields}{extra}");
    let answer = request(
        address,
        method,
        &target,
        &fields,
        r#"{"event":"e","_event":"e"}"#,
    );
    let case = format!("{method} {target} with {fields:?}: {answer:?}");
    assert_eq!(answer.status, expected, "{case}");
    let challenge = match (expected, is_seen) {
        (401, false) => Some(r#"Bearer realm="tiny-sse""#),
        (401, true) if holders == &LISTED => {
            Some(r#"Bearer realm="tiny-sse", error="invalid_token""#)
        }
        (401, true) => Some(
            "Bearer realm=\"tiny-sse\", error=\"invalid_token\", \
             error_description=\"the token is not signed with a key of this server\"",
        ),
        _ => None,
    };
    assert_eq!(answer.field("www-authenticate"), challenge, "{case}");
    if [401, 403].contains(&expected) {
        assert!(answer.text().contains(action), "no {action:?} in {case}");
    }
    for token in holders.iter().flatten() {
        assert!(!answer.head.contains(token), "{case}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(token),
            "{case}"
        );
    }
    expected
}

#[test]
fn each_request_needs_a_token_that_grants_it_in_any_part_that_may_carry_tokens() {
    let file = TokenFile::new(FILE);
    let (config, log) = with_log(Config {
        // Short, so that clients that have hung up are soon removed.
        heartbeat: Duration::from_millis(20),
        ..file.config()
    });
    let server = server(config);
    let mut published = 0;
    for row in ROWS {
        for holder in 0..5 {
            for carrier in CARRIERS {
                let holder = (&LISTED, holder);
                let status = check(server.local_addr(), row, holder, carrier, "");
                published += u64::from(row.0 == "POST" && status == 200);
            }
        }
    }
    // No refused request has published an event.
    assert_eq!(server.hub().stats().events, published);
    server.shutdown();
    let log = log.lock().unwrap();
    assert!(
        log.iter()
            .any(|line| line.contains("401 to POST \"/events/news\""))
    );
    for token in [
        PUBLISHER,
        SUBSCRIBER,
        MASTER,
        UNKNOWN_TOKEN,
        "%2BxF",
        "token=",
    ] {
        let leaked = log.iter().find(|line| line.contains(token));
        assert_eq!(leaked, None, "{token}");
    }
}

#[test]
fn a_signed_token_has_the_rights_of_its_claims_in_any_part_that_may_carry_tokens() {
    const KEY: &str = "the-key-of-the-backend-0123456789abcdef";
    const OTHER_KEY: &str = "the-key-of-another-server-0123456789abc";
    let (key, other): (JwtKey, JwtKey) = (KEY.parse().unwrap(), OTHER_KEY.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let exp = now.as_secs() + 600;
    let claims = [
        String::from(r#"{"publish":["sensors/*","news"]}"#),
        format!(r#"{{"mercure":{{"subscribe":["chat/*","news"]}},"sub":"42","exp":{exp}}}"#),
        format!(r#"{{"publish":["*"],"subscribe":["*"],"exp":{exp}}}"#),
    ];
    let [publisher, subscriber, master] = claims.each_ref().map(|claims| sign(claims, &key));
    let unknown = sign(&claims[2], &other);
    let holders = [
        None,
        Some(&*unknown),
        Some(&*publisher),
        Some(&*subscriber),
        Some(&*master),
    ];
    let file = TokenFile::new("* subscribe public/*\n");
    let mut config = file.config();
    config.heartbeat = Duration::from_millis(20);
    config.access.jwt_keys = vec![key];
    let (config, log) = with_log(config);
    let server = server(config);
    for row in ROWS {
        for holder in 0..5 {
            for carrier in CARRIERS {
                // The publisher's token has no end, so it is refused in a query.
                if (holder, carrier) != (2, Carrier::Query) {
                    check(server.local_addr(), row, (&holders, holder), carrier, "");
                }
            }
        }
    }
    // The other cookies that may carry a token.
    for cookie in ["__Host-tiny_sse_token", "mercureAuthorization"] {
        let fields = format!("Cookie: {cookie}={subscriber}\r\n");
        let answer = request(server.local_addr(), "GET", "/events/chat/1", &fields, "");
        assert_eq!(answer.status, 200, "{cookie}");
    }
    server.shutdown();
    let log = log.lock().unwrap();
    let reason = "to POST \"/events/news\": the token is not signed with a key of this server";
    assert!(log.iter().any(|line| line.contains(reason)), "{log:?}");
    for part in holders.iter().flatten().flat_map(|token| token.split('.')) {
        assert!(!log.iter().any(|line| line.contains(part)), "{part}");
    }
}

#[test]
fn ndjson_and_override_headers_need_the_same_rights_as_a_plain_body() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let rows: Vec<_> = ROWS.iter().filter(|row| row.0 == "POST").collect();
    for extra in [
        "Content-Type: application/x-ndjson\r\n",
        "X-HTTP-Method-Override: GET\r\nX-Method-Override: GET\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /health\r\nX-Rewrite-URL: /health\r\n",
    ] {
        for row in &rows {
            // `/broadcast` and `/send` do not accept NDJSON.
            if row.1.contains("/events") || !extra.contains("ndjson") {
                (0..5).for_each(|holder| {
                    let holder = (&LISTED, holder);
                    check(server.local_addr(), row, holder, Carrier::Bearer, extra);
                });
            }
        }
    }
    // A header field cannot turn a GET into a DELETE either.
    let override_method = format!("{}X-HTTP-Method-Override: DELETE\r\n", bearer(MASTER));
    let target = format!("/events?client_id=other&token={MASTER}");
    let _stream = Stream::subscribe(server.local_addr(), &target);
    let answer = request(
        server.local_addr(),
        "GET",
        "/clients/other",
        &override_method,
        "",
    );
    assert_eq!((answer.status, server.hub().clients()), (405, 1));
}

/// The query, the header fields, and the status of the answer to `GET /events/chat/1`
/// with them. Most of them look like a valid token and are none.
#[rustfmt::skip]
const VARIANTS: &[(&str, &str, u16)] = &[
    // Each carries a valid token.
    ("", "Authorization: Bearer Master_c0ffee\r\n", 200),
    ("", "AUTHORIZATION: BEARER   Master_c0ffee  \r\n", 200),
    ("?token=Master_c0ffee", "", 200),
    ("?token=%4daster%5Fc0ffee", "", 200),
    ("?to%6Ben=Master_c0ffee", "", 200),
    ("?token=&token=Master_c0ffee", "", 200),
    ("?token=Master_c0ffee&token=wrong", "", 200),
    ("?token=wrong", "Authorization: Bearer Master_c0ffee\r\n", 200),
    ("?token=Master_c0ffee", "Authorization: Bearer wrong\r\nCookie: tiny_sse_token=wrong\r\n", 200),
    ("", "Authorization: Basic Master_c0ffee\r\nCookie: tiny_sse_token=Master_c0ffee\r\n", 200),
    ("", "Cookie: tiny_sse_token=wrong; tiny_sse_token=Master_c0ffee\r\n", 200),
    ("", "Cookie: a=b;tiny_sse_token=Master_c0ffee\r\n", 200),
    ("", "Cookie: tiny_sse_token=\"Master_c0ffee\"; a=\"b\"\r\n", 200),
    // `+` means a space in a query, but a token has no spaces, so `+` is read as itself.
    // Many cookie libraries percent-encode the value.
    ("?token=Subscriber.91c~e/+=", "", 200),
    ("?token=Subscriber.91c~e/%2B%3D", "", 200),
    ("?token=Subscriber.91c~e%2F%20=", "", 200),
    ("", "Cookie: tiny_sse_token=Subscriber.91c~e/+=\r\n", 200),
    ("", "Cookie: tiny_sse_token=Subscriber.91c~e%2F%2B%3D\r\n", 200),
    ("", "Cookie: tiny_sse_token=\"Subscriber.91c~e%2f%2b%3d\"\r\n", 200),
    ("", "Authorization: bEARER  Subscriber.91c~e/+=\r\n", 200),
    // Cookies that a site on a neighbouring domain has set do not displace the valid
    // token.
    ("?token=Master_c0ffee", "Cookie: tiny_sse_token=1; tiny_sse_token=2; tiny_sse_token=3\r\n", 200),
    // A part of the token, the token and more, or the token in another case or syntax.
    ("", "Authorization: Bearer Master_c0ffe\r\n", 401),
    ("", "Authorization: Bearer aster_c0ffee\r\n", 401),
    ("", "Authorization: Bearer Master_c0ffeee\r\n", 401),
    ("", "Authorization: Bearer Master_c0ffeeMaster_c0ffee\r\n", 401),
    ("", "Authorization: Bearer master_c0ffee\r\n", 401),
    ("", "Authorization: Bearer MASTER_C0FFEE\r\n", 401),
    ("", "Authorization: Bearer *\r\n", 401),
    ("", "Authorization: Bearer Master_c0ffee=\r\n", 401),
    ("", "Authorization: Bearer \"Master_c0ffee\"\r\n", 401),
    ("", "Authorization: Bearer Master_c0ffee, Bearer Master_c0ffee\r\n", 401),
    ("", "Authorization: Bearer wrong Master_c0ffee\r\n", 401),
    ("", "Authorization: Bearer Master%5Fc0ffee\r\n", 401),
    ("", "Authorization: Bearer\r\n", 401),
    ("", "Authorization:\r\n", 401),
    ("", "Authorization: Master_c0ffee\r\n", 401),
    ("", "Authorization: Token Master_c0ffee\r\n", 401),
    ("", "Authorization: Bearer:Master_c0ffee\r\n", 401),
    ("", "Proxy-Authorization: Bearer Master_c0ffee\r\n", 401),
    ("", "X-Authorization: Bearer Master_c0ffee\r\n", 401),
    ("", "Cookie: tiny_sse_token=\r\n", 401),
    ("", "Cookie: tiny_sse_token=\"\r\n", 401),
    ("", "Cookie: tiny_sse_token=\"Master_c0ffee\r\n", 401),
    ("", "Cookie: tiny_sse_token=\"\"Master_c0ffee\"\"\r\n", 401),
    ("", "Cookie: tiny_sse_token\r\n", 401),
    ("", "Cookie: TINY_SSE_TOKEN=Master_c0ffee\r\n", 401),
    ("", "Cookie: tiny_sse_token =Master_c0ffee\r\n", 401),
    ("", "Cookie: xtiny_sse_token=Master_c0ffee\r\n", 401),
    ("", "Cookie: tiny_sse_token=Master_c0ffee%3B\r\n", 401),
    ("", "Cookie: a=tiny_sse_token=Master_c0ffee\r\n", 401),
    ("?token=", "", 401),
    ("?token", "", 401),
    ("?Token=Master_c0ffee", "", 401),
    ("?access_token=Master_c0ffee", "", 401),
    ("?token=Master_c0ffee%20", "", 401),
    ("?token=+Master_c0ffee", "", 401),
    ("?token[]=Master_c0ffee", "", 401),
    ("?token=Subscriber.91c~e/+", "", 401),
    ("?token=Subscriber.91c~e/++=", "", 401),
    ("?token=Subscriber.91c~e/=", "", 401),
    ("?token=Subscriber.91c~e/%252B=", "", 401),
    ("", "Cookie: tiny_sse_token=Subscriber.91c~e/ =\r\n", 401),
    ("", "Cookie: tiny_sse_token=Subscriber.91c~e%2F%2B\r\n", 401),
    ("", "Cookie: tiny_sse_token=Subscriber.91c~e%252F%252B%253D\r\n", 401),
    ("", "Authorization: Bearer Subscriber.91c~e/ =\r\n", 401),
    // LIMIT: only the first three `token` parameters are checked.
    ("?token=a&token=b&token=c&token=Master_c0ffee", "", 401),
    // Two parsers could read these requests differently, so they are rejected.
    ("", "Authorization: Bearer Master_c0ffee\r\nAuthorization: Bearer Master_c0ffee\r\n", 400),
    ("", "Authorization: Bearer wrong\r\nauthorization: Bearer Master_c0ffee\r\n", 400),
    ("", "Authorization : Bearer Master_c0ffee\r\n", 400),
    ("", "Authorization: Bearer\r\n Master_c0ffee\r\n", 400),
    ("", "Authorization Bearer Master_c0ffee\r\n", 400),
    ("", "Authorization: Bearer Master_c0ffee\0\r\n", 400),
    ("?token=Master_c0ffee%00", "", 400),
    ("?token=%FF", "", 400),
];

#[test]
fn only_the_exact_token_in_a_part_that_may_carry_it_is_accepted_and_no_token_is_logged() {
    let file = TokenFile::new(FILE);
    let (config, log) = with_log(file.config());
    let server = server(config);
    for (query, fields, status) in VARIANTS {
        let target = format!("/events/chat/1{query}");
        let answer = request(server.local_addr(), "GET", &target, fields, "");
        assert_eq!(answer.status, *status, "{target} {fields:?}: {answer:?}");
        let shown = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
        assert!(!shown.contains("c0ffee"), "{target} {fields:?}: {shown}");
    }
    server.shutdown();
    let log = log.lock().unwrap();
    let leaked = log.iter().find(|line| line.contains("c0ffee"));
    assert_eq!(leaked, None);
}

#[test]
fn the_debug_output_of_a_request_shows_no_token() {
    let bound = Server::bind("127.0.0.1:0", config()).unwrap();
    let server = bound.spawn_with(|request, _| Response::text(200, format!("{request:?}")));
    let server = server.unwrap();
    let fields = format!("{}Cookie: tiny_sse_token={MASTER}\r\n", bearer(MASTER));
    let target = with_query("/a/path", MASTER);
    let answer = request(server.local_addr(), "GET", &target, &fields, "");
    assert!(answer.text().contains("/a/path"), "{answer:?}");
    // Neither as text nor as a list of byte values.
    let numbers = format!("{:?}", MASTER.as_bytes());
    for shown in [MASTER, numbers.trim_matches(['[', ']'])] {
        assert!(!answer.text().contains(shown), "{}", answer.text());
    }
}

#[test]
fn a_token_that_is_not_utf_8_is_rejected_without_a_panic() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let mut raw = Raw::connect(server.local_addr());
    raw.send(
        b"GET /events/chat/1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xFF\xFE\r\n\r\n",
    );
    assert_eq!(raw.answer().status, 400);
    raw.send(
        b"GET /events/chat/1 HTTP/1.1\r\nHost: localhost\r\nCookie: tiny_sse_token=\xFF\r\n\r\n",
    );
    assert_eq!(raw.answer().status, 401);
}

// ---- the configuration

/// The requests that are sent to each configuration: publish to all topics, publish to
/// one topic, subscribe to all topics, read the statistics, list the clients.
const ASKED: [(&str, &str); 5] = [
    ("POST", "/events"),
    ("POST", "/events/a"),
    ("GET", "/events/*"),
    ("GET", "/stats"),
    ("GET", "/stats?clients=1"),
];

#[test]
fn the_configuration_decides_which_requests_need_which_token() {
    let none = config;
    let publish = || Config {
        access: AccessConfig {
            publish_token: token("P"),
            ..AccessConfig::default()
        },
        ..config()
    };
    let subscribe = || Config {
        access: AccessConfig {
            subscribe_token: token("S"),
            ..AccessConfig::default()
        },
        ..config()
    };
    let both = || Config {
        access: AccessConfig {
            subscribe_token: token("S"),
            ..publish().access
        },
        ..publish()
    };
    let same = || Config {
        access: AccessConfig {
            publish_token: token("P"),
            subscribe_token: token("P"),
            ..AccessConfig::default()
        },
        ..config()
    };
    let open_to_read_by_token = || Config {
        open: true,
        ..subscribe()
    };
    let (one, every_client, empty) = (
        TokenFile::new("P publish *\n"),
        TokenFile::new("* publish,subscribe *\n"),
        TokenFile::new("# no tokens yet\n"),
    );
    let file_and_option = || Config {
        access: AccessConfig {
            publish_token: token("Q"),
            ..one.config().access
        },
        ..one.config()
    };
    let (here, there) = ("127.0.0.1:0", "0.0.0.0:0");
    #[rustfmt::skip]
    let rows: [(&str, &str, Config, &str, [u16; 5]); 28] = [
        ("none", here, none(), "", [200, 200, 200, 200, 200]),
        ("none", "127.1.2.3:0", none(), "", [200, 200, 200, 200, 200]),
        ("none", there, none(), "", [403, 403, 403, 403, 403]),
        ("none", there, none(), "P", [403, 403, 403, 403, 403]),
        ("--publish-token P", here, publish(), "", [401, 401, 200, 200, 401]),
        ("--publish-token P", here, publish(), "P", [200, 200, 200, 200, 200]),
        ("--publish-token P", here, publish(), "S", [401, 401, 200, 200, 401]),
        ("--publish-token P", there, publish(), "", [401, 401, 403, 403, 401]),
        ("--publish-token P", there, publish(), "P", [200, 200, 403, 403, 200]),
        ("--subscribe-token S", here, subscribe(), "", [200, 200, 401, 401, 401]),
        ("--subscribe-token S", here, subscribe(), "S", [200, 200, 200, 200, 200]),
        ("--subscribe-token S", there, subscribe(), "S", [403, 403, 200, 200, 403]),
        ("both", here, both(), "", [401, 401, 401, 401, 401]),
        ("both", here, both(), "P", [200, 200, 403, 403, 200]),
        ("both", here, both(), "S", [403, 403, 200, 200, 403]),
        ("the same for both", there, same(), "P", [200, 200, 200, 200, 200]),
        ("--tokens", here, one.config(), "", [401, 401, 401, 401, 401]),
        ("--tokens", here, one.config(), "P", [200, 200, 403, 403, 200]),
        ("--tokens", there, one.config(), "P", [200, 200, 403, 403, 200]),
        ("--tokens with *", there, every_client.config(), "", [200, 200, 200, 200, 200]),
        ("--tokens with *", there, every_client.config(), "wrong", [200, 200, 200, 200, 200]),
        ("--tokens with an empty file", here, empty.config(), "", [401, 401, 401, 401, 401]),
        ("--tokens and --publish-token", here, file_and_option(), "Q", [200, 200, 403, 403, 200]),
        ("--tokens and --publish-token", here, file_and_option(), "P", [200, 200, 403, 403, 200]),
        ("--open", there, open(), "", [200, 200, 200, 200, 200]),
        ("--open", there, open(), "wrong", [200, 200, 200, 200, 200]),
        ("--open --subscribe-token", there, open_to_read_by_token(), "", [200, 200, 401, 401, 401]),
        ("--open --subscribe-token", there, open_to_read_by_token(), "S", [200, 200, 200, 200, 200]),
    ];
    for (name, bind, config, token, expected) in rows {
        let bound = Server::bind(bind, config).unwrap();
        let server = bound.spawn().unwrap();
        let mut address = server.local_addr();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        let fields = if token.is_empty() {
            String::new()
        } else {
            bearer(token)
        };
        for ((method, target), status) in ASKED.iter().zip(expected) {
            let answer = request(address, method, target, &fields, "x");
            let case = format!("{name} at {bind}, {method} {target} with {token:?}: {answer:?}");
            assert_eq!(answer.status, status, "{case}");
            if status == 403 && bind == there && token.is_empty() {
                // The refusal names the reason and the options that would permit the
                // request.
                for part in [
                    "other machines can reach this server at 0.0.0.0:",
                    "--publish-token",
                    "--tokens",
                    "--open",
                ] {
                    assert!(answer.text().contains(part), "no {part} in {case}");
                }
            }
        }
    }
}

type Variables<'a> = &'a [(&'a str, &'a str)];
type Words<'a> = &'a [&'a str];

/// Starts the program with these variables in its environment, and without any other
/// variable that the program reads.
fn with_environment(variables: Variables<'_>, arguments: Words<'_>) -> Process {
    let mut command = Command::new(PROGRAM);
    for name in [
        "TINY_SSE_PUBLISH_TOKEN",
        "TINY_SSE_SUBSCRIBE_TOKEN",
        "TINY_SSE_TOKENS",
    ] {
        command.env_remove(name);
    }
    Process::spawn(
        command
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
}

#[test]
fn tokens_are_read_from_the_environment_and_the_command_line_takes_precedence() {
    let file = TokenFile::new("F publish,subscribe *\n");
    let (name, elsewhere) = (file.name(), "/nowhere/tokens");
    let (publish, subscribe) = ("TINY_SSE_PUBLISH_TOKEN", "TINY_SSE_SUBSCRIBE_TOKEN");
    type Holders<'a> = &'a [(&'a str, [u16; 2])];
    #[rustfmt::skip]
    let rows: [(Variables<'_>, Words<'_>, Holders<'_>); 5] = [
        (&[(publish, "P")], &[], &[("", [401, 200]), ("P", [200, 200])]),
        (&[(subscribe, "S")], &[], &[("", [200, 401]), ("S", [200, 200])]),
        (&[(publish, "P")], &["--publish-token", "Q"], &[("P", [401, 200]), ("Q", [200, 200])]),
        (&[("TINY_SSE_TOKENS", &name)], &[], &[("", [401, 401]), ("F", [200, 200])]),
        (&[("TINY_SSE_TOKENS", elsewhere)], &["--tokens", &name], &[("F", [200, 200])]),
    ];
    for (variables, arguments, holders) in rows {
        let arguments = [arguments, &["--listen", "127.0.0.1:0"]].concat();
        let serving = wait_for_greeting(with_environment(variables, &arguments));
        for (token, expected) in holders {
            let fields = bearer(token);
            let publish = request(serving.address, "POST", "/events", &fields, "x");
            let subscribe = request(serving.address, "GET", "/events/a", &fields, "");
            assert_eq!(
                [publish.status, subscribe.status],
                *expected,
                "{variables:?} {arguments:?} {token:?}"
            );
        }
    }
}

#[test]
fn a_wrong_access_option_is_one_error_line_that_shows_no_token() {
    let secret = "s3cret s3cret";
    let (publish, subscribe) = ("TINY_SSE_PUBLISH_TOKEN", "TINY_SSE_SUBSCRIBE_TOKEN");
    #[rustfmt::skip]
    let rows: [(Variables<'_>, Words<'_>, Words<'_>); 19] = [
        (&[(publish, "")], &[], &["TINY_SSE_PUBLISH_TOKEN", "--publish-token"]),
        (&[(subscribe, "")], &[], &["TINY_SSE_SUBSCRIBE_TOKEN", "--subscribe-token"]),
        (&[("TINY_SSE_TOKENS", "")], &[], &["TINY_SSE_TOKENS", "--tokens", "a path"]),
        (&[(publish, secret)], &[], &["TINY_SSE_PUBLISH_TOKEN", "RFC 6750"]),
        (&[], &["--publish-token", secret], &["--publish-token", "RFC 6750"]),
        (&[], &["--publish-token="], &["--publish-token", "RFC 6750"]),
        (&[], &["--subscribe-token", "s3cret,s3cret"], &["--subscribe-token", "RFC 6750"]),
        (&[], &["--publish-token"], &["--publish-token needs a value"]),
        // An unset shell variable leaves the next option where the token should be.
        (&[], &["--publish-token", "--open"], &["--publish-token needs a value"]),
        (&[], &["--subscribe-token", "--log", "info"], &["--subscribe-token needs a value"]),
        (&[], &["--tokens", "--open"], &["--tokens needs a value"]),
        (&[], &["--open=yes"], &["--open takes no value"]),
        (&[], &["--open", "--publish-token", "s3cret"], &["--open", "* publish *"]),
        (&[], &["--tokens", "/nowhere", "--open"], &["--open", "* publish *"]),
        (&[(publish, "s3cret")], &["--open"], &["--open", "* publish *"]),
        (&[], &["--cors-origin", "example.org"], &["--cors-origin", "\"example.org\" is not an origin"]),
        (&[], &["--cors-origin", "https://example.org/"], &["--cors-origin", "without a path"]),
        (&[], &["--cors-origin", "null"], &["--cors-origin", "is not an origin"]),
        (&[], &["--cors-origin=https://a,b"], &["--cors-origin", "\"b\" is not an origin"]),
    ];
    for (variables, arguments, parts) in rows {
        let mut process = with_environment(variables, arguments);
        let code = process.exit_code();
        let (out, err) = (all_lines(&process.out), all_lines(&process.err));
        let case = format!("{variables:?} {arguments:?}: {err:?}");
        assert_eq!((code, out.len(), err.len()), (Some(2), 0, 1), "{case}");
        for part in parts {
            assert!(err[0].contains(part), "no {part:?} in {case}");
        }
        assert!(!err[0].contains("s3cret"), "{case}");
    }
}

#[test]
fn the_greeting_shows_how_to_publish_with_the_given_options() {
    let file = TokenFile::new(FILE);
    let name = file.name();
    let rows: [(&[&str], &str); 7] = [
        (&[], "curl -d 'hello' http://127.0.0.1:"),
        (
            &["--trust-proxy=10.0.0.0/8"],
            "curl -d 'hello' http://127.0.0.1:",
        ),
        (
            &["--trust-proxy=127.0.0.1"],
            "publish:    only clients that the proxy reports to be on this machine (--publish-token",
        ),
        (&["--open"], "curl -d 'hello' http://127.0.0.1:"),
        (
            &["--publish-token", "s3cret"],
            "'Authorization: Bearer TOKEN'",
        ),
        (&["--tokens", &name], "'Authorization: Bearer TOKEN'"),
        (
            &["--subscribe-token", "s3cret"],
            "curl -d 'hello' http://127.0.0.1:",
        ),
    ];
    for (arguments, part) in rows {
        let greeting = serve(arguments).greeting.join("\n");
        assert!(greeting.contains(part), "{arguments:?}: {greeting}");
        assert!(!greeting.contains("s3cret"), "{arguments:?}: {greeting}");
    }
}

/// The warning is logged at the start and after each reload.
#[test]
fn a_server_that_other_machines_can_reach_reports_what_a_client_without_a_token_may_do() {
    let file = |text: &str| TokenFile::new(text);
    let (some, read, write, all) = (
        file("A publish,subscribe *\n* subscribe public/*\n* publish a\n"),
        file("* subscribe a* *\n"),
        file("* publish *\n* subscribe a\n"),
        file("* publish,subscribe *\n"),
    );
    let with = |trust_proxy: &[&str], open: bool, subscribe_token: Option<Token>| Config {
        trust_proxy: trust_proxy
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
        access: AccessConfig {
            subscribe_token,
            ..AccessConfig::default()
        },
        open,
        ..config()
    };
    let plain = || with(&[], false, None);
    let proxied = |config: Config| Config {
        trust_proxy: vec!["127.0.0.1".parse().unwrap()],
        ..config
    };
    let (here, there) = ("127.0.0.1:0", "0.0.0.0:0");
    let to_read = "may subscribe to every topic and see /stats and /metrics; ";
    let to_publish = "may publish to every topic; ";
    let both = "may subscribe and publish to every topic, and see /stats and /metrics; ";
    #[rustfmt::skip]
    let rows = [
        (here, plain(), ""),
        (there, plain(), ""),
        ("[::]:0", plain(), ""),
        (here, proxied(plain()), ""),
        (here, with(&["10.0.0.0/8"], false, None), ""),
        (here, with(&[], true, None), ""),
        (there, with(&[], true, None), both),
        (here, with(&["127.0.0.1"], true, None), both),
        (there, with(&[], true, token("S")), to_publish),
        (there, with(&[], false, token("S")), ""),
        (here, with(&["127.0.0.1"], false, token("S")), ""),
        (there, Config { access: AccessConfig { publish_token: token("P"), ..AccessConfig::default() }, ..plain() }, ""),
        (there, some.config(), ""),
        (here, proxied(some.config()), ""),
        (there, read.config(), to_read),
        (there, write.config(), to_publish),
        (here, proxied(all.config()), both),
        (here, all.config(), ""),
    ];
    for (bind, config, expected) in rows {
        let case = format!("{bind} {config:?}");
        let (config, log) = with_log(config);
        let bound = match Server::bind(bind, config) {
            // This machine has no IPv6.
            Err(_) if bind.starts_with('[') => continue,
            bound => bound.unwrap(),
        };
        let server = bound.spawn().unwrap();
        let warnings = || {
            let log = log.lock().unwrap();
            let lines = log.iter().filter(|line| line.contains("any client that"));
            lines.cloned().collect::<Vec<_>>()
        };
        let lines = warnings();
        assert_eq!(
            lines.len(),
            usize::from(!expected.is_empty()),
            "{case}: {lines:?}"
        );
        for line in &lines {
            let address = server.local_addr();
            let warning = format!("warn any client that reaches {address} {expected}");
            assert!(line.starts_with(&warning), "{case}: {line}");
            assert!(line.contains("--tokens FILE"), "{case}: {line}");
        }
        server.reload_tokens().unwrap();
        assert_eq!(warnings().len(), 2 * lines.len(), "{case}");
    }
    // With a guard there is no warning, because the guard decides. The program prints the
    // warning at its default log level.
    let (config, log) = with_log(plain());
    let bound = Server::bind(there, config).unwrap();
    let server = bound.guard(|_, _| Verdict::AsConfigured).spawn().unwrap();
    drop(server);
    assert!(
        !log.lock()
            .unwrap()
            .iter()
            .any(|line| line.contains("any client that"))
    );
    for (options, part) in [
        (&["--open"][..], "any client that reaches"),
        (
            &["--public", "news", "--public=a,b*", "--log", "info"],
            "need a token, except for events without a topic and for a,b*, news",
        ),
    ] {
        let serving = serve_with_listen(&[&["--listen", there], options].concat());
        lines_up_to(&serving.process.err, part);
    }
}

// ---- the token file

/// Starts a server with the token file, and returns the error if the server does not
/// start.
fn start_with(file: &TokenFile) -> Result<(), String> {
    let bound = Server::bind("127.0.0.1:0", file.config());
    bound.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_token_file_that_every_user_may_read_or_write_is_refused() {
    let file = TokenFile::new(FILE);
    for (mode, is_private) in [
        (0o600, true),
        (0o400, true),
        // systemd creates credentials with this mode; an access control list lets the
        // service's user read them.
        (0o440, true),
        (0o640, true),
        (0o660, true),
        (0o601, true),
        (0o644, false),
        (0o604, false),
        (0o602, false),
        (0o606, false),
        (0o666, false),
        (0o777, false),
    ] {
        file.set_mode(mode);
        let outcome = start_with(&file);
        assert_eq!(outcome.is_ok(), is_private, "{mode:04o}: {outcome:?}");
        if let Err(error) = outcome {
            for part in [&*file.name(), &format!("{mode:04o}"), "chmod o-rw"] {
                assert!(error.contains(part), "no {part} in {error}");
            }
        }
    }
}

#[test]
fn a_malformed_token_file_is_refused_and_the_error_names_the_line_but_no_token() {
    let long = format!("{} publish {}\n", "s3cret", "x".repeat(256));
    let large = format!("s3cret publish a\n{}", "#\n".repeat(600_000));
    #[rustfmt::skip]
    let rows: [(&[u8], &[&str]); 18] = [
        (b"a publish *\ns3cret\n", &["line 2:", "must follow"]),
        (b"a publish *\n\n# x\ns3cret publish\n", &["line 4:", "topics must follow"]),
        (b"s3cret read *\n", &["line 1:", "publish, subscribe or publish,subscribe"]),
        (b"s3cret Publish *\n", &["line 1:", "publish,subscribe"]),
        (b"s3cret publish, subscribe *\n", &["line 1:", "the second word"]),
        (b"publish s3cret *\n", &["line 1:", "the second word"]),
        (b"publish * s3cret\n", &["line 1:", "the second word"]),
        (b"\"s3cret\" publish *\n", &["line 1:", "RFC 6750"]),
        (b"s3cret; publish *\n", &["line 1:", "RFC 6750"]),
        (b"s3cret#2 publish *\n", &["line 1:", "RFC 6750"]),
        (b"** publish *\n", &["line 1:", "RFC 6750"]),
        (b"\xEF\xBB\xBFs3cret publish *\n", &["line 1:", "RFC 6750"]),
        (b"s3cret publish a\x01\n", &["line 1:", "control character"]),
        (b"s3cret publish a\0b\n", &["line 1:", "control character"]),
        (b"s3cret publish a\rb publish c\r", &["line 1:", "line break"]),
        (long.as_bytes(), &["line 1:", "256 bytes"]),
        (b"s3cret publish \xFF\n", &["UTF-8"]),
        (large.as_bytes(), &["larger than 1048576 bytes"]),
    ];
    for (text, parts) in rows {
        let file = TokenFile::new(text);
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        let error = start_with(&file).expect_err(&shown);
        for part in parts.iter().chain([&&*file.name()]) {
            assert!(error.contains(part), "{shown:?}: no {part:?} in {error}");
        }
        assert!(!error.contains("s3cret"), "{shown:?}: {error}");
    }
}

#[test]
fn a_missing_file_a_directory_and_a_fifo_are_refused_without_waiting() {
    let file = TokenFile::new(FILE);
    fs::remove_file(file.path()).unwrap();
    assert!(
        start_with(&file).unwrap_err().contains(&file.name()),
        "missing"
    );
    fs::create_dir(file.path()).unwrap();
    file.set_mode(0o700);
    assert!(
        start_with(&file)
            .unwrap_err()
            .contains("it is not a regular file")
    );
    fs::remove_dir(file.path()).unwrap();
    let made = Command::new("mkfifo").arg(file.path()).status();
    assert!(made.expect("mkfifo").success());
    assert!(
        start_with(&file)
            .unwrap_err()
            .contains("it is not a regular file")
    );
    fs::remove_file(file.path()).unwrap();
    // A symbolic link counts as the file that it points to.
    let there = TokenFile::new(FILE);
    symlink(there.path(), file.path()).unwrap();
    assert_eq!(start_with(&file), Ok(()));
    there.set_mode(0o644);
    assert!(start_with(&file).unwrap_err().contains("chmod o-rw"));
    // The program reports the same error and exits with 1, not 2: its command line is
    // correct.
    let (code, _, errors) = run_to_end(&["--listen", "127.0.0.1:0", "--tokens", &file.name()]);
    assert_eq!((code, errors.len()), (Some(1), 1), "{errors:?}");
}

#[test]
fn line_ends_tabs_comments_and_repeated_tokens_of_a_token_file_are_read_correctly() {
    let file = TokenFile::new(
        "# CRLF, tabs, comments at the end of a line, and a # that is part of a topic\r\n\
         \r\n\
         A\tpublish \t room#1 irc/#*  # and room2\r\n\
         B publish a\r\n\
         B subscribe b\r\n\
         B publish c#\r\n\
         C subscribe,publish,publish d d d\r\n\
         # D publish *\r\n\
         E publish last",
    );
    let server = server(file.config());
    for (token, topic, status) in [
        ("A", "room%231", 200),
        ("A", "room", 403),
        ("A", "irc/%23rust", 200),
        ("A", "irc/rust", 403),
        ("A", "irc/", 403),
        ("A", "and", 403),
        ("A", "room2", 403),
        ("B", "a", 200),
        ("B", "b", 403),
        ("B", "c", 403),
        ("B", "c%23", 200),
        ("C", "d", 200),
        ("D", "a", 401),
        ("E", "last", 200),
    ] {
        let target = format!("/events/{topic}");
        let answer = request(server.local_addr(), "POST", &target, &bearer(token), "x");
        assert_eq!(answer.status, status, "{token} {topic}: {answer:?}");
    }
}

#[test]
fn a_token_file_of_the_largest_size_slows_down_neither_the_start_nor_requests() {
    // Some lines grant a right to `*`, which every token then has too.
    let lines = (0..24_000).map(|n| match n % 24 {
        1 => format!("* publish topic/{n}\n"),
        _ => format!("{n:032} publish *\n"),
    });
    let file = TokenFile::new(lines.collect::<String>());
    let server = server(file.config());
    let (first, last) = (format!("{:032}", 0), format!("{:032}", 23_999));
    for token in [first, last] {
        let answer = request(server.local_addr(), "POST", "/events", &bearer(&token), "x");
        assert_eq!(answer.status, 200, "{token}");
    }
    // A second or two of requests. If each of these long tokens were compared with all
    // 23,000 lines, the requests would take far longer.
    let guess = bearer(&"0".repeat(12_000));
    for _ in 0..200 {
        let answer = request(server.local_addr(), "POST", "/events", &guess, "x");
        assert_eq!(answer.status, 401);
    }
}

// ---- a reload

#[test]
fn a_reload_takes_effect_at_once_and_a_reload_of_a_wrong_file_changes_nothing() {
    let file = TokenFile::new("A publish *\n");
    let (config, log) = with_log(file.config());
    let server = server(config);
    let publish = |token: &str| {
        let fields = bearer(token);
        request(server.local_addr(), "POST", "/events", &fields, "x").status
    };
    assert_eq!([publish("A"), publish("B")], [200, 401]);
    file.write("B publish *\n");
    assert_eq!(
        [publish("A"), publish("B")],
        [200, 401],
        "before the reload"
    );
    server.reload_tokens().unwrap();
    assert_eq!([publish("A"), publish("B")], [401, 200]);
    file.write("C publish *\ns3cret publsh *\n");
    let error = server.reload_tokens().unwrap_err().to_string();
    assert!(
        error.contains("line 2:") && !error.contains("s3cret"),
        "{error}"
    );
    file.write("C publish *\n");
    file.set_mode(0o644);
    let error = server.reload_tokens().unwrap_err().to_string();
    assert!(error.contains("chmod o-rw"), "{error}");
    fs::remove_file(file.path()).unwrap();
    server.reload_tokens().unwrap_err();
    assert_eq!([publish("A"), publish("B"), publish("C")], [401, 200, 401]);
    file.write("");
    server.reload_tokens().unwrap();
    assert_eq!([publish("A"), publish("B"), publish("C")], [401, 401, 401]);
    let log = log.lock().unwrap();
    let reloads: Vec<_> = log.iter().filter(|line| line.contains("known")).collect();
    let expected = [
        "info tokens known: 1; streams ended: 0",
        "info tokens known: 0; streams ended: 0",
    ];
    assert_eq!(reloads, expected);
}

#[test]
fn a_reload_without_a_token_file_succeeds_and_ends_no_stream() {
    let server = server(Config {
        access: AccessConfig {
            subscribe_token: token("S"),
            ..AccessConfig::default()
        },
        ..config()
    });
    let mut stream = Stream::subscribe(server.local_addr(), "/events?token=S");
    server.reload_tokens().unwrap();
    server.hub().publish(Event::new("x")).unwrap();
    assert_eq!(stream.next().data, "x");
}

/// Starts a poll on a new connection, and returns once the server has registered it as
/// waiting.
fn waiting_poll(server: &Running, target: &str, token: &str) -> Raw {
    let clients = server.hub().clients();
    let mut raw = Raw::connect(server.local_addr());
    let fields = bearer(token);
    raw.send(format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
    ));
    eventually("the poll waits", || server.hub().clients() == clients + 1);
    raw
}

#[test]
fn a_reload_ends_exactly_the_streams_and_polls_that_the_new_tokens_do_not_permit() {
    let file = TokenFile::new(
        "GONE subscribe *\n\
         NARROWED subscribe a b\n\
         MOVED subscribe a\n\
         KEPT subscribe a\n\
         * subscribe public/*\n",
    );
    let server = server(Config {
        access: AccessConfig {
            subscribe_token: token("FIXED"),
            ..file.config().access
        },
        // Long, so that only the reload can end a stream, not a check at a heartbeat.
        heartbeat: Duration::from_secs(600),
        ..file.config()
    });
    let address = server.local_addr();
    let ended = [
        "/events/a?token=GONE",
        "/events?topic=a&topic=public/1&token=GONE",
        "/events/*?token=GONE&client_id=mine",
        "/events/b?token=NARROWED",
        "/events?topic=a&topic=b&token=NARROWED",
    ];
    let kept = [
        "/events/a?token=NARROWED",
        "/events/a?token=MOVED",
        "/events/a?token=KEPT",
        "/events/*?token=FIXED",
        // Rights of `*` remain to a client whose token was removed.
        "/events/public/1?token=GONE",
        "/events?token=GONE",
        "/events/public/*",
        "/events/public/1?token=never",
    ];
    let open = |target: &&str| Stream::subscribe(address, target);
    let mut kept_streams: Vec<_> = kept.iter().map(open).collect();
    let mut ended_streams: Vec<_> = ended.iter().map(open).collect();
    let mut ended_poll = waiting_poll(&server, "/poll?topic=a&wait=60", "GONE");
    let mut kept_poll = waiting_poll(&server, "/poll?topic=a&wait=60", "KEPT");
    file.write(
        "NARROWED subscribe a\n\
         MOVED publish z\n\
         MOVED subscribe a*\n\
         KEPT subscribe a\n\
         * subscribe public/*\n",
    );
    server.reload_tokens().unwrap();
    assert_eq!(server.hub().clients(), kept.len() + 1);
    for (target, stream) in ended.iter().zip(&mut ended_streams) {
        stream.read_to("{\"type\":\"closed\",\"reason\":\"expired\"}\n\n");
        assert_eq!(stream.try_next(), None, "{target}");
        // The browser reconnects, and gets a status after which it does not try again.
        let again = get(address, target);
        let expected = if target.contains("NARROWED") {
            403
        } else {
            401
        };
        assert_eq!(again.status, expected, "{target}: {again:?}");
    }
    let answer = ended_poll.answer();
    assert_eq!((answer.status, answer.text()), (200, "[]\n"));
    let fields = bearer("GONE");
    let again = request(address, "GET", "/poll?topic=a&wait=60", &fields, "");
    assert_eq!(again.status, 401);
    // The other clients have lost nothing.
    let to_all = Event::new("to all");
    server.hub().publish(to_all.clone()).unwrap();
    for (target, stream) in kept.iter().zip(&mut kept_streams) {
        assert_eq!(stream.next().data, "to all", "{target}");
    }
    assert!(kept_poll.answer().text().contains("to all"));
    let close_reasons = &server.hub().stats().close_reasons;
    let expired = close_reasons
        .iter()
        .find(|(why, _)| why.name() == "expired");
    assert_eq!(expired.unwrap().1, ended.len() as u64, "{close_reasons:?}");
}

#[test]
fn a_reload_that_removes_the_rights_of_every_client_ends_streams_without_a_token() {
    let file = TokenFile::new("* subscribe public/*\n");
    let server = server(file.config());
    let mut stream = Stream::subscribe(server.local_addr(), "/events/public/1");
    let mut bare = Stream::subscribe(server.local_addr(), "/events");
    file.write("A subscribe public/*\n");
    server.reload_tokens().unwrap();
    assert_eq!((stream.try_next(), bare.try_next()), (None, None));
    assert_eq!(server.hub().clients(), 0);
}

#[test]
fn the_client_id_of_a_stream_that_a_reload_ended_is_free() {
    let file = TokenFile::new("A subscribe *\nB subscribe *\nM publish *\n");
    let server = server(file.config());
    let address = server.local_addr();
    let mut old = Stream::subscribe(address, "/events?client_id=me&token=A");
    file.write("B subscribe *\nM publish *\n");
    server.reload_tokens().unwrap();
    assert_eq!(
        request(address, "POST", "/clients/me", &bearer("M"), "lost").status,
        404
    );
    let mut new = Stream::subscribe(address, "/events?client_id=me&token=B");
    assert_eq!(
        request(address, "POST", "/clients/me", &bearer("M"), "mine").status,
        200
    );
    assert_eq!((old.try_next(), new.next().data), (None, "mine".to_owned()));
}

#[test]
fn a_reload_ends_a_client_that_is_registered_but_has_no_stream_yet() {
    // The log line `joined` is reported after the client is registered and before its
    // stream begins; the report of this test blocks there.
    let file = TokenFile::new("A subscribe *\n");
    let (joined, go_on) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let held = (Arc::clone(&joined), Arc::clone(&go_on));
    let report = Report::new(move |_, line| {
        if line.to_string().contains("joined") && !held.0.swap(true, Ordering::SeqCst) {
            eventually("the test lets the stream begin", || {
                held.1.load(Ordering::SeqCst)
            });
        }
    });
    let server = server(Config {
        report,
        ..file.config()
    });
    let mut raw = Raw::connect(server.local_addr());
    raw.send("GET /events/a?token=A HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("the client is registered", || joined.load(Ordering::SeqCst));
    file.write("");
    server.reload_tokens().unwrap();
    assert_eq!(server.hub().clients(), 0);
    go_on.store(true, Ordering::SeqCst);
    // A client whose token was withdrawn before the permit is asked gets 401:
    // `hub::permit` tests it.
    assert_eq!(raw.head().status, 200);
    let stream = String::from_utf8(raw.rest()).unwrap();
    assert!(stream.contains("\"reason\":\"expired\""), "{stream}");
}

/// A token is added and removed again and again, while clients connect with it as fast as
/// they can. After each removal no client of the token is left: either the reload ends
/// the client, or the client, when it registers, sees that the tokens have changed.
#[test]
fn no_stream_and_no_poll_outlives_its_token_at_any_timing_of_the_reload() {
    const ROUNDS: usize = 300;
    let (with, without) = ("A subscribe *\nKEPT subscribe *\n", "KEPT subscribe *\n");
    let file = TokenFile::new(with);
    let server = server(Config {
        // Long, so that a check at a heartbeat cannot end a client that the reload has
        // missed.
        heartbeat: Duration::from_secs(600),
        ..file.config()
    });
    let address = server.local_addr();
    let mut kept = Stream::subscribe(address, "/events/x?token=KEPT");
    let (is_over, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let end = OnDrop(|| is_over.store(true, Ordering::SeqCst));
        for number in 0..6 {
            let (is_over, accepted) = (&is_over, &accepted);
            scope.spawn(move || {
                let connect = if number % 2 == 0 { poll } else { subscribe };
                let mut streams = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    accepted.fetch_add(connect(address, &mut streams), Ordering::SeqCst);
                }
                streams.iter_mut().for_each(|raw| drop(raw.rest()));
            });
        }
        let mut random = Random::new();
        for round in 0..ROUNDS {
            file.write(with);
            server.reload_tokens().unwrap();
            if round % 10 == 0 {
                let before = accepted.load(Ordering::SeqCst);
                eventually("a client is accepted", || {
                    accepted.load(Ordering::SeqCst) > before
                });
            }
            // A random delay, so that the reload happens at many different steps of a
            // registration.
            (0..random.below(10_000)).for_each(|_| std::hint::spin_loop());
            file.write(without);
            server.reload_tokens().unwrap();
            eventually(
                &format!("only the client with the kept token is left in round {round}"),
                || server.hub().clients() == 1,
            );
        }
        drop(end);
    });
    server.hub().publish(Event::new("still there")).unwrap();
    assert_eq!(kept.next().data, "still there");
    assert_eq!(server.hub().clients(), 1);
}

/// Opens a stream and keeps it. Returns 1 if the server accepted it, and 0 if not.
fn subscribe(address: SocketAddr, streams: &mut Vec<Raw>) -> usize {
    let mut raw = Raw::connect(address);
    raw.send("GET /events/x?token=A HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let is_accepted = raw.head().status == 200;
    if is_accepted {
        streams.push(raw);
    }
    if streams.len() > 20 {
        // Waits until a reload removes the token and so ends the oldest stream.
        streams.remove(0).rest();
    }
    is_accepted.into()
}

/// Sends a poll that waits until a reload removes the token. Returns 1 if the server
/// accepted it.
fn poll(address: SocketAddr, _: &mut Vec<Raw>) -> usize {
    let target = "/poll?topic=x&wait=60";
    let answer = request(address, "GET", target, &bearer("A"), "");
    (answer.status == 200).into()
}

#[test]
fn the_program_reloads_its_tokens_at_sighup() {
    let file = TokenFile::new(FILE);
    let arguments = ["--tokens", &file.name(), "--log", "debug"];
    let mut serving = serve(&arguments);
    let address = serving.address;
    let publish = |token: &str| {
        let fields = bearer(token);
        request(address, "POST", "/events/sensors/1", &fields, "x").status
    };
    let stream_of =
        |token: &str, target: &str| Stream::subscribe(address, &with_query(target, token));
    let mut lines = Vec::new();
    let mut hang_up = |serving: &Serving, part: &str| {
        serving.process.signal("HUP");
        lines.extend(lines_up_to(&serving.process.err, part));
    };
    let mut gone = stream_of(SUBSCRIBER, "/events/chat/1");
    let mut kept = stream_of(MASTER, "/events/chat/1");
    assert_eq!(publish(PUBLISHER), 200);

    file.write(format!(
        "{MASTER} publish,subscribe *\n{UNKNOWN_TOKEN} publsh *\n"
    ));
    hang_up(&serving, "the old tokens remain valid");
    assert_eq!(publish(PUBLISHER), 200);

    file.write(format!("{MASTER} publish,subscribe *\n"));
    hang_up(&serving, "tokens known: 1; streams ended: 1");
    assert_eq!([publish(PUBLISHER), publish(MASTER)], [401, 200]);
    gone.read_to("{\"type\":\"closed\",\"reason\":\"expired\"}\n\n");
    assert_eq!(gone.try_next(), None);
    let again = get(address, &with_query("/events/chat/1", SUBSCRIBER));
    assert_eq!(again.status, 401);
    let published = request(address, "POST", "/events/chat/1", &bearer(MASTER), "hello");
    assert_eq!(
        (published.status, kept.next().data),
        (200, "hello".to_owned())
    );

    // The log line of a malformed request quotes the request, but not the part that may
    // be a token.
    let malformed =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer {MASTER}\r\n\r\n");
    assert_eq!(Raw::connect(address).send(malformed).answer().status, 400);
    serving.process.signal("TERM");
    assert_eq!(serving.process.exit_code(), Some(0));
    lines.extend(all_lines(&serving.process.err));
    let wrong = lines
        .iter()
        .find(|line| line.contains("the old tokens remain valid"));
    let wrong = wrong.unwrap();
    assert!(
        wrong.contains("error SIGHUP: ") && wrong.contains("line 2:"),
        "{wrong}"
    );
    assert!(
        lines.iter().any(|line| line.contains("401 to POST")),
        "{lines:#?}"
    );
    for token in [
        PUBLISHER,
        SUBSCRIBER,
        MASTER,
        UNKNOWN_TOKEN,
        "%2BxF",
        "token=",
    ] {
        let leaked = lines.iter().find(|line| line.contains(token));
        assert_eq!(leaked, None, "{token}");
    }
}

#[test]
fn concurrent_reloads_never_leave_the_older_file_in_force() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path()).unwrap();
    let (path, next) = (scratch.path().join("tokens"), scratch.path().join("next"));
    // Many lines, so that reading the file takes some time.
    let filling = "filling subscribe a b c\n".repeat(2000);
    let write = |number: usize| {
        std::fs::write(&next, format!("{filling}token{number} subscribe *\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&next, mode).unwrap();
        std::fs::rename(&next, &path).unwrap();
    };
    write(0);
    let running = server(Config {
        access: AccessConfig {
            tokens: Some(path.clone()),
            ..AccessConfig::default()
        },
        ..config()
    });
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // ORDER: Relaxed: a flag that nothing else depends on.
        let _end = OnDrop(|| is_over.store(true, std::sync::atomic::Ordering::Relaxed));
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                running.reload_tokens().unwrap();
            }
        });
        for number in 1..100 {
            write(number);
            running.reload_tokens().unwrap();
            for _ in 0..3 {
                let field = format!("Authorization: Bearer token{number}\r\n");
                let answer = request(running.local_addr(), "GET", "/stats", &field, "");
                assert_eq!(answer.status, 200, "{number}: {answer:?}");
            }
        }
    });
}

// ---- events of topics that are not granted

#[test]
fn replay_recovery_counts_and_polls_contain_only_granted_topics() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let (address, hub) = (server.local_addr(), server.hub());
    let publish = |topic: &str| {
        let topic = Topic::new(topic).unwrap();
        hub.publish(Event::new(format!("of {topic}")).with_topic(topic.clone()))
            .unwrap()
    };
    let start = publish("chat/1").id.to_string();
    for topic in [
        "secret/1", "chat/", "chat", "news", "secret/2", "public/1", "Chat/1",
    ] {
        publish(topic);
    }
    let granted = ["of chat/1", "of chat/", "of news", "of public/1"];
    let asked = "topic=chat/*&topic=news&topic=public/*";
    let mut streams = Vec::new();
    for (cursor, fields) in [
        ("&last_event_id=earliest".to_owned(), String::new()),
        ("&last_event_id=1-0".to_owned(), String::new()),
        (String::new(), "Last-Event-ID: 1-0\r\n".to_owned()),
        (format!("&last_event_id={start}"), String::new()),
    ] {
        let case = format!("{cursor} {fields:?}");
        let expected = &granted[usize::from(cursor.contains(&start))..];
        let target = with_query(&format!("/events?{asked}{cursor}"), SUBSCRIBER);
        let mut stream = Stream::open(address, &target, &fields);
        assert_eq!(stream.next().name, "system");
        let recovery = stream.next().data;
        assert_eq!(
            number_after(&recovery, "\"replayed\":"),
            expected.len() as u64,
            "{case}"
        );
        for data in expected {
            assert_eq!(stream.next().data, *data, "{case}");
        }
        streams.push(stream);
        let target = format!("/poll?{asked}{cursor}");
        let fields = format!("{fields}{}", bearer(SUBSCRIBER));
        let answer = request(address, "GET", &target, &fields, "");
        let text = answer.text();
        assert_eq!(
            text.matches("\"data\":\"of ").count(),
            expected.len(),
            "{case}: {text}"
        );
        assert!(
            !text.contains("secret") && !text.contains("of chat\""),
            "{case}: {text}"
        );
    }
    // The same holds for events that are published now.
    for topic in ["secret/1", "chat", "news/1", "news"] {
        publish(topic);
    }
    for mut stream in streams {
        assert_eq!(stream.next().data, "of news");
    }
}

#[test]
fn an_event_for_one_client_reaches_the_current_owner_of_the_id_and_is_not_kept() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let address = server.local_addr();
    let to_me = |data: &str| {
        let answer = request(address, "POST", "/clients/me", &bearer(MASTER), data);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let target = with_query("/events/chat/1?client_id=me", SUBSCRIBER);
    let mut mine = Stream::subscribe(address, &target);
    to_me("private");
    assert_eq!(mine.next().data, "private");
    // No other client can take the client id while it is in use. Events for one client
    // are not kept.
    let refused = get(address, "/events/chat/1?client_id=me");
    assert_eq!((refused.status, server.hub().clients()), (401, 1));
    let target = "/events/public/1?client_id=me&last_event_id=earliest";
    assert_eq!(get(address, target).status, 403);
    to_me("private, too");
    assert_eq!(mine.next().data, "private, too");
    drop(mine);
    eventually("the client id is free", || {
        // The server notices the closed connection when it writes to it.
        server.hub().publish(Event::new("x")).unwrap();
        server.hub().clients() == 0
    });
    let mut theirs = Stream::subscribe(address, target);
    assert_eq!(theirs.next().name, "recovery");
    to_me("for the client that is here now");
    while theirs.next().data != "for the client that is here now" {}
    assert!(!String::from_utf8_lossy(&theirs.bytes).contains("private"));
}

// ---- client ids in use

/// Returns the header field that the trusted proxy adds for a client at this address.
fn from(address: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

/// Starts a server behind a proxy. Its file is usually `IDS_FILE`.
fn with_proxy(file: &TokenFile, heartbeat: Duration) -> Running {
    server(Config {
        trust_proxy: vec!["127.0.0.1".parse().unwrap()],
        heartbeat,
        ..file.config()
    })
}

/// A and B may subscribe to all topics, and every client to `public/*`.
const IDS_FILE: &str = "A subscribe *\nB subscribe *\nM publish *\n* subscribe public/*\n";

/// An hour: during a test no heartbeat is sent, so the server does not notice a closed
/// connection.
const NO_HEARTBEAT: Duration = Duration::from_secs(3600);

#[test]
fn a_client_id_in_use_can_be_taken_over_with_the_same_credential_only() {
    let file = TokenFile::new(IDS_FILE);
    let (a, b, wrong) = (bearer("A"), bearer("B"), bearer("wrong"));
    let cookie = "Cookie: tiny_sse_token=A\r\n";
    let one = from("192.0.2.1");
    let two = from("192.0.2.2");
    let (home, moved) = (from("2001:db8:0:1::1"), from("2001:db8:0:1:9::2"));
    let elsewhere = from("2001:db8:0:2::1");
    #[rustfmt::skip]
    let rows: &[(&[&str], &[&str], bool)] = &[
        // The same token, in any part of the request and from any address.
        (&[&a, &one], &[&a, &one], true),
        (&[&a, &one], &[cookie, &two], true),
        (&[cookie, &one], &[&a, &elsewhere], true),
        (&[&a], &[&a, &one], true),
        (&[&a], &[&a], true),
        // Another token, an unknown token, no token.
        (&[&a, &one], &[&b, &one], false),
        (&[&a, &one], &[&wrong, &one], false),
        (&[&a, &one], &[&one], false),
        (&[&one], &[&a, &one], false),
        // Without a token, the same address, or the same /64.
        (&[&one], &[&one], true),
        (&[&one], &[&wrong, &one], true),
        (&[&wrong, &one], &[&one], true),
        (&[&one], &[&two], false),
        (&[&one], &[&home], false),
        (&[&home], &[&moved], true),
        (&[&home], &[&elsewhere], false),
        (&[&from("::ffff:192.0.2.1")], &[&one], true),
        // Two requests without a token and without an address are never the same client.
        (&[], &[], false),
        (&["X-Forwarded-For: unknown\r\n"], &["X-Forwarded-For: unknown\r\n"], false),
        (&["X-Real-IP: 192.0.2.1\r\n"], &["X-Real-IP: 192.0.2.1\r\n"], false),
        (&[], &[&one], false),
        (&[&one], &[], false),
        (&[&from("127.0.0.1")], &[], false),
    ];
    for (first, second, is_same) in rows {
        for target in [
            "/events/public/1",
            "/poll?topic=public/1",
            "/poll?topic=public/1&wait=60",
        ] {
            let server = with_proxy(&file, NO_HEARTBEAT);
            let address = server.local_addr();
            let first_target = "/events/public/1?client_id=alice";
            let mut alice = Stream::open(address, first_target, &first.concat());
            alice.next();
            let separator = if target.contains('?') { '&' } else { '?' };
            let target = format!("{target}{separator}client_id=alice");
            let case = format!("{target} of {second:?} after {first:?}");
            let mut raw = Raw::connect(address);
            let fields = second.concat();
            raw.send(format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
            ));
            if *is_same {
                if !target.contains("wait=60") {
                    assert_eq!(raw.head().status, 200, "{case}");
                }
                // A poll that does not wait does not take over the client id.
                if !target.contains("/poll?topic=public/1&client") {
                    assert_eq!(alice.try_next(), None, "{case}");
                }
                continue;
            }
            let answer = raw.answer();
            assert_eq!(answer.status, 403, "{case}: {answer:?}");
            for part in ["client_id \\\"alice\\\" is in use", "token", "address"] {
                assert!(answer.text().contains(part), "{case}: {}", answer.text());
            }
            let to_alice = request(address, "POST", "/clients/alice", &bearer("M"), "hers");
            assert_eq!(to_alice.status, 200, "{case}");
            assert_eq!(alice.next().data, "hers", "{case}");
            assert_eq!(server.hub().clients(), 1, "{case}");
        }
    }
}

#[test]
fn a_client_id_that_is_no_longer_in_use_can_be_taken_by_any_client() {
    let file = TokenFile::new(IDS_FILE);
    let server = with_proxy(&file, Duration::from_millis(20));
    let address = server.local_addr();
    let mut next = None;
    for fields in [
        bearer("A"),
        bearer("B"),
        from("192.0.2.1"),
        from("192.0.2.2"),
    ] {
        // Closes the connection; the server notices within two heartbeats.
        drop(next.take());
        eventually("the client id is free", || {
            let target = "/events/public/1?client_id=alice";
            let mut raw = Raw::connect(address);
            raw.send(format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
            ));
            let head = raw.head();
            assert!([200, 403].contains(&head.status), "{head:?}");
            next = (head.status == 200).then_some(raw);
            next.is_some()
        });
    }
}

#[test]
fn a_generated_client_id_is_protected_like_a_chosen_one() {
    let file = TokenFile::new(IDS_FILE);
    let server = with_proxy(&file, NO_HEARTBEAT);
    let address = server.local_addr();
    let mut alice = Stream::open(address, "/events/public/1", &from("192.0.2.1"));
    let welcome = alice.next().data;
    let id = welcome.split("\"client_id\":\"").nth(1).unwrap();
    let id = id.split('"').next().unwrap();
    let target = format!("/events/public/1?client_id={id}");
    let answer = request(address, "GET", &target, &from("192.0.2.2"), "");
    assert_eq!(answer.status, 403, "{answer:?}");
    let _again = Stream::open(address, &target, &from("192.0.2.1"));
    assert_eq!(alice.try_next(), None);
}

#[test]
fn a_reload_that_removes_a_token_frees_the_client_ids_of_its_streams() {
    let file = TokenFile::new("GONE subscribe public/*\nKEPT subscribe *\n* subscribe public/*\n");
    let server = with_proxy(&file, NO_HEARTBEAT);
    let address = server.local_addr();
    // Both streams continue after the reload, because every client may subscribe to these
    // topics.
    let open = |id: &str, token: &str| {
        let target = format!("/events/public/1?client_id={id}&token={token}");
        let mut stream = Stream::open(address, &target, &from("192.0.2.1"));
        stream.next();
        stream
    };
    let (mut alice, mut bob) = (open("alice", "GONE"), open("bob", "KEPT"));
    let ask = |id: &str| {
        let target = format!("/events/public/1?client_id={id}&token=NEW");
        let mut raw = Raw::connect(address);
        let fields = from("192.0.2.2");
        raw.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
        ));
        (raw.head().status, raw)
    };
    assert_eq!((ask("alice").0, ask("bob").0), (403, 403));
    file.write("NEW subscribe *\nKEPT subscribe *\n* subscribe public/*\n");
    server.reload_tokens().unwrap();
    assert_eq!(server.hub().clients(), 2);
    let (bobs, alices) = (ask("bob"), ask("alice"));
    assert_eq!((bobs.0, alices.0), (403, 200));
    assert_eq!(alice.try_next(), None);
    server.hub().publish(Event::new("still")).unwrap();
    assert_eq!(bob.next().data, "still");
}

#[test]
fn a_hub_gives_a_client_id_in_use_to_an_equal_credential_only() {
    let config = Config {
        max_clients: 1,
        ..config()
    };
    let params = |credential: Option<u64>| Subscribe {
        client_id: Some("alice".parse().unwrap()),
        permit: credential.map(Permit::new),
        ..Subscribe::default()
    };
    for (first, second, outcome) in [
        (None, None, Ok(())),
        (Some(1), Some(1), Ok(())),
        (Some(1), Some(2), Err(SubscribeError::NameTaken)),
        (Some(1), None, Err(SubscribeError::NameTaken)),
        (None, Some(1), Err(SubscribeError::NameTaken)),
        (None, Some(0), Err(SubscribeError::NameTaken)),
    ] {
        let hub = Hub::new(config.clone()).unwrap();
        let held = hub.subscribe(params(first)).unwrap();
        let wait = Duration::ZERO;
        let polled = hub.poll(params(second), wait).map(drop);
        assert_eq!(polled, outcome, "{first:?} {second:?}");
        // The limit of clients is reached too, but the client id is checked first.
        let waited = hub
            .poll_while(params(second), NO_HEARTBEAT, || false)
            .map(drop);
        assert_eq!(waited, outcome, "{first:?} {second:?}");
        let subscribed = hub.subscribe(params(second)).map(drop);
        assert_eq!(subscribed, outcome, "{first:?} {second:?}");
        drop(held);
        // Every client may take a client id that is not in use.
        drop(hub.subscribe(params(second)).unwrap());
    }
}

#[test]
fn a_guard_decides_which_requests_come_from_the_same_client() {
    let bound = Server::bind("127.0.0.1:0", config()).unwrap();
    let bound = bound.guard(|request, _| {
        let verdict = match request.field("x-verdict").ok().flatten() {
            Some("allow") => Verdict::Allow,
            Some("narrow") => Verdict::Narrow([Pattern::all()].into_iter().collect()),
            _ => Verdict::AsConfigured,
        };
        match request.field("x-user").ok().flatten() {
            Some(user) => verdict.known_as(user),
            None => verdict,
        }
    });
    let own = |text: &str| [Pattern::new(text).unwrap()].into_iter().collect();
    let running = bound.spawn_with(move |request, api| match request.path() {
        "/mine" => api.stream_of(&request, own("mine")),
        _ => api.answer(request),
    });
    let server = running.unwrap();
    let address = server.local_addr();
    for path in ["/events/a", "/mine"] {
        for verdict in ["", "X-Verdict: allow\r\n", "X-Verdict: narrow\r\n"] {
            let fields = |user: &str| format!("{verdict}{user}");
            let target = format!("{path}?client_id=me");
            let (one, two) = ("X-User: one\r\n", "X-User: two\r\n");
            let mut mine = Stream::open(address, &target, &fields(one));
            for other in [two, "", "X-User: One\r\n"] {
                let answer = request(address, "GET", &target, &fields(other), "");
                assert_eq!(answer.status, 403, "{target} {verdict:?} {other:?}");
            }
            let again = Stream::open(address, &target, &fields(one));
            mine.next();
            assert_eq!(mine.try_next(), None, "{target} {verdict:?}");
            server.hub().disconnect("me");
            drop(again);
        }
    }
    // `known_as` does not change what the verdict permits.
    let answer = request(address, "POST", "/events", "X-User: one\r\n", "x");
    assert_eq!(answer.status, 200);
}

// ---- refusals before the body is read

const MIB: usize = 1 << 20;

/// The head of a request to publish; `fields` announces the body.
fn publish_head(fields: &str) -> String {
    format!("POST /events/news HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[test]
fn a_request_that_may_not_publish_is_refused_before_its_body_arrives() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let length = format!("Content-Length: {MIB}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let expect = "Expect: 100-continue\r\n";
    let (wrong, not_granted) = (bearer(UNKNOWN_TOKEN), bearer(SUBSCRIBER));
    for (fields, status) in [
        (format!("{length}{expect}"), 401),
        (format!("{length}{expect}{wrong}"), 401),
        (format!("{length}{expect}{not_granted}"), 403),
        (format!("{chunked}{expect}"), 401),
        (length.clone(), 401),
        (format!("{length}{wrong}"), 401),
        (chunked.to_owned(), 401),
        (format!("{length}Origin: http://elsewhere.test\r\n"), 403),
    ] {
        let mut raw = Raw::connect(server.local_addr());
        // Sends a few bytes of the body, and no more before the answer has arrived.
        let beginning = if fields.contains("Expect") {
            ""
        } else {
            "8\r\n"
        };
        raw.send(publish_head(&fields)).send(beginning);
        let answer = raw.answer();
        assert_eq!(answer.status, status, "{fields:?}: {answer:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{fields:?}");
        assert!(raw.is_closed(), "{fields:?}");
    }
    assert_eq!(server.hub().stats().events, 0);
}

#[test]
fn the_refusal_reaches_a_client_that_sends_its_whole_body_before_it_reads() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let length = format!("Content-Length: {MIB}\r\n");
    for round in 0..20 {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(publish_head(&length));
        // Best effort: the server may answer and close the connection before it has all
        // of the body.
        let body = vec![b'x'; MIB];
        let pieces = body.chunks(16 * 1024 + round);
        let _ = pieces
            .map(|piece| raw.socket.write_all(piece))
            .find(Result::is_err);
        assert_eq!(raw.answer().status, 401, "round {round}");
    }
    // The bytes after the head are the unread body; they are not executed as a request.
    let smuggled = "POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nAuthorization: Bearer Master_c0ffee\r\n\r\nx";
    let mut raw = Raw::connect(server.local_addr());
    let length = format!("Content-Length: {}\r\n", smuggled.len());
    raw.send(publish_head(&length)).send(smuggled);
    assert_eq!(raw.answer().status, 401);
    assert!(raw.is_closed());
    assert_eq!(server.hub().stats().events, 0);
}

#[test]
fn the_right_to_publish_is_checked_before_and_after_the_body_is_read() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let publish = |raw: &mut Raw| {
        let fields = format!(
            "Content-Length: 5\r\nExpect: 100-continue\r\n{}",
            bearer(PUBLISHER)
        );
        raw.send(publish_head(&fields));
        let go_on = raw.head();
        assert_eq!(go_on.status, 100, "{go_on:?}");
    };
    let mut raw = Raw::connect(server.local_addr());
    publish(&mut raw);
    assert_eq!(raw.send("hello").answer().status, 200);
    // The token is removed after `100 Continue` and before the body arrives.
    publish(&mut raw);
    file.write(format!("{MASTER} publish *\n"));
    server.reload_tokens().unwrap();
    assert_eq!(raw.send("hello").answer().status, 401);
    assert_eq!(server.hub().stats().events, 1);
}

#[test]
fn a_refused_request_without_a_body_leaves_the_connection_open() {
    let file = TokenFile::new(FILE);
    let server = server(file.config());
    let mut raw = Raw::connect(server.local_addr());
    for (target, status) in [("/events/chat/1", 401), ("/stats", 401), ("/health", 200)] {
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(raw.answer().status, status, "{target}");
    }
    raw.send("POST /events/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(raw.answer().status, 401);
    raw.send("HEAD /events/chat/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.head().status, 401);
    raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
}

// ---- a guard

/// Starts a server with a guard that obeys the field `X-Verdict`, and with routes that
/// ask `Api::permit` for the action that they perform.
fn guarded(bind: &str, config: Config) -> Running {
    let bound = Server::bind(bind, config).unwrap();
    let hub = bound.hub().clone();
    let patterns = |text: &str| [Pattern::new(text).unwrap()].into_iter().collect();
    let bound = bound.guard(
        move |request, _| match request.field("x-verdict").ok().flatten() {
            Some("allow") => Verdict::Allow,
            Some("refuse") => Verdict::Refuse(Response::error(418, "no tea").with("X-Tea", "no")),
            Some("panic") => panic!("a guard that panics, for a test"),
            Some("narrow to nothing") => Verdict::Narrow(tiny_sse::Patterns::default()),
            Some(narrow) => Verdict::Narrow(patterns(narrow)),
            None => Verdict::AsConfigured,
        },
    );
    let running = bound.spawn_with(move |request, api| {
        let bell = Topic::new("own/bell").unwrap();
        let all = [Pattern::all()].into_iter().collect();
        let action = match request.path() {
            "/ring" => Action::Publish(Some(&bell)),
            "/to-all" => Action::Publish(None),
            "/read-all" => Action::Subscribe(&all),
            "/client" => Action::Client("me"),
            "/stream" => return api.stream_of(&request, patterns("own/*")),
            "/preflight" => return api.preflight(&request, "POST, OPTIONS"),
            "/shared" => return api.share(&request, Response::text(200, "x")),
            _ => return api.answer(request),
        };
        match api.permit(&request, &action) {
            Ok(()) if request.path() == "/ring" => {
                hub.publish(Event::new("ding").with_topic(bell)).unwrap();
                Response::new(204)
            }
            Ok(()) => Response::new(204),
            Err(refusal) => refusal,
        }
    });
    running.unwrap()
}

#[test]
fn a_guard_can_allow_narrow_or_refuse_and_otherwise_the_tokens_decide() {
    let server = guarded(
        "0.0.0.0:0",
        Config {
            access: AccessConfig {
                publish_token: token("P"),
                subscribe_token: token("S"),
                ..AccessConfig::default()
            },
            ..config()
        },
    );
    let address = ([127, 0, 0, 1], server.local_addr().port()).into();
    let asked = [
        ("POST", "/events"),
        ("POST", "/events/a/1"),
        ("DELETE", "/clients/nobody"),
        ("GET", "/events/b/1"),
        ("GET", "/poll?topic=b/1"),
        ("GET", "/stats"),
        ("GET", "/stats?clients=1"),
        ("POST", "/ring"),
        ("POST", "/to-all"),
        ("GET", "/read-all"),
        ("POST", "/client"),
        ("GET", "/stream"),
    ];
    #[rustfmt::skip]
    let rows: [(&str, [u16; 12]); 9] = [
        ("", [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 401]),
        ("Authorization: Bearer P\r\n", [200, 200, 404, 403, 403, 403, 200, 204, 204, 403, 204, 403]),
        ("Authorization: Bearer S\r\n", [403, 403, 403, 200, 200, 200, 403, 403, 403, 204, 403, 200]),
        ("X-Verdict: allow\r\n", [200, 200, 404, 200, 200, 200, 200, 204, 204, 204, 204, 200]),
        ("X-Verdict: refuse\r\nAuthorization: Bearer P\r\n", [418; 12]),
        ("X-Verdict: a/*\r\n", [403, 200, 403, 200, 200, 403, 403, 403, 403, 403, 403, 200]),
        ("X-Verdict: own/bell\r\n", [403, 403, 403, 200, 200, 403, 403, 204, 403, 403, 403, 200]),
        ("X-Verdict: *\r\n", [200, 200, 404, 200, 200, 200, 200, 204, 204, 204, 204, 200]),
        ("X-Verdict: narrow to nothing\r\nAuthorization: Bearer P\r\n", [403, 403, 403, 200, 200, 403, 403, 403, 403, 403, 403, 200]),
    ];
    for (fields, expected) in rows {
        for ((method, target), status) in asked.iter().zip(expected) {
            let answer = request(address, method, target, fields, "x");
            assert_eq!(
                answer.status, status,
                "{fields:?} {method} {target}: {answer:?}"
            );
            // A page may read every refusal, also the guard's. The 204s are answers of
            // the handler, which adds no such field.
            let origins = answer
                .head
                .matches("Access-Control-Allow-Origin: *")
                .count();
            let expected = usize::from(status != 204);
            assert_eq!(
                origins, expected,
                "{fields:?} {method} {target}: {answer:?}"
            );
            assert_eq!(answer.field("x-tea"), (status == 418).then_some("no"));
        }
    }
    // A token in the query is accepted for streams only, also by the handler's own
    // routes.
    assert_eq!(get(address, "/stream?token=S").status, 200);
    assert_eq!(get(address, "/read-all?token=S").status, 401);
    assert_eq!(post(address, "/ring?token=P", "").status, 401);
}

#[test]
fn routes_of_the_handler_check_origins_like_the_built_in_endpoints() {
    let server = guarded("127.0.0.1:0", config());
    let own = "Origin: http://localhost\r\n";
    let other = "Origin: http://evil.test\r\n";
    for (method, target, from_own, from_other) in [
        ("POST", "/ring", 204, 403),
        ("POST", "/client", 204, 403),
        ("POST", "/read-all", 204, 403),
        ("GET", "/read-all", 204, 204),
        // This GET publishes, so it is refused as well.
        ("GET", "/ring", 204, 403),
        ("GET", "/stream", 200, 200),
        ("GET", "/shared", 200, 200),
        ("OPTIONS", "/preflight", 204, 204),
    ] {
        // `Verdict::Allow` of the guard does not switch off the check of the origin.
        for (fields, status) in [(own, from_own), (other, from_other)] {
            let fields = format!("{fields}X-Verdict: allow\r\n");
            let answer = request(server.local_addr(), method, target, &fields, "");
            assert_eq!(
                answer.status, status,
                "{method} {target} {fields:?}: {answer:?}"
            );
        }
    }
    let preflight = request(server.local_addr(), "OPTIONS", "/preflight", other, "");
    for (name, value) in [
        ("allow", "POST, OPTIONS"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(preflight.field(name), Some(value), "{preflight:?}");
    }
    let shared = request(server.local_addr(), "GET", "/shared", other, "");
    assert_eq!(shared.field("access-control-allow-origin"), Some("*"));
}

#[test]
fn a_client_that_a_guard_narrows_gets_only_the_topics_of_the_verdict() {
    let server = guarded("127.0.0.1:0", config());
    let (address, hub) = (server.local_addr(), server.hub());
    let publish = |topic: &str| {
        let topic = Topic::new(topic).unwrap();
        hub.publish(Event::new(topic.as_str()).with_topic(topic.clone()))
            .unwrap();
    };
    ["secret/1", "mine/1"].into_iter().for_each(publish);
    let verdict = "X-Verdict: mine/*\r\n";
    for target in ["/events/*", "/events/secret/1", "/events", "/stream"] {
        let target = format!("{target}?last_event_id=earliest");
        let mut stream = Stream::open(address, &target, verdict);
        assert_eq!(
            [stream.next().name, stream.next().name],
            ["system", "recovery"]
        );
        assert_eq!(stream.next().data, "mine/1", "{target}");
        let topics = get(address, "/stats?clients=1");
        assert!(
            topics.text().contains("\"topics\":[\"mine/*\"]"),
            "{topics:?}"
        );
    }
    let answer = request(
        address,
        "GET",
        "/poll?topic=*&last_event_id=earliest",
        verdict,
        "",
    );
    assert!(
        answer.text().contains("mine/1") && !answer.text().contains("secret"),
        "{answer:?}"
    );
    // A reload does not end the stream: its topics come from the guard, not from a token.
    let mut stream = Stream::open(address, "/events/secret/1", verdict);
    stream.next();
    server.reload_tokens().unwrap();
    ["secret/2", "mine/2"].into_iter().for_each(publish);
    assert_eq!(stream.next().data, "mine/2");
}

#[test]
fn a_guard_that_panics_is_answered_with_500_and_nothing_is_published() {
    let server = guarded("127.0.0.1:0", config());
    let address = server.local_addr();
    let verdict = "X-Verdict: panic\r\n";
    for (method, target) in [
        ("POST", "/events"),
        ("POST", "/ring"),
        ("GET", "/events/a"),
        ("GET", "/poll"),
        ("GET", "/stats"),
        ("DELETE", "/clients/me"),
    ] {
        for body in ["", "x"] {
            let answer = request(address, method, target, verdict, body);
            assert_eq!(answer.status, 500, "{method} {target}: {answer:?}");
            assert_eq!(answer.field("connection"), Some("close"));
        }
    }
    assert_eq!(
        (server.hub().stats().events, server.hub().clients()),
        (0, 0)
    );
    assert_eq!(post(address, "/events", "x").status, 200);
}

// ---- the six example uses

#[test]
fn the_six_example_uses_need_the_rights_to_their_topics() {
    let file = TokenFile::new(
        "CHAT publish,subscribe demo/chat/*\n\
         UPLOAD publish demo/process/*\n\
         ALERT publish,subscribe demo/notifications\n\
         ALL publish,subscribe *\n",
    );
    let serving = serve(&["demo", "--tokens", &file.name()]);
    let message = r#"{"user":"u","text":"t"}"#;
    #[rustfmt::skip]
    let rows: [(&str, &str, &str, [u16; 5]); 14] = [
        // The statuses without a token, and with each of the four tokens.
        ("POST", "/api/chat/room/1/messages", message, [401, 200, 403, 403, 200]),
        ("POST", "/api/notifications", message, [401, 403, 403, 200, 200]),
        ("POST", "/api/process", "file", [401, 403, 200, 403, 200]),
        // With `client_id` the job publishes to one client, so it needs that right.
        ("POST", "/api/process?client_id=nobody", "file", [401, 403, 403, 403, 404]),
        ("POST", "/events/demo/chat/1", "x", [401, 200, 403, 403, 200]),
        ("GET", "/api/chat/room/1", "", [401, 200, 403, 403, 200]),
        ("HEAD", "/api/chat/room/1", "", [401, 200, 403, 403, 200]),
        ("GET", "/api/notifications", "", [401, 403, 403, 200, 200]),
        ("GET", "/api/feed/live", "", [401, 403, 403, 403, 200]),
        ("GET", "/api/metrics", "", [401, 403, 403, 403, 200]),
        ("GET", "/api/stocks/stream", "", [401, 403, 403, 403, 200]),
        ("GET", "/api/process/0123456789abcdef", "", [401, 403, 403, 403, 200]),
        ("GET", "/stats", "", [401, 403, 403, 403, 200]),
        ("OPTIONS", "/api/notifications", "", [204; 5]),
    ];
    for (method, target, body, expected) in rows {
        let tokens = ["", "CHAT", "UPLOAD", "ALERT", "ALL"];
        for (token, status) in tokens.into_iter().zip(expected) {
            let fields = if token.is_empty() {
                String::new()
            } else {
                bearer(token)
            };
            let answer = request(serving.address, method, target, &fields, body);
            assert_eq!(
                answer.status, status,
                "{method} {target} {token}: {answer:?}"
            );
        }
    }
    // The token may be in the query of a stream, but not of a request that publishes.
    assert_eq!(get(serving.address, "/api/feed/live?token=ALL").status, 200);
    let posted = post(serving.address, "/api/notifications?token=ALL", message);
    assert_eq!(posted.status, 401);
}
