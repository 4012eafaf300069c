//! The files that are compiled into the program: the console page, which is for browsers
//! and can be switched off, and the client scripts, which pages of every origin may load.

use std::net::SocketAddr;

use crate::kit::{Answer, config, get, request, server};

/// The `Accept` field that a browser sends when it loads a page.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

#[track_caller]
fn visit(address: SocketAddr, fields: &str) -> Answer {
    request(address, "GET", "/", fields, "")
}

#[track_caller]
fn assert_is_index(answer: &Answer, row: &str) {
    assert_eq!(
        (answer.status, answer.field("content-type")),
        (200, Some("text/plain; charset=utf-8")),
        "{row}"
    );
    assert!(answer.text().starts_with("tiny-sse "), "{row}");
    assert_eq!(answer.field("content-security-policy"), None, "{row}");
}

/// These tests need the feature.
#[cfg(feature = "console")]
mod compiled_in {
    use super::*;
    use crate::kit::Raw;
    use crate::program::serve;
    use tiny_sse::{Config, Console, Running, Server};

    fn server_with(console: Console) -> Running {
        server(Config {
            console,
            ..config()
        })
    }

    #[test]
    fn without_a_console_browsers_get_the_plain_text_index_too() {
        let server = server_with(Console::Off);
        let address = server.local_addr();
        let answer = visit(address, BROWSER);
        assert_is_index(&answer, "off");
        assert_eq!(answer.field("vary"), None);
        for path in [
            "/console.js",
            "/console.css",
            "/demo.js",
            "/index.html",
            "/console/",
        ] {
            for method in ["GET", "HEAD", "OPTIONS", "POST"] {
                let answer = request(address, method, path, "", "");
                assert_eq!(answer.status, 404, "{method} {path}");
            }
        }
    }

    /// The path, the content type, and the file in `src/console`.
    const FILES: [(&str, &str, &str); 6] = [
        ("/", "text/html; charset=utf-8", "index.html"),
        (
            "/console.js",
            "text/javascript; charset=utf-8",
            "console.js",
        ),
        ("/console.css", "text/css; charset=utf-8", "console.css"),
        ("/demo.js", "text/javascript; charset=utf-8", "demo.js"),
        (
            "/sse-client.js",
            "text/javascript; charset=utf-8",
            "sse-client.js",
        ),
        (
            "/use-sse.js",
            "text/javascript; charset=utf-8",
            "use-sse.js",
        ),
    ];

    fn on_disk(file: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/console/");
        std::fs::read(folder.to_owned() + file).expect("a file of the console")
    }

    #[test]
    fn each_file_is_served_unchanged_with_its_content_type_and_an_etag() {
        let server = server_with(Console::On);
        let address = server.local_addr();
        let mut tags = Vec::new();
        for (path, content_type, file) in FILES {
            let answer = request(address, "GET", path, BROWSER, "");
            let field = |name| answer.field(name);
            assert_eq!(
                (answer.status, field("content-type")),
                (200, Some(content_type)),
                "{path}"
            );
            assert_eq!(answer.body, on_disk(file), "{path}");
            assert_eq!(
                (
                    field("cache-control"),
                    field("x-content-type-options"),
                    field("access-control-allow-origin")
                ),
                (Some("no-cache"), Some("nosniff"), Some("*")),
                "{path}"
            );
            let tag = field("etag").expect("a tag").to_owned();
            assert!(
                tag.len() == 18 && tag.starts_with('"') && tag.ends_with('"'),
                "{tag}"
            );
            tags.push(tag);
            let head = request(address, "HEAD", path, BROWSER, "").without_date();
            assert_eq!(head.head, answer.clone().without_date().head, "{path}");
        }
        // The tag depends on the content alone: another server has the same tags, and
        // each file has another tag.
        let again = server_with(Console::On);
        for (tag, (path, ..)) in tags.iter().zip(FILES) {
            let answer = request(again.local_addr(), "GET", path, BROWSER, "");
            assert_eq!(answer.field("etag"), Some(&**tag), "{path}");
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), FILES.len());
    }

    #[test]
    fn a_file_that_the_client_has_already_is_a_304_and_the_connection_stays_open() {
        let server = server_with(Console::On);
        let address = server.local_addr();
        for (path, ..) in FILES {
            let answer = request(address, "GET", path, BROWSER, "");
            let tag = answer.field("etag").unwrap();
            for (condition, status) in [
                (tag.to_owned(), 304),
                (format!("W/{tag}"), 304),
                (format!("\"other\", {tag}"), 304),
                (format!("\"other\",{tag} , W/\"x\""), 304),
                ("*".into(), 304),
                ("\"other\"".into(), 200),
                (tag.trim_matches('"').into(), 200),
                (format!("w/{tag}"), 200),
                (String::new(), 200),
                // A repeated field is ignored.
                (format!("{tag}\r\nIf-None-Match: {tag}"), 200),
            ] {
                for method in ["GET", "HEAD"] {
                    let row = format!("{method} {path} {condition:?}");
                    let mut raw = Raw::connect(address);
                    raw.send(format!(
                        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{BROWSER}If-None-Match: {condition}\r\n\r\n"
                    ));
                    let head = raw.head();
                    assert_eq!(head.status, status, "{row}");
                    assert_eq!(head.field("etag"), Some(tag), "{row}");
                    assert_eq!(head.field("cache-control"), Some("no-cache"), "{row}");
                    if status == 304 {
                        // SPEC: RFC 9110, 8.6: a 304 has the Content-Length of the 200,
                        // or none. RFC 9110, 15.4.5: it has no body.
                        assert_eq!(head.field("content-length"), None, "{row}");
                        assert_eq!(head.field("content-type"), None, "{row}");
                        raw.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
                        assert_eq!(raw.answer().text(), "{\"status\":\"ok\"}\n", "{row}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_page_is_for_browsers_and_may_load_nothing_from_other_origins() {
        let server = server_with(Console::On);
        let address = server.local_addr();
        for fields in [
            BROWSER,
            "Accept: text/html\r\n",
            "Accept: image/png , TEXT/HTML;level=1\r\n",
        ] {
            let answer = visit(address, fields);
            let field = |name| answer.field(name);
            assert_eq!(
                field("content-type"),
                Some("text/html; charset=utf-8"),
                "{fields}"
            );
            assert_eq!(
                field("content-security-policy"),
                Some(
                    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                ),
                "{fields}"
            );
            assert_eq!(
                (field("referrer-policy"), field("vary")),
                (Some("no-referrer"), Some("Accept")),
                "{fields}"
            );
        }
        for fields in [
            "",
            "Accept:\r\n",
            "Accept: */*\r\n",
            "Accept: text/*\r\n",
            "Accept: application/json, text/plain\r\n",
            "Accept: text/htmlx, xtext/html\r\n",
        ] {
            let answer = visit(address, fields);
            assert_is_index(&answer, fields);
            assert_eq!(answer.field("vary"), Some("Accept"), "{fields}");
        }
    }

    #[test]
    fn the_client_scripts_are_served_without_a_console_too() {
        let server = server_with(Console::Off);
        for (path, content_type, file) in &FILES[4..] {
            let answer = get(server.local_addr(), path);
            assert_eq!(
                (answer.status, answer.field("content-type")),
                (200, Some(*content_type)),
                "{path}"
            );
            assert_eq!(answer.body, on_disk(file), "{path}");
        }
    }

    #[test]
    fn every_file_names_the_methods_that_it_allows() {
        let server = server_with(Console::On);
        for (path, ..) in FILES {
            for (method, status) in [("OPTIONS", 204), ("POST", 405), ("DELETE", 405)] {
                let answer = request(server.local_addr(), method, path, "", "");
                assert_eq!(
                    (answer.status, answer.field("allow")),
                    (status, Some("GET, HEAD, OPTIONS")),
                    "{method} {path}"
                );
            }
        }
    }

    #[test]
    fn by_default_the_console_is_served_on_loopback_addresses_only() {
        for (listen, console, has_console) in [
            ("127.0.0.1:0", Console::Auto, true),
            ("127.0.0.2:0", Console::Auto, true),
            ("[::1]:0", Console::Auto, true),
            ("[::ffff:127.0.0.1]:0", Console::Auto, true),
            ("0.0.0.0:0", Console::Auto, false),
            ("[::]:0", Console::Auto, false),
            ("0.0.0.0:0", Console::On, true),
            ("127.0.0.1:0", Console::Off, false),
        ] {
            let row = format!("{console:?} on {listen}");
            let config = Config {
                console,
                ..config()
            };
            let bound = match Server::bind(listen, config) {
                // This machine has no IPv6, or only one loopback address.
                Err(error) if !listen.starts_with("127.0.0.1") => {
                    eprintln!("{row} cannot be tried here: {error}");
                    continue;
                }
                bound => bound.unwrap(),
            };
            let running = bound.spawn().unwrap();
            let mut address = running.local_addr();
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            let page = visit(address, BROWSER);
            let content_type = page.field("content-type").unwrap();
            assert_eq!(content_type.starts_with("text/html"), has_console, "{row}");
            let status = get(address, "/console.js").status;
            assert_eq!(status, if has_console { 200 } else { 404 }, "{row}");
        }
    }

    #[test]
    fn the_option_console_switches_the_page_on_and_off() {
        for (options, content_type) in [
            (&[][..], "text/html; charset=utf-8"),
            (&["--console=auto"], "text/html; charset=utf-8"),
            (&["--console", "on"], "text/html; charset=utf-8"),
            (&["--console=off"], "text/plain; charset=utf-8"),
            // Through a proxy, clients on other machines can reach the server.
            (&["--trust-proxy=127.0.0.1"], "text/plain; charset=utf-8"),
            (
                &["--trust-proxy=127.0.0.1", "--console=on"],
                "text/html; charset=utf-8",
            ),
        ] {
            let program = serve(options);
            let answer = visit(program.address, BROWSER);
            assert_eq!(
                answer.field("content-type"),
                Some(content_type),
                "{options:?}"
            );
        }
    }

    #[test]
    fn the_files_are_small() {
        let total: usize = FILES.iter().map(|(_, _, file)| on_disk(file).len()).sum();
        assert!(
            total <= 150 << 10,
            "{total} bytes of assets in every binary"
        );
    }
}

#[cfg(not(feature = "console"))]
#[test]
fn without_the_feature_neither_the_files_nor_the_option_exist() {
    let server = server(config());
    assert_is_index(&visit(server.local_addr(), BROWSER), "a browser");
    for path in ["/console.js", "/sse-client.js", "/use-sse.js"] {
        assert_eq!(get(server.local_addr(), path).status, 404, "{path}");
    }
    let (code, _, errors) = crate::program::run_to_end(&["--console=on"]);
    assert_eq!(code, Some(2));
    assert!(errors[0].contains("unknown option --"), "{errors:?}");
}
