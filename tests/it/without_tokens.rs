//! A server without tokens: what a client may do depends on which clients can reach the
//! server. The same rules apply in a build without the feature `access`.

use tiny_sse::{Config, Hub, Pattern, Permit, Server, Subscribe};

use crate::kit::{Raw, Stream, config, open, proxied, request, server};

/// The requests that are sent to each server: publish to all clients and to a topic, end
/// a stream, list the clients, subscribe with a chosen client id, subscribe, poll, get
/// the numbers, and subscribe and poll without a topic.
const REQUESTS: [(&str, &str); 10] = [
    ("POST", "/events"),
    ("POST", "/events/a"),
    ("DELETE", "/clients/nobody"),
    ("GET", "/stats?clients=1"),
    ("GET", "/events/a?client_id=me"),
    ("GET", "/events/a"),
    ("GET", "/poll?topic=*"),
    ("GET", "/stats"),
    ("GET", "/events"),
    ("GET", "/poll"),
];

/// The statuses if the client may do everything.
const ALL: [u16; 10] = [200, 200, 404, 200, 200, 200, 200, 200, 200, 200];
/// The statuses if the client may only read.
const READ: [u16; 10] = [403, 403, 403, 403, 403, 200, 200, 200, 200, 200];
/// The statuses of a client on a public server: only the events without a topic.
const NO_TOPIC: [u16; 10] = [403, 403, 403, 403, 403, 403, 403, 403, 200, 200];
/// The statuses on a public server with `--public a`.
const TOPIC_A: [u16; 10] = [403, 403, 403, 403, 200, 200, 403, 403, 200, 200];
/// The same for a page of another site, which may not choose a client id.
const PAGE_A: [u16; 10] = [403, 403, 403, 403, 403, 200, 403, 403, 200, 200];

fn public() -> Config {
    let public = [Pattern::new("a").unwrap()].into_iter().collect();
    Config { public, ..config() }
}

#[test]
fn without_tokens_the_bind_address_the_proxy_and_the_options_decide_what_a_client_may_do() {
    let (here, there) = ("127.0.0.1:0", "0.0.0.0:0");
    let own = "Host: localhost\r\n";
    let through = |client: &str| format!("{own}X-Forwarded-For: {client}\r\n");
    let page = |origin: &str| format!("{own}Origin: {origin}\r\n");
    #[rustfmt::skip]
    let rows: [(&str, Config, &str, String, [u16; 10]); 18] = [
        ("local", config(), here, own.into(), ALL),
        ("local", config(), here, page("http://localhost"), ALL),
        ("local", config(), here, page("http://evil.test"), READ),
        ("local", config(), here, page("null"), READ),
        ("local", config(), here, format!("{own}Sec-Fetch-Site: cross-site\r\n"), READ),
        ("local", config(), here, format!("{own}Referer: http://evil.test/\r\n"), READ),
        // DNS rebinding: the name of another site resolves to this server.
        ("local", config(), here, "Host: evil.test\r\n".into(), READ),
        ("local", config(), here, "Host: evil.test\r\nOrigin: http://evil.test\r\n".into(), READ),
        ("behind a proxy", proxied(), here, through("127.0.0.1"), NO_TOPIC),
        ("behind a proxy", proxied(), here, through("192.0.2.7"), NO_TOPIC),
        ("behind a proxy", proxied(), here, own.into(), NO_TOPIC),
        ("public", config(), there, own.into(), NO_TOPIC),
        ("public", config(), there, page("http://evil.test"), NO_TOPIC),
        ("topic a is public", public(), there, own.into(), TOPIC_A),
        ("topic a is public", public(), there, page("http://evil.test"), PAGE_A),
        ("open", open(), there, own.into(), ALL),
        ("open", open(), here, "Host: box.example.org\r\n".into(), ALL),
        ("open", open(), there, page("http://evil.test"), READ),
    ];
    for (name, config, bind, fields, expected) in rows {
        let server = Server::bind(bind, config).unwrap().spawn().unwrap();
        let mut address = server.local_addr();
        address.set_ip([127, 0, 0, 1].into());
        for ((method, target), status) in REQUESTS.iter().zip(expected) {
            let mut raw = Raw::connect(address);
            raw.send(format!(
                "{method} {target} HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n{fields}\r\nx"
            ));
            let answer = raw.answer();
            let case = format!("{name} {method} {target} {fields:?}: {answer:?}");
            assert_eq!(answer.status, status, "{case}");
            // Each answer, also a refusal, may be read by pages of all origins.
            let shared = answer.field("access-control-allow-origin");
            assert_eq!(shared, Some("*"), "{case}");
            if status == 403 {
                let text = answer.text();
                assert!(
                    text.contains("may not") || text.contains("--open"),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn a_token_in_a_request_is_ignored_if_the_server_has_no_tokens() {
    let server = Server::bind("0.0.0.0:0", config())
        .unwrap()
        .spawn()
        .unwrap();
    let mut address = server.local_addr();
    address.set_ip([127, 0, 0, 1].into());
    for fields in [
        "Authorization: Bearer abc\r\n",
        "Authorization: Bearer abc\r\nAuthorization: Bearer abc\r\n",
        "Cookie: tiny_sse_token=abc\r\n",
    ] {
        for (method, target, status) in [
            ("GET", "/events?token=abc", 200),
            ("GET", "/events/a?token=abc", 403),
            ("POST", "/events/a", 403),
        ] {
            let answer = request(address, method, target, fields, "");
            assert_eq!(answer.status, status, "{method} {fields:?}: {answer:?}");
            assert_eq!(answer.field("www-authenticate"), None);
        }
    }
}

#[test]
fn only_a_client_of_the_same_address_may_take_over_a_client_id_in_use() {
    let server = server(Config {
        public: public().public,
        ..proxied()
    });
    let address = server.local_addr();
    let from = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let target = "/events/a?client_id=alice";
    let mut alice = Stream::open(address, target, &from("192.0.2.1"));
    alice.next();
    let answer = request(address, "GET", target, &from("192.0.2.2"), "");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.text().contains("is in use"), "{answer:?}");
    let _again = Stream::open(address, target, &from("192.0.2.1"));
    assert_eq!(alice.try_next(), None);
}

#[test]
fn only_a_subscription_with_the_same_permit_identity_may_take_over_a_client_id_in_use() {
    let hub = Hub::new(config()).unwrap();
    let params = |identity: u64| Subscribe {
        client_id: Some("alice".parse().unwrap()),
        permit: Some(Permit::new(identity)),
        ..Subscribe::default()
    };
    let first = hub.subscribe(params(1)).unwrap();
    assert!(hub.subscribe(params(2)).is_err());
    let second = hub.subscribe(params(1)).unwrap();
    assert_eq!(hub.clients(), 1);
    drop((first, second));
}
