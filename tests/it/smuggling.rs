//! Request smuggling: a second request is hidden in the first. The table has every known
//! way to do this, and the tests check that the hidden request is never executed.
//!
//! Each row is one request that some parser takes for two. The second, hidden request
//! publishes to the topic `smuggled`. If a row is sent to the server directly, the server
//! refuses it, or the hidden request is a part of the first request's body. If a row is
//! sent through a proxy that forbids publishing to `smuggled`, the hidden request does
//! not pass, and no answer goes to the wrong request: neither to the next request on the
//! same connection, nor to a request of another client that shares the proxy's connection
//! to the server.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiny_sse::http::{Request, Response};
use tiny_sse::{Api, Config, Report, Running, Server};

use crate::kit::{Raw, Stream, config, get, number_after, post};
use crate::proxy_process::{Kind, Proxy};

/// How the server understands a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Not a valid request: the server answers with an error and closes the connection.
    Refused,
    /// One request. The hidden request is in its body.
    Data,
    /// Two valid requests. Only a proxy can take them for one, so these rows are sent
    /// through proxies only.
    Two,
}
use Reading::{Data, Refused, Two};

/// The class of the attack, the bytes, how the server understands them, and the source or
/// a remark.
///
/// The bytes have placeholders. `{hidden}` is the hidden request, `{len}` and `{hex}` its
/// length (decimal and hexadecimal), `{rest}` the length of all bytes after the head,
/// `{pad}` as many bytes as `{len}`. `+NUMBER` adds to these lengths. `{post}` is a
/// request line with `Host`, and `{TE}` the field `Transfer-Encoding: chunked`.
type Row = (&'static str, &'static str, Reading, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Two lengths.
    ("CL.TE", "{post}Content-Length: {rest}\r\n{TE}\r\n0\r\n\r\n{hidden}", Refused, "RFC 9112, 6.3; Watchfire 2005"),
    ("CL.TE", "{post}{TE}Content-Length: {rest}\r\n\r\n0\r\n\r\n{hidden}", Refused, "the other order"),
    ("TE.CL", "{post}Content-Length: 4\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Refused, "RFC 9112, 6.3; PortSwigger 2019"),
    ("TE.CL", "{post}{TE}Content-Length: 4\r\n\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Refused, "the other order"),
    ("TE.CL", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Refused, "by GET"),
    ("CL.CL", "{post}Content-Length: 0\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 6.3: the first or the last"),
    ("CL.CL", "{post}Content-Length: {rest}\r\nContent-Length: 0\r\n\r\n{hidden}", Refused, "RFC 9112, 6.3"),
    ("CL.CL", "{post}Content-Length: 0, {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 6.3: in a list"),
    ("CL.CL", "{post}Content-Length: {rest}, 0\r\n\r\n{hidden}", Refused, "RFC 9112, 6.3: in a list"),
    ("CL.CL", "{post}Content-Length: {rest}\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9112, 6.3: the same twice"),
    ("CL.CL", "{post}Content-Length: {rest}, {rest}\r\n\r\n{hidden}", Data, "RFC 9112, 6.3: the same twice in a list"),
    ("CL.CL", "{post}Content-Length: 0\r\nContent_Length: {rest}\r\n\r\n{hidden}", Two, "the same name to CGI only"),
    ("CL.CL", "{post}Content-Length: {rest}\r\nContent-Length: \r\n\r\n{hidden}", Refused, "CVE-2023-40225: an empty one"),
    // 0.CL: only one of two parsers sees the Content-Length.
    ("0.CL", "{post}Content-Length : {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 5.1: space before the colon"),
    ("0.CL", "{post}Content-Length\t: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 5.1"),
    ("0.CL", "{post} Content-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 5.2: folded into Host"),
    ("0.CL", "{post}Content-Length:\r\n {rest}\r\n\r\n{hidden}", Refused, "PortSwigger 2025: obs-fold"),
    ("0.CL", "{post}Content-Length: 0\r\n {rest}\r\n\r\n{hidden}", Refused, "obs-fold: 0 or more"),
    ("0.CL", "{post}X: y\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "after a bare LF"),
    ("0.CL", "{post}X: y\rContent-Length: {rest}\r\n\r\n{hidden}", Refused, "after a bare CR"),
    ("0.CL", "{post}: y\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "CVE-2023-25725: a field without a name ended the head"),
    ("0.CL", "{post}\0: y\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "NUL"),
    ("0.CL", "{post}Content-Length: +{rest}\r\n\r\n{hidden}", Refused, "CVE-2021-32715: a sign"),
    ("0.CL", "{post}Content-Length: -{rest}\r\n\r\n{hidden}", Refused, "a sign"),
    ("0.CL", "{post}Content-Length: 0x{rest}\r\n\r\n{hidden}", Refused, "0 if parsing stops at the x"),
    ("0.CL", "{post}Content-Length: 0 {rest}\r\n\r\n{hidden}", Refused, "0 if parsing stops at the space"),
    ("0.CL", "{post}Content-Length: {rest}.0\r\n\r\n{hidden}", Refused, "a float"),
    ("0.CL", "{post}Content-Length: \"{rest}\"\r\n\r\n{hidden}", Refused, "a string"),
    ("0.CL", "{post}Content-Length: \x0b{rest}\r\n\r\n{hidden}", Refused, "white space in C"),
    ("0.CL", "{post}Content-Length: 0{rest}\r\n\r\n{hidden}", Data, "RFC 9110, 8.6: not octal"),
    ("0.CL", "{post}Content-Length: {rest+18446744073709551616}\r\n\r\n{hidden}", Refused, "the same in 64 bits"),
    ("0.CL", "{post}Content-Length: {rest+4294967296}\r\n\r\n{hidden}", Refused, "the same in 32 bits"),
    ("0.CL", "{post}Content-Length0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "CVE-2021-40346: a name of 270 bytes"),
    ("0.CL", "{post}\r\n{hidden}", Two, "RFC 9112, 6.3: no length at all is no body"),
    // CL.0 and TE.0: only one of two parsers sees that there is a body.
    ("CL.0", "{post}Content-Length: {rest}\r\n\r\n{hidden}", Data, "PortSwigger 2022"),
    ("CL.0", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 9.3.1: by GET"),
    ("CL.0", "HEAD /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 9.3.2: by HEAD"),
    ("CL.0", "HEAD /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "by HEAD, of a stream"),
    ("CL.0", "OPTIONS /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 9.3.7: by OPTIONS"),
    ("CL.0", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "of everything"),
    ("CL.0", "DELETE /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 9.3.5: by DELETE"),
    ("CL.0", "TRACE /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 9.3.8: by TRACE"),
    ("CL.0", "QUERY /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "by an unknown method"),
    ("CL.0", "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "to a path that does not exist"),
    ("CL.0", "PUT /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "to an endpoint without PUT"),
    ("CL.0", "POST /events/carrier?event=%0A HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "to an endpoint that refuses it"),
    ("TE.0", "{post}{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "Arnolfo and others 2024"),
    ("TE.0", "OPTIONS /carrier HTTP/1.1\r\nHost: localhost\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "by OPTIONS, the first known case"),
    ("TE.0", "GET /carrier HTTP/1.1\r\nHost: localhost\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "by GET"),
    ("TE.0", "HEAD /carrier HTTP/1.1\r\nHost: localhost\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "by HEAD"),
    ("TE.0", "DELETE /nowhere HTTP/1.1\r\nHost: localhost\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "by DELETE, to a path that does not exist"),
    // Chunks. Of two parsers, the first sees one request, and the second sees the hidden
    // request too.
    ("TERM.EXT", "{post}{TE}\r\n2;\nxx\r\n{hex+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: LF ends an extension"),
    ("EXT.TERM", "{post}{TE}\r\n{hex+5};\n{pad+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: LF is in the extension"),
    ("TERM.EXT", "{post}{TE}\r\n2;\rxx\r\n{hex+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "by CR"),
    ("EXT.TERM", "{post}{TE}\r\n{hex+5};\r{pad+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "by CR"),
    ("TERM.EXT", "{post}{TE}\r\n2;\"\r\nxx\r\n{hex+6}\r\n\"0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "a quoted string must end in its line"),
    ("TERM.SPILL", "{post}{TE}\r\n5\r\nxxxxx\n{hex+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: LF ends a chunk"),
    ("SPILL.TERM", "{post}{TE}\r\n5\r\nxxxxx\r{hex+5}\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: by CR"),
    ("SPILL.TERM", "{post}{TE}\r\n5\r\nxxxxxspilt\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "a chunk longer than its size"),
    ("ONE.TWO", "{post}{TE}\r\n2\r\nxx\n{hex+2}\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: one byte, or any two bytes, end a chunk"),
    ("TWO.ONE", "{post}{TE}\r\n2\r\nxx\n12\r\nyy\r\n{hex+17}\r\n..........\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025"),
    ("ZERO.TWO", "{post}{TE}\r\n2\r\nxx0{hex+2}\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025: no byte, or any two bytes, end a chunk"),
    ("TWO.ZERO", "{post}{TE}\r\n2\r\nxx012\r\nyy\r\n{hex+17}\r\n..........\r\n0\r\n\r\n{hidden}\r\n0\r\n\r\n", Refused, "Funky chunks 2025"),
    ("last chunk", "{post}{TE}\r\n0\n\n{hidden}", Refused, "CVE-2025-22871: bare LF"),
    ("last chunk", "{post}{TE}\r\n0\r\n\n{hidden}", Refused, "bare LF"),
    ("last chunk", "{post}{TE}\r\n0\n\r\n{hidden}", Refused, "bare LF"),
    ("last chunk", "{post}{TE}\r\n0\r\r{hidden}", Refused, "bare CR"),
    ("last chunk", "{post}{TE}\r\n0\r\n{hidden}", Refused, "without its empty line"),
    ("last chunk", "{post}{TE}\r\n0\r\nX: y\n\n{hidden}", Refused, "a trailer that ends in LF"),
    ("last chunk", "{post}{TE}\r\n0\r\nX: y\r\n {hidden}", Refused, "a trailer that is folded"),
    ("last chunk", "{post}{TE}\r\n\r\n\r\n{hidden}", Refused, "some parsers read a missing size as 0"),
    ("last chunk", "{post}{TE}\r\nx\r\n\r\n{hidden}", Refused, "some parsers read a size that is no number as 0"),
    ("last chunk", "{post}{TE}\r\n;a\r\n\r\n{hidden}", Refused, "an extension without a size"),
    ("last chunk", "{post}{TE}\r\n 0\r\n\r\n{hidden}", Refused, "white space before the size"),
    ("last chunk", "{post}{TE}\r\n0 \r\n\r\n{hidden}", Refused, "white space after the size"),
    ("last chunk", "{post}{TE}\r\n-0\r\n\r\n{hidden}", Refused, "a sign"),
    ("last chunk", "{post}{TE}\r\n0x{hex}\r\n\r\n{hidden}", Refused, "0 if parsing stops at the x"),
    ("last chunk", "{post}{TE}\r\n0_{hex}\r\n\r\n{hidden}", Refused, "0 if parsing stops at the _"),
    ("last chunk", "{post}{TE}\r\n0\0{hex}\r\n\r\n{hidden}", Refused, "0 if parsing stops at NUL"),
    ("last chunk", "{post}{TE}\r\n10000000000000000\r\n\r\n{hidden}", Refused, "CVE-2021-32714: 0 in 64 bits"),
    ("last chunk", "{post}{TE}\r\n100000000\r\n\r\n{hidden}", Refused, "0 in 32 bits"),
    ("last chunk", "{post}{TE}\r\n{hex+5}\r\n0\r\n\r\n{hidden}\r\n0;a=\"b\"\r\nContent-Length: 9\r\nHost: b\r\n\r\n", Data, "fields in a trailer are ignored"),
    // Where a head ends.
    ("bare LF", "POST /carrier HTTP/1.1\nHost: a\nContent-Length: 0\n\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare LF", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nX: y\n\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare LF", "GET /carrier HTTP/1.1\r\nHost: localhost\r\n\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare LF", "GET /carrier HTTP/1.1\r\nHost: a\n\r\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare LF", "\nGET /carrier HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare CR", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nX: y\r\r{hidden}", Refused, "RFC 9112, 2.2"),
    ("bare CR", "GET /carrier HTTP/1.1\r\nHost: localhost\r\n\r\r\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("obs-fold", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nX: y\r\n {hidden}", Refused, "RFC 9112, 5.2"),
    ("obs-fold", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\t\r\n{hidden}", Refused, "RFC 9112, 5.2: some parsers read an empty line"),
    ("obs-fold", "GET /carrier HTTP/1.1\r\n \r\nHost: localhost\r\n\r\n{hidden}", Refused, "RFC 9112, 2.2"),
    ("no colon", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n{hidden}", Refused, "RFC 9112, 5"),
    ("HTTP/0.9", "GET /carrier\r\n\r\n{hidden}", Refused, "RFC 9112, 2.3"),
    ("HTTP/0.9", "GET /carrier HTTP/0.9\r\n\r\n{hidden}", Refused, "RFC 9110, 15.6.6"),
    ("request line", "GET /carrier HTTP/1.1\x0b\r\nHost: localhost\r\n\r\n{hidden}", Refused, "RFC 9112, 3"),
    ("request line", "GET /carrier?\n{hidden}", Refused, "RFC 9112, 3"),
    ("preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}", Refused, "RFC 9113, 3.4"),
    // The host of a request.
    ("Host", "{post}Host: b\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 3.2: two"),
    ("Host", "POST /carrier HTTP/1.1\r\nHost : a\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 5.1"),
    ("Host", "POST http://b/carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9112, 3.2.2: the absolute form"),
    ("Host", "POST http://a/carrier HTTP/1.1\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9112, 3.2: none"),
    ("Host", "GET http://a/carrier HTTP/1.1\r\nHost: localhost\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "RFC 9112, 3.2.2"),
    // Fields that the request tells a proxy to remove.
    ("hop-by-hop", "{post}Connection: Content-Length\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 7.6.1; Davison 2019"),
    ("hop-by-hop", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: content-length\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 7.6.1: by GET"),
    ("hop-by-hop", "{post}Connection: Transfer-Encoding\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "RFC 9110, 7.6.1"),
    ("hop-by-hop", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Transfer-Encoding\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "RFC 9110, 7.6.1: by GET"),
    ("hop-by-hop", "{post}Connection: Transfer-Encoding\r\n{TE}Content-Length: {rest}\r\n\r\n0\r\n\r\n{hidden}", Refused, "RFC 9110, 7.6.1: and two lengths"),
    // HTTP/1.0.
    ("HTTP/1.0", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n{TE}\r\n0\r\n\r\n{hidden}", Refused, "RFC 9112, 6.1: HTTP/1.0 has no chunks"),
    ("HTTP/1.0", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: {rest}\r\n{TE}\r\n0\r\n\r\n{hidden}", Refused, "RFC 9112, 6.1: and two lengths"),
    ("HTTP/1.0", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 4\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Refused, "RFC 9112, 6.1: and two lengths"),
    ("HTTP/1.0", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9112, C.2.2"),
    ("HTTP/1.0", "GET /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9112, C.2.2"),
    ("HTTP/1.0", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n{hidden}", Refused, "a body to the end of the connection"),
    // Expectations: one side waits for the other.
    ("Expect", "{post}Expect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 10.1.1: the client does not wait"),
    ("Expect", "{post}Expect: 100-continue\r\n{TE}\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n", Data, "RFC 9110, 10.1.1"),
    ("Expect", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "PortSwigger 2025: by GET"),
    ("Expect", "HEAD /carrier HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "PortSwigger 2025: by HEAD"),
    ("Expect", "OPTIONS /carrier HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "PortSwigger 2025: by OPTIONS"),
    ("Expect", "{post}Expect: y 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "PortSwigger 2025: for one reader only"),
    ("Expect", "{post}Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "twice"),
    ("Expect", "{post}Expect:\r\n 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "PortSwigger 2025: obs-fold"),
    ("Expect", "{post}Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n{hidden}", Refused, "the server refuses early, and the client sends the body all the same"),
    ("Expect", "POST /carrier HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "RFC 9110, 10.1.1: not in HTTP/1.0"),
    // Upgrades to a protocol that the server does not have.
    ("Upgrade", "{post}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "Bishop Fox 2020: h2c"),
    ("Upgrade", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{hidden}", Two, "Bishop Fox 2020: h2c"),
    ("Upgrade", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{hidden}", Two, "0ang3el 2019: a proxy takes the connection for a tunnel"),
    ("Upgrade", "GET /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: {rest}\r\n\r\n{hidden}", Data, "with a body"),
    ("CONNECT", "CONNECT /carrier HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rest}\r\n\r\n{hidden}", Refused, "RFC 9110, 9.3.6: a 200 would be a tunnel"),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n{hidden}", Refused, "RFC 9110, 9.3.6"),
    // Two valid requests. They show that the proxies reject requests to `smuggled`.
    ("pipelined", "GET /carrier HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}", Two, "RFC 9112, 9.3.2"),
    ("pipelined", "HEAD /carrier HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}", Two, "RFC 9112, 9.3.2: after a HEAD"),
    ("pipelined", "{post}{TE}\r\n0\r\n\r\n{hidden}", Two, "RFC 9112, 9.3.2: after chunks"),
    ("pipelined", "{post}Content-Length: 0\r\n\r\n\r\n{hidden}", Two, "RFC 9112, 2.2: after an empty line"),
];

/// TE.TE: fields that mean chunked to one parser and not to another. Each is tried in the
/// three requests of [`TE_TE`].
#[rustfmt::skip]
const CODINGS: &[(&str, &str)] = &[
    ("Transfer-Encoding: xchunked", "PortSwigger 2019: contains `chunked`"),
    ("Transfer-Encoding: chunkedx", "begins with `chunked`"),
    ("Transfer-Encoding : chunked", "RFC 9112, 5.1: space before the colon"),
    ("Transfer-Encoding\t: chunked", "RFC 9112, 5.1"),
    ("Transfer-Encoding:\r\n chunked", "RFC 9112, 5.2: folded"),
    ("Transfer-Encoding\r\n : chunked", "RFC 9112, 5.2: folded before the colon"),
    ("X: y\r\n Transfer-Encoding: chunked", "RFC 9112, 5.2: folded into another"),
    ("X: y\nTransfer-Encoding: chunked", "PortSwigger 2019: after a bare LF"),
    ("X: y\rTransfer-Encoding: chunked", "after a bare CR"),
    ("Transfer-Encoding: \x0bchunked", "CVE-2019-18277: white space in C"),
    ("Transfer-Encoding: \x0cchunked", "white space in C"),
    ("Transfer-Encoding: chunked\x0b", "white space in C"),
    ("Transfer-Encoding: chunked\r", "a bare CR after it"),
    ("Transfer-Encoding: \0chunked", "NUL"),
    ("Transfer-Encoding: chunked\0", "NUL"),
    ("\0Transfer-Encoding: chunked", "NUL"),
    ("Transfer-Encoding\u{a0}: chunked", "white space in Unicode"),
    ("Transfer-Encoding:\u{a0}chunked", "white space in Unicode"),
    ("Transfer-Encoding: chun\u{212a}ed", "the Kelvin sign, whose lower case is k"),
    ("Transfer-Encoding: \"chunked\"", "a string"),
    ("Transfer-Encoding: chunked;q=1", "RFC 9112, 7: a parameter"),
    ("Transfer-Encoding: chunked, identity", "PortSwigger 2019: not the last coding"),
    ("Transfer-Encoding: identity, chunked", "RFC 9112, 6.1: the last of two"),
    ("Transfer-Encoding: gzip, chunked", "RFC 9112, 6.1: the last of two"),
    ("Transfer-Encoding: chunked, chunked", "RFC 9112, 6.1: twice"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "RFC 9112, 6.1: twice"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "PortSwigger 2019: the first of two"),
    ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "PortSwigger 2019: the last of two"),
    ("Transfer-Encoding: ,chunked", "RFC 9110, 5.6.1: an empty member"),
    ("Transfer-Encoding: chunked,", "RFC 9110, 5.6.1: an empty member"),
    ("Transfer-Encoding: identity", "RFC 7230, A.2: no longer a coding"),
    ("Transfer-Encoding:", "an empty one"),
    ("Transfer-Encoding chunked", "no colon"),
];

#[rustfmt::skip]
const TE_TE: [&str; 3] = [
    "{post}{coding}\r\n\r\n0\r\n\r\n{hidden}",
    "{post}Content-Length: {rest}\r\n{coding}\r\n\r\n0\r\n\r\n{hidden}",
    "{post}Content-Length: 4\r\n{coding}\r\n\r\n{hex}\r\n{hidden}\r\n0\r\n\r\n",
];

/// A row with its placeholders filled.
struct Case {
    name: String,
    bytes: Vec<u8>,
    hidden: String,
    reading: Reading,
}

fn cases() -> Vec<Case> {
    let rows = ROWS
        .iter()
        .map(|&(class, text, reading, source)| (class, text.to_owned(), reading, source));
    let codings = CODINGS.iter().flat_map(|&(coding, source)| {
        TE_TE.map(|text| ("TE.TE", text.replace("{coding}", coding), Refused, source))
    });
    rows.chain(codings)
        .enumerate()
        .map(|(number, (class, text, reading, source))| {
            let name = format!("{number} {class} ({source})");
            let hidden = hidden(&name);
            Case {
                bytes: filled(&text, &hidden).into_bytes(),
                name,
                hidden,
                reading,
            }
        })
        .collect()
}

/// The hidden request, which must not be executed. Its body names the row.
fn hidden(name: &str) -> String {
    // The rows need this length: two hexadecimal digits, and 0xc0 together with the two
    // bytes of a line break.
    let name: String = name.chars().filter(char::is_ascii).collect();
    let name = format!("{name:.<118}");
    let head = "POST /events/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: ";
    let hidden = format!("{head}{}\r\n\r\n{name}", name.len());
    assert_eq!(hidden.len(), 0xbe, "{hidden:?}");
    hidden
}

/// Fills the placeholders in the text of a row.
#[track_caller]
fn filled(text: &str, hidden: &str) -> String {
    let text = text
        .replace("{post}", "POST /carrier HTTP/1.1\r\nHost: localhost\r\n")
        .replace("{TE}", "Transfer-Encoding: chunked\r\n");
    let text = replaced(&text, "hex", |more| {
        format!("{:x}", hidden.len() as u128 + more)
    });
    let text = replaced(&text, "len", |more| {
        (hidden.len() as u128 + more).to_string()
    });
    let text = replaced(&text, "pad", |more| {
        "x".repeat(hidden.len() + more as usize)
    });
    let text = text.replace("{hidden}", hidden);
    let rest = text
        .split_once("\r\n\r\n")
        .map_or(0, |(_, rest)| rest.len());
    let text = replaced(&text, "rest", |more| (rest as u128 + more).to_string());
    assert!(!text.contains('{'), "a placeholder is left in {text:?}");
    text
}

/// Replaces `{name}` by `value(0)`, and `{name+7}` by `value(7)`.
fn replaced(text: &str, name: &str, value: impl Fn(u128) -> String) -> String {
    let open = format!("{{{name}");
    let mut parts = text.split(&open);
    let start = parts.next().unwrap_or_default().to_owned();
    parts.fold(start, |done, part| {
        let (more, rest) = part.split_once('}').expect("a }");
        let more = more.strip_prefix('+');
        done + &value(more.map_or(0, |more| more.parse().expect("a number"))) + rest
    })
}

/// What the server has received.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Arrived>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrived {
    Request {
        what: String,
        body: String,
    },
    /// The line in the log about bytes that are not a valid request.
    Refusal(String),
}

impl Seen {
    fn add(&self, arrived: Arrived) {
        self.0.lock().unwrap().push(arrived);
    }

    fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A server that keeps a list of what it has received. It has two more endpoints,
/// `/carrier` and `/honest/NUMBER`, whose answers tell which request they answer.
struct Target {
    server: Running,
    seen: Seen,
}

fn target() -> Target {
    let seen = Seen::default();
    let refusals = seen.clone();
    let config = Config {
        // A row with an incomplete body is refused after this timeout, so it is short.
        body_timeout: Duration::from_secs(2),
        report: Report::new(move |_, line| refusals.add(Arrived::Refusal(line.to_string()))),
        ..config()
    };
    let bound = Server::bind("127.0.0.1:0", config).expect("a free port");
    let requests = seen.clone();
    let handler = move |request: Request, api: &Api| {
        requests.add(Arrived::Request {
            what: format!("{} {}", request.method(), request.path()),
            body: String::from_utf8_lossy(request.body()).into_owned(),
        });
        match request.path().rsplit_once('/') {
            Some(("", "carrier")) => Response::text(200, "carrier"),
            Some(("/honest", number)) => Response::text(200, format!("honest {number}")),
            _ => api.answer(request),
        }
    };
    Target {
        server: bound
            .spawn_with(handler)
            .expect("the server's threads start"),
        seen,
    }
}

impl Target {
    fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Publishes an event and checks that it is the first that `subscriber` gets, and the
    /// only one that was ever published.
    #[track_caller]
    fn check_that_nothing_was_published(&self, mut subscriber: Stream) {
        let answer = post(self.address(), "/events/smuggled", "the first event");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(subscriber.next().data, "the first event");
        let stats = get(self.address(), "/stats");
        assert_eq!(number_after(stats.text(), "\"total_events\":"), 1);
    }
}

/// A valid request that must get its own answer. It is the last on its connection.
fn honest(number: usize) -> String {
    format!("GET /honest/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Sends a row and an honest request after it, and returns all answers.
#[track_caller]
fn exchange(address: SocketAddr, case: &Case, number: usize) -> Vec<Reply> {
    let mut raw = Raw::connect(address);
    // Best effort: the row may be refused before all bytes are sent.
    let _ = raw
        .socket
        .write_all(&[&*case.bytes, honest(number).as_bytes()].concat());
    replies(&raw.rest(), case.bytes.starts_with(b"HEAD"))
}

/// One answer: its status, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    body: String,
}

/// Parses the answers on a connection. `to_head`: the first answer is to a HEAD request.
/// Bytes without a head are an answer of HTTP/0.9, which proxies send to a request of
/// this version; its status is 0.
#[track_caller]
fn replies(bytes: &[u8], mut to_head: bool) -> Vec<Reply> {
    let (mut text, mut answers) = (&*String::from_utf8_lossy(bytes).into_owned(), Vec::new());
    while !text.is_empty() {
        let Some((head, rest)) = text
            .split_once("\r\n\r\n")
            .filter(|_| text.starts_with("HTTP/1."))
        else {
            answers.push(Reply {
                status: 0,
                body: text.to_owned(),
            });
            break;
        };
        let status = head[9..12].parse().expect("a status");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().unwrap())
        });
        let length = match length {
            Some(_) if to_head && status >= 200 => 0,
            Some(length) => length,
            // The body lasts up to the end of the connection, or there is none.
            None => rest.find("HTTP/1.").unwrap_or(rest.len()),
        };
        assert!(length <= rest.len(), "half an answer: {text:?}");
        if status >= 200 {
            to_head = false;
            let body = rest[..length].to_owned();
            answers.push(Reply { status, body });
        }
        text = &rest[length..];
    }
    answers
}

#[test]
fn a_request_hidden_in_another_is_refused_with_it_or_is_part_of_its_body() {
    let target = target();
    let subscriber = Stream::subscribe(target.address(), "/events/smuggled");
    let cases = cases();
    let alone = cases.iter().filter(|case| case.reading != Two);
    for (number, case) in alone.enumerate() {
        target.seen.take();
        let (answers, name) = (exchange(target.address(), case, number), &case.name);
        let seen = target.seen.take();
        match (case.reading, &*answers, &*seen) {
            (Refused, [refusal], [Arrived::Refusal(_)]) => {
                assert!(refusal.status >= 400, "{name}: {refusal:?}");
            }
            (Data, [_, next], [Arrived::Request { body, .. }, Arrived::Request { what, .. }]) => {
                assert!(body.contains(&case.hidden), "{name}: the body is {body:?}");
                assert_eq!(*what, format!("GET /honest/{number}"), "{name}");
                assert_eq!(next.body, format!("honest {number}"), "{name}");
            }
            (reading, ..) => panic!("{name} is not {reading:?}: {answers:?}\n{seen:?}"),
        }
    }
    target.check_that_nothing_was_published(subscriber);
    assert!(cases.len() > 200, "only {} rows", cases.len());
}

/// What happened to a row that was sent through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The proxy refused the row.
    RefusedByProxy,
    /// The proxy passed the row on, and the server refused it.
    RefusedByServer,
    /// The proxy passed the row on, and the server answered it as one request.
    Served,
}

/// Sends all rows through a proxy that forbids publishing to `smuggled`. Returns how many
/// rows had each outcome.
#[track_caller]
fn send_all(kind: Kind, configure: impl Fn(SocketAddr, SocketAddr) -> String) -> [usize; 3] {
    let target = target();
    let subscriber = Stream::subscribe(target.address(), "/events/smuggled");
    let proxy = Proxy::start(kind, |address, _| configure(address, target.address()));
    let mut counts = [0; 3];
    for (number, case) in cases().iter().enumerate() {
        target.seen.take();
        let answers = exchange(proxy.address, case, number);
        let outcome = check_answers(case, number, &answers, &target.seen.take());
        counts[outcome as usize] += 1;
        // Shown with --nocapture. The tests do not assert which rows a proxy refuses.
        println!("{outcome:?}: {}", case.name);
        let answer = get(proxy.address, &format!("/honest/n{number}"));
        assert_eq!(
            answer.text(),
            format!("honest n{number}"),
            "after {}",
            case.name
        );
    }
    // The proxy forbids a plain publication to this topic, too.
    assert_eq!(post(proxy.address, "/events/smuggled", "").status, 403);
    target.check_that_nothing_was_published(subscriber);
    counts
}

/// Checks the answers to a row and to the honest request after it. The first answer is
/// the row's. The last is the honest request's own, unless the connection ended before
/// it. Between them is at most one answer: the refusal of the hidden request by a proxy
/// that has seen it.
#[track_caller]
fn check_answers(case: &Case, number: usize, answers: &[Reply], seen: &[Arrived]) -> Outcome {
    let context = format!("{}: {answers:?}\n{seen:?}", case.name);
    for arrived in seen {
        let smuggled =
            matches!(arrived, Arrived::Request { what, .. } if what.ends_with("/smuggled"));
        assert!(!smuggled, "the hidden request passed the proxy: {context}");
    }
    for (at, answer) in answers.iter().enumerate() {
        match answer.body.strip_prefix("honest ") {
            Some(answered) => assert!(
                answered == number.to_string() && at > 0 && at == answers.len() - 1,
                "an answer to another request: {context}"
            ),
            None if at == 0 => {}
            None => assert!(answer.status >= 400, "one answer too many: {context}"),
        }
    }
    assert!(
        (1..=3).contains(&answers.len()),
        "{} answers: {context}",
        answers.len()
    );
    match seen.first() {
        None => Outcome::RefusedByProxy,
        Some(Arrived::Refusal(_)) => Outcome::RefusedByServer,
        Some(Arrived::Request { what, .. }) if what.starts_with("GET /honest/") => {
            Outcome::RefusedByProxy
        }
        Some(Arrived::Request { .. }) => Outcome::Served,
    }
}

/// The configuration of nginx with one connection to the server for all clients, and
/// `more` in its server block.
fn nginx(listen: SocketAddr, server: SocketAddr, more: &str) -> String {
    format!(
        "user www-data;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_timeout 2s;
    client_header_timeout 2s;
    upstream tiny_sse {{ server {server}; keepalive 1; }}
    server {{
        listen {listen};
        {more}
        location ^~ /events/smuggled {{ return 403; }}
        location / {{
            proxy_pass http://tiny_sse;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    )
}

/// The configuration of HAProxy with connections to the server that all clients share,
/// and `more` in its defaults.
fn haproxy(listen: SocketAddr, server: SocketAddr, more: &str) -> String {
    format!(
        "global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 2s
    timeout server 20s
    timeout http-request 2s
    timeout http-keep-alive 2s
    {more}
frontend outside
    bind {listen}
    http-request deny if {{ path_beg /events/smuggled }}
    default_backend inside
backend inside
    http-reuse always
    server one {server}
"
    )
}

/// The configuration of Caddy with one connection to the server for all clients.
fn caddy(listen: SocketAddr, server: SocketAddr) -> String {
    format!(
        "{{
    admin off
    servers {{
        timeouts {{
            read_body 2s
            read_header 2s
            idle 2s
        }}
    }}
}}
:{} {{
    bind 127.0.0.1
    respond /events/smuggled* 403
    reverse_proxy {server} {{
        transport http {{
            keepalive_idle_conns_per_host 1
        }}
    }}
}}
",
        listen.port()
    )
}

/// Checks that the proxy passed enough rows on. Otherwise the test would say nothing
/// about the server.
#[track_caller]
fn check_counts(what: &str, counts: [usize; 3]) {
    let [by_proxy, by_server, served] = counts;
    println!(
        "{what}: the proxy refused {by_proxy} rows, the server refused {by_server}, the server served {served}"
    );
    assert!(by_server > 0, "{what}: the server refused no row");
    assert!(served >= 20, "{what}: only {served} rows were served");
}

#[test]
#[ignore = "needs nginx"]
fn nothing_is_smuggled_through_nginx() {
    check_counts(
        "nginx",
        send_all(Kind::Nginx, |listen, server| nginx(listen, server, "")),
    );
}

#[test]
#[ignore = "needs nginx"]
fn nothing_is_smuggled_through_an_nginx_that_passes_on_unbuffered_bodies_and_invalid_fields() {
    let more =
        "proxy_request_buffering off; ignore_invalid_headers off; underscores_in_headers on;";
    check_counts(
        "a lenient nginx",
        send_all(Kind::Nginx, |listen, server| nginx(listen, server, more)),
    );
}

#[test]
#[ignore = "needs haproxy"]
fn nothing_is_smuggled_through_haproxy() {
    check_counts(
        "HAProxy",
        send_all(Kind::HaProxy, |listen, server| haproxy(listen, server, "")),
    );
}

#[test]
#[ignore = "needs haproxy"]
fn nothing_is_smuggled_through_a_haproxy_that_accepts_invalid_requests() {
    let more = "option accept-invalid-http-request";
    check_counts(
        "a lenient HAProxy",
        send_all(Kind::HaProxy, |listen, server| {
            haproxy(listen, server, more)
        }),
    );
}

#[test]
#[ignore = "needs caddy"]
fn nothing_is_smuggled_through_caddy() {
    check_counts("Caddy", send_all(Kind::Caddy, caddy));
}
