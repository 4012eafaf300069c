//! What counts as a request: every rule of the grammar and every limit as a row of bytes, each
//! answered the same however the bytes are cut on their way, and nothing hidden in one of them.

use std::io::Write;

use tiny_sse::http::{Head, HeadParser, Request, Response};
use tiny_sse::{Api, Config, Running, Server};

use crate::chance::{Bytes, Mutator, Random, cases};
use crate::kit::{Answer, Raw, Stream, config};

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It answers the next request.
    Open,
    /// The answer says `Connection: close`, and then comes the end.
    Closed,
}
use After::{Closed, Open};

/// The bytes, the status of the answer, what becomes of the connection, and who says so.
type Row = (&'static [u8], u16, After, &'static str);

#[rustfmt::skip]
const REQUESTS: &[Row] = &[
    // The request line.
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 3"),
    (b"\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 2.2: an empty line before it is ignored"),
    (b"\r\n\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 2.2: and more of them"),
    (b"\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare LF"),
    (b"\r\rGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare CR"),
    (b" GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3"),
    (b"GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: one space"),
    (b"GET /echo  HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: one space"),
    (b"GET /echo HTTP/1.1 \r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3"),
    (b"GET\t/echo\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: lenient readers split at tabs"),
    (b"GET\x0c/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: or at form feeds"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2: white space in the target"),
    (b"GET /\r\n\r\n", 400, Closed, "HTTP/0.9"),
    (b"GET\r\n\r\n", 400, Closed, "RFC 9112, 3"),
    (b"GET / \r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3"),
    (b"GET /echo HTTP/1.1\nHost: a\r\n\r\n", 400, Closed, "a bare LF ends the request line"),
    (b"GET /echo HTTP/1.1\rHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare CR"),
    (b"GET /echo HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare CR"),
    (b"GET /echo HTTP/1.1\0\r\nHost: a\r\n\r\n", 400, Closed, "NUL"),
    (b"G\0T /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"G(T /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"G\xc3\x89T /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, Closed, "a TLS hello, which has no line end"),
    (b"\x80\x2e\x01\x00\x02", 400, Closed, "an SSLv2 hello"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", 400, Closed, "the wrong port"),
    (b"EHLO a\r\n", 400, Closed, "the wrong port: SMTP"),
    (b"OPTIONS sip:a@b SIP/2.0\r\n\r\n", 400, Closed, "the wrong port: SIP"),
    // Methods.
    (b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 9.3.2"),
    (b"HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 9.3.2: of a stream, which does not begin"),
    (b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 9110, 9.3.2"),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 9.1: methods are case-sensitive"),
    (b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 9.1: unknown"),
    (b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9110, 9.1: known, and not here"),
    (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9110, 9.3.8"),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405, Open, "RFC 9110, 9.1"),
    // Versions.
    (b"GET /echo HTTP/1.0\r\n\r\n", 200, Closed, "RFC 9112, 9.3"),
    (b"GET /echo HTTP/1.2\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 2.5: a later minor version"),
    (b"GET /echo HTTP/2.0\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"GET /echo HTTP/0.9\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Closed, "RFC 9113, 3.4: prior knowledge of HTTP/2"),
    (b"GET /echo http/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: case-sensitive"),
    (b"GET /echo HTTP/1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/1.\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/1.10\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: one digit"),
    (b"GET /echo HTTP/01.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: one digit"),
    (b"GET /echo HTTP/1,1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/1.1x\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    // Targets.
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204, Open, "RFC 9112, 3.2.4: the asterisk form"),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9112, 3.2.4: is for OPTIONS"),
    (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.4"),
    (b"GET http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 3.2.2: the absolute form"),
    (b"GET HTTP://b:80/echo?c=d HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 3.2.2: Host is not looked at"),
    (b"GET https://a HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 3.2.2: no path is /"),
    (b"GET http://a/echo HTTP/1.1\r\n\r\n", 400, Closed, "RFC 9112, 3.2: Host all the same"),
    (b"GET http:/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2"),
    (b"GET ftp://a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: the authority form is a proxy's"),
    (b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3"),
    (b"GET echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1"),
    (b"GET ?a=b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1"),
    (b"GET /echo#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1: fragments are not sent"),
    (b"GET /echo\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "NUL"),
    (b"GET /echo\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "a bare CR"),
    (b"GET /echo\t HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "a tab"),
    (b"GET /echo\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "DEL"),
    (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "not UTF-8"),
    (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "UTF-8, as curl sends it"),
    (b"GET /%65cho HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 6.2.2.2: the same path"),
    (b"GET /echo?a=%20&&=&b&c=+ HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "URL, 5.1: odd queries"),
    (b"GET /ec+ho HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "URL, 5.1: + is a space in queries only"),
    (b"GET //echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 9112, 3.2.1: a path, not a host"),
    (b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /%+1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1: from_str_radix would take it"),
    (b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "not UTF-8"),
    (b"GET /%c0%ae%c0%ae/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "an overlong .., not UTF-8"),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "NUL"),
    (b"GET /echo?a=% HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /echo?%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /echo?a=%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "NUL"),
    (b"GET /echo?a=%c3%28 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "not UTF-8"),
    (b"GET /.. HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4: a proxy may have resolved it"),
    (b"GET /a/../echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4"),
    (b"GET /./echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4"),
    (b"GET /%2e%2E/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4: encoded"),
    (b"GET /a%2f..%2fecho HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4: encoded"),
    (b"GET http://a/../echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4"),
    (b"GET /... HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 3.3: a name like any other"),
    (b"GET /echo?a=../.. HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 3.4: a query has no segments"),
    // Fields.
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX:\r\nY:b\r\nZ: \t c \t\r\n\r\n", 200, Open, "RFC 9112, 5: white space around values"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09aZ: b\r\n\r\n", 200, Open, "RFC 9110, 5.6.2: a name of all kinds"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \xe9\xff\r\n\r\n", 200, Open, "RFC 9110, 5.5: obs-text"),
    (b"GET /echo HTTP/1.1\r\nHost : a\r\n\r\n", 400, Closed, "RFC 9112, 5.1: space before the colon"),
    (b"GET /echo HTTP/1.1\r\nHost\t: a\r\n\r\n", 400, Closed, "RFC 9112, 5.1: tab before the colon"),
    (b"GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: white space behind the request line"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, Closed, "RFC 9112, 5.2: obs-fold"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc: d\r\n\r\n", 400, Closed, "RFC 9112, 5.2: obs-fold"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 400, Closed, "RFC 9112, 5.2: a line of white space"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, Closed, "RFC 9112, 5.1: no name"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400, Closed, "RFC 9112, 5: no colon"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\x0b: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400, Closed, "RFC 9110, 5.5: NUL"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a bare CR"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a bare CR, where trimming would hide it"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX:\rb\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a bare CR, where trimming would hide it"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare LF"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\x0c\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a form feed is no white space"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", 400, Closed, "RFC 9110, 5.5: DEL"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n", 400, Closed, "RFC 9110, 5.5: an escape, for somebody's terminal"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n\n", 400, Closed, "a bare LF ends the head"),
    (b"GET /echo HTTP/1.1\nHost: a\n\n", 400, Closed, "bare LFs throughout"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", 400, Closed, "a line that is a bare CR"),
    // Host.
    (b"GET /echo HTTP/1.1\r\n\r\n", 400, Closed, "RFC 9112, 3.2: none"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two, though equal"),
    (b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n", 200, Open, "RFC 9112, 3.2: an empty one"),
    (b"GET /echo HTTP/1.1\r\nhOST: [::1]:80\r\n\r\n", 200, Open, "RFC 9110, 5.1: names have no case"),
    (b"GET /echo HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two, in HTTP/1.0 too"),
    // Content-Length.
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9112, 6.2"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, Open, "RFC 9112, 6.2"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000000000005\r\n\r\nhello", 200, Open, "RFC 9110, 8.6: 1*DIGIT"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9112, 6.3: equal ones may be one"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 200, Open, "RFC 9112, 6.3: in a list too"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9110, 9.3.1: a GET with a body"),
    (b"HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9110, 9.3.2: a HEAD with a body"),
    (b"DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405, Open, "the body of a request that is not served"),
    (b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 404, Open, "the body of a request that is not served"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, Closed, "RFC 9112, 6.3: two lengths"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!", 400, Closed, "RFC 9112, 6.3: two lengths"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 05\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: equal to some"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: parse would take it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: a digit elsewhere"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \x0b5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413, Closed, "the limit of a body"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", 413, Closed, "the largest usize"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello", 413, Closed, "which is 5 to those who overflow"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4294967301\r\n\r\nhello", 413, Closed, "which is 5 in 32 bits"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\n\r\n", 411, Closed, "RFC 9110, 15.5.12"),
    (b"PUT /echo HTTP/1.1\r\nHost: a\r\n\r\n", 411, Closed, "RFC 9110, 15.5.12"),
    (b"PATCH /echo HTTP/1.1\r\nHost: a\r\n\r\n", 411, Closed, "RFC 9110, 15.5.12"),
    (b"POST /echo HTTP/1.0\r\n\r\nhello", 411, Closed, "HTTP/1.0 ended bodies by closing"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\nhello", 411, Closed, "another field, though CGI cannot tell"),
    // Transfer-Encoding.
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7: codings have no case"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, Open, "a GET with a body"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, Closed, "RFC 9112, 6.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501, Closed, "RFC 9112, 6.1: twice"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501, Closed, "RFC 9112, 6.3: not the last"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501, Closed, "RFC 7230, A.2: no longer a coding"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: contains it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: begins with it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: quotes it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: with a parameter"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: empty"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: two fields"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: two fields"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a vertical tab"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: space before the colon"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: folded"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a bare LF"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a bare CR"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 411, Closed, "TE.TE: another field"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length:\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both, one empty"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.1: in HTTP/1.0"),
    // Expectations.
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: no body, no interim answer"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: no body, no interim answer"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, Closed, "RFC 9110, 10.1.1"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, more\r\n\r\n", 417, Closed, "RFC 9110, 10.1.1"),
    (b"GET /echo HTTP/1.0\r\nExpect: anything\r\n\r\n", 200, Closed, "RFC 9110, 10.1.1: ignored in HTTP/1.0"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", 413, Closed, "RFC 9110, 10.1.1: a final answer instead"),
    // How long a connection lives.
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, Closed, "RFC 9112, 9.3"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive , CLOSE\r\n\r\n", 200, Closed, "RFC 9110, 7.6.1: a list without case"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", 200, Closed, "RFC 9110, 7.6.1: over two fields"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", 200, Open, "RFC 9110, 7.6.1: another word"),
    (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, Closed, "RFC 9112, 9.3"),
    (b"HEAD /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, Closed, "RFC 9112, 9.3"),
    (b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, Open, "RFC 9112, C.2.2"),
    (b"GET /echo HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", 200, Closed, "RFC 9112, 9.3: close wins"),
    (b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9112, C.2.2"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200, Open, "RFC 9110, 7.8: an upgrade may be ignored"),
];

/// What may follow the head of [`CHUNKED`].
#[rustfmt::skip]
const CHUNKS: &[Row] = &[
    (b"0\r\n\r\n", 200, Open, "RFC 9112, 7.1"),
    (b"5\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1"),
    (b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1"),
    (b"A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n000\r\n\r\n", 200, Open, "RFC 9112, 7.1: data like line ends"),
    (b"00000000000000000005\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1: more zeros than a usize has digits"),
    (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", 200, Open, "RFC 9112, 7.1.1: extensions are ignored"),
    (b"5 ; a = \"b;c\"\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1.1: BWS"),
    (b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", 200, Open, "RFC 9112, 7.1.2: trailers are dropped"),
    (b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\r\n", 200, Open, "RFC 9110, 6.5.1: and mean nothing"),
    (b"\r\n", 400, Closed, "RFC 9112, 7.1: no size"),
    (b";a\r\n", 400, Closed, "RFC 9112, 7.1: no size"),
    (b" 5\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5 \r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"0x5\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: 0 to those who stop at the x"),
    (b"+5\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: from_str_radix would take it"),
    (b"-5\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5_0\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"g\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5,a\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5 a\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: no semicolon"),
    (b"5\0\r\nhello\r\n0\r\n\r\n", 400, Closed, "NUL"),
    (b"5;\0\r\nhello\r\n0\r\n\r\n", 400, Closed, "NUL"),
    (b"5;\xff\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1"),
    (b"5\nhello\r\n0\r\n\r\n", 400, Closed, "a bare LF behind the size"),
    (b"5\rhello\r\n0\r\n\r\n", 400, Closed, "a bare CR behind the size"),
    (b"5\r\r\nhello\r\n0\r\n\r\n", 400, Closed, "a bare CR behind the size"),
    (b"5;\nhello\r\n0\r\n\r\n", 400, Closed, "TERM.EXT: a bare LF in an extension"),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400, Closed, "TERM.EXT: a bare CR in an extension"),
    (b"5\r\nhelloX\r\n0\r\n\r\n", 400, Closed, "longer than its size"),
    (b"5\r\nhelloX\n0\r\n\r\n", 400, Closed, "longer than its size, before a bare LF is"),
    (b"5\r\nhelloXY0\r\n\r\n", 400, Closed, "two bytes that are no line end"),
    (b"5\r\nhello0\r\n\r\n", 400, Closed, "no line end"),
    (b"5\r\nhello\n0\r\n\r\n", 400, Closed, "TERM.SPILL: a bare LF behind the data"),
    (b"5\r\nhello\r0\r\n\r\n", 400, Closed, "a bare CR behind the data"),
    (b"0\r\n\n", 400, Closed, "a bare LF at the end"),
    (b"0\n\r\n", 400, Closed, "a bare LF at the end"),
    (b"0\r\nX\r\n\r\n", 400, Closed, "a trailer without a colon"),
    (b"0\r\n X: y\r\n\r\n", 400, Closed, "a trailer that is folded"),
    (b"0\r\nX : y\r\n\r\n", 400, Closed, "a trailer with space before the colon"),
    (b"0\r\nX: y\n\r\n", 400, Closed, "a trailer that ends in a bare LF"),
    (b"0\r\nX: \0\r\n\r\n", 400, Closed, "a trailer with a NUL"),
    (b"100001\r\n", 413, Closed, "the limit of a body, announced"),
    (b"1\r\nh\r\n100000\r\n", 413, Closed, "the limit of a body, in sum"),
    (b"7fffffffffffffff\r\nhello", 413, Closed, "the largest isize"),
    (b"ffffffffffffffff\r\nhello", 413, Closed, "the largest usize"),
    (b"10000000000000005\r\nhello\r\n0\r\n\r\n", 400, Closed, "which is 5 to those who overflow"),
    (b"fffffffffffffffb\r\nhello\r\n0\r\n\r\n", 413, Closed, "which is -5 to those with signs"),
];

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A row whose bytes are made, not written down.
type MadeRow = (Vec<u8>, u16, After, String);

/// Rows at the limits and one beyond. `config()` has the defaults.
fn limits() -> Vec<MadeRow> {
    let limits = config();
    let get = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    };
    let target = |bytes: usize| get(&format!("/{}", "t".repeat(bytes - 1)), "");
    let empty = get("/echo", "X: \r\n").len();
    let head = |bytes: usize| get("/echo", &format!("X: {}\r\n", "v".repeat(bytes - empty)));
    let fields = |count: usize| get("/echo", &"X: y\r\n".repeat(count - 1));
    let sized = |bytes: usize| {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'.'; bytes]].concat()
    };
    let chunks = |bytes: usize| {
        let body = vec![b'.'; bytes];
        let chunks = body.chunks(0x8000).flat_map(|chunk| {
            [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
        });
        let head = CHUNKED.bytes().chain(chunks);
        head.chain(*b"0\r\n\r\n").collect()
    };
    let size_line =
        |bytes: usize| format!("{CHUNKED}5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(bytes - 2)).into();
    let trailer = |bytes: usize| format!("{CHUNKED}0\r\nX: {}\r\n\r\n", "v".repeat(bytes)).into();
    let (longest, largest, most) = (limits.max_target, limits.max_head, limits.max_fields);
    let rows: [(Vec<u8>, u16, After, &str); 20] = [
        (target(longest), 404, Open, "the longest target"),
        (target(longest + 1), 414, Closed, "a longer one"),
        (
            target(2 * longest),
            414,
            Closed,
            "twice as long, 414 before 431",
        ),
        (
            vec![b'G'; longest + 100],
            414,
            Closed,
            "a line without an end",
        ),
        (head(largest), 200, Open, "the largest head"),
        (head(largest + 1), 431, Closed, "a larger one"),
        (head(2 * largest), 431, Closed, "twice as large"),
        (
            head(largest + 1)[..=largest].into(),
            431,
            Closed,
            "a head without an end",
        ),
        (
            b"\r\n".repeat(largest),
            431,
            Closed,
            "empty lines, and nothing else",
        ),
        (fields(most), 200, Open, "the most fields"),
        (fields(most + 1), 431, Closed, "one more"),
        (fields(9 * most), 431, Closed, "nine times as many"),
        (sized(limits.max_body), 200, Open, "the largest body"),
        (sized(limits.max_body + 1), 413, Closed, "a larger one"),
        (
            chunks(limits.max_body),
            200,
            Open,
            "the largest body, in chunks",
        ),
        (
            chunks(limits.max_body + 1),
            413,
            Closed,
            "a larger one, in chunks",
        ),
        (size_line(250), 200, Open, "a long extension"),
        (size_line(300), 400, Closed, "a longer one"),
        (trailer(largest - 100), 200, Open, "a large trailer"),
        (trailer(largest + 1), 431, Closed, "a larger one"),
    ];
    rows.map(|(bytes, status, after, source)| (bytes, status, after, source.into()))
        .into()
}

/// All rows.
fn rows() -> Vec<MadeRow> {
    let requests = REQUESTS
        .iter()
        .map(|&(bytes, status, after, source)| (bytes.to_vec(), status, after, source.to_owned()));
    let chunks = CHUNKS.iter().map(|&(bytes, status, after, source)| {
        (
            [CHUNKED.as_bytes(), bytes].concat(),
            status,
            after,
            source.to_owned(),
        )
    });
    requests.chain(chunks).chain(limits()).collect()
}

/// A server with one more endpoint, `/echo`, whose answer says what was understood.
fn server() -> Running {
    let bound = Server::bind("127.0.0.1:0", config()).expect("a free port");
    bound.spawn_with(echo).expect("threads")
}

fn echo(request: Request, api: &Api) -> Response {
    if request.path() == "/echo" {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        Response::text(200, format!("{} {body}", request.method()))
    } else {
        api.answer(request)
    }
}

/// A row as it stands in a message.
fn shown(bytes: &[u8], source: &str) -> String {
    let (start, more) = (
        &bytes[..bytes.len().min(300)],
        bytes.len().saturating_sub(300),
    );
    format!(
        "{source}: \"{}\" and {more} bytes more",
        start.escape_ascii()
    )
}

/// Sends the pieces one by one on a connection of their own, and answers what came back. A refusal
/// may come before the last piece is sent, so what cannot be sent any more is no failure.
#[track_caller]
fn exchange<'a>(server: &Running, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Answer, After) {
    let mut raw = Raw::connect(server.local_addr());
    let mut start = None;
    for piece in pieces {
        start = start.or(piece.first().copied());
        if raw.socket.write_all(piece).is_err() {
            break;
        }
    }
    // Of the methods here, only HEAD begins with an H.
    let answer = if start == Some(b'H') {
        raw.head()
    } else {
        raw.answer()
    };
    match answer.field("connection") {
        Some("close") => {
            assert!(raw.is_closed(), "more than one answer, after {answer:?}");
            (answer, Closed)
        }
        Some("keep-alive") => {
            raw.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let next = raw.answer();
            assert_eq!(next.text(), "{\"status\":\"ok\"}\n", "behind {answer:?}");
            assert!(raw.is_closed(), "more than two answers, after {answer:?}");
            (answer, Open)
        }
        other => panic!("Connection: {other:?} in {answer:?}"),
    }
}

#[track_caller]
fn check(server: &Running, row: &MadeRow, pieces: &mut dyn Iterator<Item = &[u8]>) -> Answer {
    let (bytes, status, after, source) = row;
    let (answer, then) = exchange(server, pieces);
    assert_eq!(
        (answer.status, then),
        (*status, *after),
        "{}\n{answer:?}",
        shown(bytes, source)
    );
    if answer.status >= 400 && !bytes.starts_with(b"HEAD") {
        let body = answer.text();
        assert!(body.starts_with(r#"{"status":"error","error":""#), "{body}");
    }
    answer.timeless()
}

#[test]
fn every_request_of_the_table_gets_its_answer() {
    let (server, rows) = (server(), rows());
    for row in &rows {
        check(&server, row, &mut [&*row.0].into_iter());
    }
    assert!(rows.len() > 200, "rows were lost: {}", rows.len());
}

#[test]
fn a_request_that_comes_byte_by_byte_gets_the_same_answer() {
    let server = server();
    for row in rows().iter().filter(|row| row.0.len() < 300) {
        let whole = check(&server, row, &mut [&*row.0].into_iter());
        let dribbled = check(&server, row, &mut row.0.chunks(1));
        assert_eq!(dribbled, whole, "{}", shown(&row.0, &row.3));
    }
}

/// The head is cut by the tests of the parser below; here it is the bodies' turn.
#[test]
fn a_body_cut_in_two_at_any_byte_gets_the_same_answer() {
    let server = server();
    for &(body, status, after, source) in CHUNKS {
        let bytes = [CHUNKED.as_bytes(), body].concat();
        let row = (bytes.clone(), status, after, source.to_owned());
        for at in CHUNKED.len()..bytes.len() {
            let (one, two) = bytes.split_at(at);
            check(&server, &row, &mut [one, two].into_iter());
        }
    }
}

/// What the parser makes of bytes that come up to each of `cuts`, and then all.
fn parsed(bytes: &[u8], cuts: impl IntoIterator<Item = usize>, limits: &Config) -> String {
    let mut parser = HeadParser::default();
    for end in cuts.into_iter().chain([bytes.len()]) {
        match parser.parse(&bytes[..end], limits) {
            Ok(Head::Partial) => {}
            outcome => return format!("{outcome:?}"),
        }
    }
    "Partial".into()
}

#[test]
fn a_head_cut_in_two_at_any_byte_is_the_same_head() {
    let limits = config();
    for (bytes, _, _, source) in rows() {
        let whole = parsed(&bytes, [], &limits);
        // Large ones are cut at some places only, and around where the limits are.
        let step = if bytes.len() < 1000 {
            1
        } else {
            bytes.len() / 50
        };
        let around = [limits.max_target, limits.max_head].map(|limit| limit - 5..limit + 80);
        let cuts = (0..bytes.len()).step_by(step);
        let around = around.into_iter().flatten().filter(|_| step > 1);
        for at in cuts.chain(around).filter(|&at| at <= bytes.len()) {
            let cut = parsed(&bytes, [at], &limits);
            assert_eq!(cut, whole, "cut at byte {at}: {}", shown(&bytes, &source));
        }
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_the_same_head() {
    let limits = config();
    for (bytes, _, _, source) in rows() {
        let (whole, dribbled) = (
            parsed(&bytes, [], &limits),
            parsed(&bytes, 0..bytes.len().min(40_000), &limits),
        );
        assert_eq!(dribbled, whole, "{}", shown(&bytes, &source));
    }
}

#[test]
fn the_parser_says_not_yet_until_the_last_byte_of_a_head_and_no_longer() {
    let limits = config();
    let served = |row: &MadeRow| matches!(row.1, 200 | 204 | 404 | 405 | 501) && row.2 == Open;
    for (bytes, _, _, source) in rows().into_iter().filter(served) {
        // Empty lines in front are part of the head.
        let empty = bytes
            .iter()
            .take_while(|byte| b"\r\n".contains(byte))
            .count();
        let end = bytes[empty..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let len = empty + end.expect("an empty line") + 4;
        let outcome = parsed(&bytes[..len - 1], [], &limits);
        assert_eq!(outcome, "Partial", "{}", shown(&bytes, &source));
        let outcome = parsed(&bytes, [], &limits);
        let ending = format!("len: {len} }})");
        assert!(
            outcome.ends_with(&ending),
            "{outcome}: {}",
            shown(&bytes, &source)
        );
    }
}

#[test]
fn a_chunked_body_reaches_a_subscriber_as_its_data_and_nothing_else() {
    let server = server();
    let mut stream = Stream::subscribe(server.local_addr(), "/events/t");
    let mut raw = Raw::connect(server.local_addr());
    let head = "POST /events/t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    #[rustfmt::skip]
    let bodies = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n4;x=\"y\"\r\nello\r\n0;z\r\nTrailer: no\r\n\r\n", "hello"),
        ("000000A\r\n0\r\n\r\nGET /\r\n0\r\n\r\n", "0\n\nGET /"),
    ];
    for (body, data) in bodies {
        raw.send(format!("{head}{body}"));
        assert_eq!(raw.answer().status, 200, "{body:?}");
        assert_eq!(stream.next().data, data, "{body:?}");
    }
    // A character may be cut.
    raw.send(head).send(b"1\r\n\xc3\r\n1\r\n\xa9\r\n0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    assert_eq!(stream.next().data, "\u{e9}");
    let large = "0123456789abcdef".repeat(60_000);
    raw.send(head);
    for piece in large.as_bytes().chunks(9999) {
        raw.send(format!("{:X}\r\n", piece.len()))
            .send(piece)
            .send("\r\n");
    }
    raw.send("0\r\n\r\n");
    assert_eq!(raw.answer().status, 200);
    assert!(
        stream.next().data == large,
        "the large body is not what was sent"
    );
}

#[test]
fn a_random_request_and_limits_are_read_the_same_however_they_are_cut() {
    let rows = rows().into_iter().filter(|row| row.0.len() < 300);
    let mutator = Mutator {
        corpus: rows.map(|row| row.0).collect(),
        words: &[],
    };
    let make = |random: &mut Random| {
        let limits = (
            1 + random.below(300),
            1 + random.below(100),
            1 + random.below(4),
        );
        (mutator.input(random), limits)
    };
    cases(
        1,
        make,
        |(Bytes(bytes), (max_head, max_target, max_fields)), random| {
            let limits = Config {
                max_head: *max_head,
                max_target: *max_target,
                max_fields: *max_fields,
                ..config()
            };
            let whole = parsed(bytes, [], &limits);
            assert_eq!(parsed(bytes, random.cuts(bytes.len()), &limits), whole);
            assert_eq!(parsed(bytes, 0..bytes.len(), &limits), whole);
        },
    );
}

#[test]
fn of_two_limits_the_one_that_is_broken_first_is_named_however_the_head_comes() {
    let limits = config();
    // The head is too large before the target is too long: 5,000 empty lines are part of it.
    let late = format!(
        "{}GET /{} HTTP/1.1\r\n",
        "\r\n".repeat(5000),
        "t".repeat(9000)
    );
    // Not HTTP from the first byte, and longer than any line.
    let noise = [0x16].repeat(9000);
    for (bytes, expected) in [(late.into_bytes(), "HeadTooLarge"), (noise, "NotHttp")] {
        let dribbled = parsed(&bytes, 0..bytes.len(), &limits);
        assert!(dribbled.contains(expected), "{dribbled}");
        assert_eq!(parsed(&bytes, [], &limits), dribbled);
    }
}

#[test]
fn a_host_that_cannot_be_one_is_refused() {
    let server = server();
    // SPEC: RFC 9112, 3.2: 400 to "a Host header field with an invalid field value"; RFC 9110,
    // 4.2.1: an http URI without a host is to be rejected.
    for host in [
        "a b", "a/b", "a, b", "a?b", "a#b", "u@a", "a\\b", "<a>", "a:b", "a:80:80", "[::1", "[]",
        "[]:80",
    ] {
        let row = format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (answer, after) = exchange(&server, [row.as_bytes()]);
        assert_eq!((answer.status, after), (400, Closed), "{row:?}");
    }
    for target in [
        "http:///echo",
        "http://",
        "http://:80/echo",
        "http://a b/echo",
    ] {
        let row = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (answer, after) = exchange(&server, [row.as_bytes()]);
        assert_eq!((answer.status, after), (400, Closed), "{row:?}");
    }
}
