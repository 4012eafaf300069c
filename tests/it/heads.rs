//! What counts as a request: every rule of the grammar and every limit as a row of bytes, each
//! answered the same however the bytes are cut on their way, and nothing hidden in one of them.

use std::io::Write;

use tiny_sse::http::{Head, HeadParser, Request, Response};
use tiny_sse::{Api, Config, Running, Server};

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
    (b"   \r\n\r\n", 400, Closed, "RFC 9112, 2.2: white space is no empty line"),
    (b"\r\n \r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: white space is no empty line"),
    (b"\x00GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: only CRLF is passed over (Netty CVE-2026-50020)"),
    (b"\x1f\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.2: only CRLF is passed over (Netty CVE-2026-50020)"),
    (b"\xef\xbb\xbfGET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "a byte order mark"),
    (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: no target"),
    (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: an empty target (httparse)"),
    (b" /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: no method (httparse)"),
    (b"GET\n/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: a bare LF for a space (httparse)"),
    (b"GET /echo\nHTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: a bare LF for a space (HTTP Garden 9)"),
    (b"GET\r/echo\rHTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: a bare CR for a space (httparse)"),
    (b"GET\x0b/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: or at vertical tabs"),
    (b"GET\xa0/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3: or at no-break spaces"),
    (b"G=\":<>(e),[T];?\" /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token (HTTP Garden 6)"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, Closed, "a TLS hello, which has no line end"),
    (b"\x80\x2e\x01\x00\x02", 400, Closed, "an SSLv2 hello"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", 400, Closed, "the wrong port"),
    (b"EHLO a\r\n", 400, Closed, "the wrong port: SMTP"),
    (b"OPTIONS sip:a@b SIP/2.0\r\n\r\n", 400, Closed, "the wrong port: SIP"),
    // Methods.
    (b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 9.3.2"),
    (b"HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 9.3.2: of a stream, which does not begin"),
    (b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 9110, 9.3.2"),
    (b"HEAD /% HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 9.3.2: a refusal has no body either"),
    (b"HEAD / HTTP/1.1\r\n\r\n", 400, Closed, "RFC 9110, 9.3.2: a refusal has no body either"),
    (b"\r\nHEAD / HTTP/2.0\r\n\r\n", 505, Closed, "RFC 9110, 9.3.2: a refusal has no body either"),
    (b"HEAD /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, Closed, "RFC 9110, 9.3.2: nor has one of its body"),
    (b"HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413, Closed, "RFC 9110, 9.3.2: nor has one of its body"),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 9.1: methods are case-sensitive"),
    (b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 9.1: unknown"),
    (b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9110, 9.1: known, and not here"),
    (b"HEAD * HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9112, 3.2.4: the asterisk is for OPTIONS"),
    (b"POST * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405, Open, "RFC 9112, 3.2.4: the asterisk is for OPTIONS"),
    (b"M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "UPnP, over TCP"),
    (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9113, 3.4: a method like any other"),
    (b"0 / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 5.6.2: a token"),
    (b"!#$%&'*+-.^_`|~09aZ / HTTP/1.1\r\nHost: a\r\n\r\n", 501, Open, "RFC 9110, 5.6.2: a token of all kinds"),
    (b"Post / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 501, Open, "RFC 9110, 9.1: with a body"),
    (b"QUERY / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 501, Open, "RFC 9110, 9.1: with a body"),
    (b"BREW / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 501, Open, "RFC 9110, 9.1: with a body"),
    (b"BREW / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!", 400, Closed, "RFC 9112, 7.1: with a body that ends nowhere"),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405, Open, "RFC 9110, 9.1: with a body"),
    (b"PATCH / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 405, Open, "RFC 9110, 9.1: with a body"),
    (b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 405, Open, "RFC 9110, 9.3.8: with a body"),
    (b"OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 204, Open, "CL.0: the body of an OPTIONS"),
    (b"OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 204, Open, "TE.0: the body of an OPTIONS"),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, Open, "TE.0: the body of an OPTIONS"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, Open, "TE.0: the body of a GET"),
    (b"OPTIONS / HTTP/1.0\r\n\r\n", 204, Closed, "HAProxy: option httpchk"),
    (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, Open, "RFC 9110, 9.3.8"),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 405, Open, "RFC 9110, 9.1"),
    // Versions.
    (b"GET /echo HTTP/1.0\r\n\r\n", 200, Closed, "RFC 9112, 9.3"),
    (b"GET /echo HTTP/1.2\r\nHost: a\r\n\r\n", 200, Open, "RFC 9110, 2.5: a later minor version"),
    (b"GET /echo HTTP/2.0\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"GET /echo HTTP/0.9\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"GET /echo HTTP/3.0\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"GET /echo HTTP/9.9\r\nHost: a\r\n\r\n", 505, Closed, "RFC 9110, 15.6.6"),
    (b"GET /echo HTTP/4294967297.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: which is 1 in 32 bits (HTTP Garden 24)"),
    (b"GET /echo HTTP/ 1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: a space"),
    (b"GET /echo HTTP/1.1\t\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: a tab"),
    (b"GET /echo HTTP/11\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/1.-1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3"),
    (b"GET /echo HTTP/1.\xb9\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: a digit elsewhere"),
    (b"GET /echo HTTPS/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: another protocol"),
    (b"GET /echo IHTTP/1.0\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: another protocol (llhttp)"),
    (b"GET /echo ICE/1.0\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: another protocol (llhttp)"),
    (b"GET /echo RTSP/1.0\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 2.3: another protocol (llhttp)"),
    (b"GET /echo HTTP/1.9\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, Open, "RFC 9110, 2.5: a later minor version, with chunks"),
    (b"GET /echo HTTP/1.2\r\n\r\n", 400, Closed, "RFC 9110, 2.5: a later minor version, without Host"),
    (b"GET /health HTTP/1.0\r\nHost: a:80\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n", 200, Closed, "ab"),
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
    (b"GET http://a?b=c/d HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 4.3: a query behind no path (llhttp, nginx)"),
    (b"GET http://a:80?b HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 4.3: a query behind no path (llhttp, nginx)"),
    (b"GET http://a? HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 4.3: an empty one"),
    (b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", 204, Open, "RFC 9112, 3.2.4: what a proxy makes an asterisk of"),
    (b"GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2: fragments are not sent (HAProxy)"),
    (b"GET http://a\\b/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "URL, 4.4: a slash to browsers"),
    (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 4.2.1: no host"),
    (b"GET http://:80/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 4.2.1: no host"),
    (b"GET http://[::1]:80/echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 9112, 3.2.2: the absolute form"),
    (b"GET http://[::1/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2"),
    (b"GET http://a%/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2"),
    (b"GET http:///echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 4.2.1: no host"),
    (b"GET http://me:you@a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9110, 4.2.4: user information"),
    (b"GET http://a/echo HTTP/1.1\r\n\r\n", 400, Closed, "RFC 9112, 3.2: Host all the same"),
    (b"GET http:/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2"),
    (b"GET ftp://a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: the authority form is a proxy's"),
    (b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: without a port (nginx: http_method.t)"),
    (b"CONNECT /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: in another form (nginx: http_method.t)"),
    (b"CONNECT http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: in another form (HAProxy)"),
    (b"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.3: in another form"),
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
    (b"HEAD /events/a%2Fb?topic=c%2Fd HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 2.2: topics have slashes"),
    (b"GET /echo/ HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 3.3: another path"),
    (b"GET /ECHO HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 6.2.2.1: paths have case"),
    (b"GET /echo;a=b HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 3.3: parameters belong to the segment"),
    (b"GET /..;/echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 3.3: no dot segment, but to Tomcat"),
    (b"GET /a\\..\\echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "URL, 4.4: slashes to browsers, which do not send them"),
    (b"GET ///echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 3.3: empty segments are segments"),
    (b"GET /http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 9112, 3.2.1: a path"),
    (b"GET /* HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 9112, 3.2.4: no asterisk form"),
    (b"GET /%252e%252e/echo HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 2.4: decoded once"),
    (b"GET /%2500 HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 2.4: decoded once"),
    (b"GET /%0d%0aX:%20b HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "a line end that is data"),
    (b"GET /a%20b%7f HTTP/1.1\r\nHost: a\r\n\r\n", 404, Open, "RFC 3986, 2.1"),
    (b"GET /echo? HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 3.4: an empty query"),
    (b"GET /echo?a?b/c HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "RFC 3986, 3.4: ? and / are data"),
    (b"GET /echo?a=1&a=2&b;c HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "URL, 5.1: a key twice, a semicolon"),
    (b"GET /echo?a=\"<>\\^`{|}[] HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "what RFC 3986, 2 leaves out and clients send (llhttp)"),
    (b"GET /echo?a=caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 200, Open, "UTF-8, as curl sends it (httparse)"),
    (b"GET /echo?a=\xe2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "not UTF-8 (httparse)"),
    (b"GET /echo?a=\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "a control character (nginx: http_uri.t)"),
    (b"GET /echo?a=b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1: fragments are not sent"),
    (b"GET /echo%0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /echo?a=%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1"),
    (b"GET /%u0041 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 2.1: as IIS reads it"),
    (b"GET /%ed%a0%80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "a surrogate, not UTF-8"),
    (b"GET /%f4%90%80%80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "beyond U+10FFFF, not UTF-8"),
    (b"GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "an overlong /, not UTF-8"),
    (b"GET /%e0%80%ae HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "an overlong dot, not UTF-8"),
    (b"GET /. HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4"),
    (b"GET /a/..?b HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4"),
    (b"GET /.%2e/echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4: half encoded"),
    (b"GET /a/%2e HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 3986, 5.2.4: encoded"),
    (b"GET . HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1"),
    (b"GET ! HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1 (HTTP Garden 7)"),
    (b"GET */echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.4 (HAProxy)"),
    (b"GET \\echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1"),
    (b"GET file:///echo HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.2"),
    (b"GET HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2.1"),
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
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\tc \"d\" e\r\n\r\n", 200, Open, "RFC 9110, 5.5: tabs and quotes in values (httparse)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\nX: c\r\nx:\r\n\r\n", 200, Open, "RFC 9110, 5.2: one name more than once"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: ~user /<>@,;:\\\"/[]?={}\r\n\r\n", 200, Open, "RFC 9110, 5.5: VCHAR"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n:\r\n\r\n", 400, Closed, "RFC 9112, 5.1: nothing (HTTP Garden 27)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX@: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token (llhttp)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX[: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\\Y: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\x7f: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\x85: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token, though Unicode would trim it (HTTP Garden 20)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\xa0: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token, though Unicode would trim it (HTTP Garden 20)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n", 400, Closed, "RFC 9110, 5.6.2: not a token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\n: b\r\n\r\n", 400, Closed, "RFC 9112, 2.2: a bare LF in a name (PortSwigger: gareth1)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a control character"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \x08b\r\n\r\n", 400, Closed, "RFC 9110, 5.5: a control character"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX:\0\r\n\r\n", 400, Closed, "RFC 9110, 5.5: NUL (HTTP Garden 43)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX\r\n : b\r\n\r\n", 400, Closed, "RFC 9112, 5.2: a name that is folded (llhttp)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\n\rZGET /evil: HTTP/1.1\r\n\r\n", 400, Closed, "a bare CR ends the head (llhttp, HTTP Garden 30)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\td\r\n\r\n", 400, Closed, "RFC 9112, 5.2: folded twice (h11)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \r\n b\r\n\r\n", 400, Closed, "RFC 9112, 5.2: folded at once (llhttp)"),
    // Host.
    (b"GET /echo HTTP/1.1\r\n\r\n", 400, Closed, "RFC 9112, 3.2: none"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two, though equal"),
    (b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n", 200, Open, "RFC 9112, 3.2: an empty one"),
    (b"GET /echo HTTP/1.1\r\nhOST: [::1]:80\r\n\r\n", 200, Open, "RFC 9110, 5.1: names have no case"),
    (b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", 200, Open, "RFC 3986, 3.2.2: what a load balancer's health check sends"),
    (b"GET /echo HTTP/1.1\r\nHost: a_b-c.d.:80\r\n\r\n", 200, Open, "RFC 3986, 3.2.2: an underscore, a dot at the end (Docker, nginx)"),
    (b"GET /echo HTTP/1.1\r\nHost: a%C3%A9\r\n\r\n", 200, Open, "RFC 3986, 3.2.2: pct-encoded"),
    (b"GET /echo HTTP/1.1\r\nHost: a,b\r\n\r\n", 200, Open, "RFC 3986, 3.2.2: sub-delims"),
    (b"GET /echo HTTP/1.1\r\nHost: a:\r\n\r\n", 200, Open, "RFC 3986, 3.2.3: an empty port"),
    (b"GET /echo HTTP/1.1\r\nHost: a:65536\r\n\r\n", 200, Open, "RFC 3986, 3.2.3: a port is digits, and none is looked at"),
    (b"GET /echo HTTP/1.1\r\nHost: [::ffff:127.0.0.1]\r\n\r\n", 200, Open, "RFC 3986, 3.2.2: IPv6address"),
    (b"GET /echo HTTP/1.1\r\nHost: [fe80::1%25eth0]:80\r\n\r\n", 200, Open, "RFC 6874: with a zone"),
    (b"GET /echo HTTP/1.1\r\nHost: [fe80::1%eth0]:80\r\n\r\n", 200, Open, "RFC 6874: with a zone, as old clients write it"),
    (b"GET /echo HTTP/1.1\r\nHost: a%\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: half of pct-encoded"),
    (b"GET /echo HTTP/1.1\r\nHost: a%zz\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: not pct-encoded"),
    (b"GET /echo HTTP/1.1\r\nHost: []\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: no address"),
    (b"GET /echo HTTP/1.1\r\nHost: [a]\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: no address"),
    (b"GET /echo HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: half a literal"),
    (b"GET /echo HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: behind a literal (nginx: http_host.t)"),
    (b"GET /echo HTTP/1.1\r\nHost: x[::1]\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: before a literal (nginx: http_host.t)"),
    (b"GET /echo HTTP/1.1\r\nHost: [::1%]\r\n\r\n", 400, Closed, "RFC 6874: an empty zone"),
    (b"GET /echo HTTP/1.1\r\nHost: [1:2:3]\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: half an address"),
    (b"GET /echo HTTP/1.1\r\nHost: ::1\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: without brackets"),
    (b"GET /echo HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, Closed, "RFC 3986, 3.2.3: a port of letters"),
    (b"GET /echo HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400, Closed, "RFC 3986, 3.2.3: two ports (nginx: http_host.t)"),
    (b"GET /echo HTTP/1.1\r\nHost: :80\r\n\r\n", 400, Closed, "RFC 9110, 4.2.1: a port of nothing"),
    (b"GET /echo HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, Closed, "RFC 9110, 7.2: user information"),
    (b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, Closed, "RFC 9110, 7.2: a path"),
    (b"GET /echo HTTP/1.1\r\nHost: a?b\r\n\r\n", 400, Closed, "RFC 9110, 7.2: a query"),
    (b"GET /echo HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, Closed, "RFC 9110, 7.2: a fragment"),
    (b"GET /echo HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, Closed, "RFC 9110, 7.2: a slash to some"),
    (b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", 400, Closed, "RFC 9110, 7.2: a space"),
    (b"GET /echo HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, Closed, "RFC 9112, 3.2: two in one"),
    (b"GET /echo HTTP/1.1\r\nHost: <a>\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2"),
    (b"GET /echo HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", 400, Closed, "RFC 3986, 3.2.2: not ASCII"),
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
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\t5\t \r\n\r\nhello", 200, Open, "RFC 9110, 5.6.3: white space around it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\ncONTENT-lENGTH:5\r\n\r\nhello", 200, Open, "RFC 9110, 5.1: names have no case (llhttp)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n0123456789", 200, Open, "RFC 9110, 8.6: decimal, though 8 to strtol (HTTP Garden 32)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", 200, Open, "RFC 9110, 8.6: 1*DIGIT"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5 ,\t5\r\n\r\nhello", 200, Open, "RFC 9112, 6.3: in a list of three"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent_Length: 9\r\n\r\nhello", 200, Open, "another field, though CGI cannot tell"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: Content-Length\r\n\r\nhello", 200, Open, "RFC 9110, 7.6.1: that is between others"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Encoding: chunked\r\n\r\nhello", 200, Open, "TE.TE: PortSwigger: contentEnc"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-%45ncoding: chunked\r\n\r\nhello", 200, Open, "TE.TE: another field (PortSwigger: encode)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTE: chunked\r\n\r\nhello", 200, Open, "RFC 9110, 10.1.4: of the answer"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: two lengths (PortSwigger: CL-commaprefix)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5,,5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: an empty member"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ,5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: an empty member"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: an empty one (HTTP Garden 42)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length:\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: an empty one (HTTP Garden 42)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "CL.CL: the first or the last (HTTP Garden 23 and 33)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n0123456789", 400, Closed, "RFC 9112, 6.3: as Python reads it (HTTP Garden 10)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5Z\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: a valid prefix (HTTP Garden 29)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5e0\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3 (PortSwigger: CL-e)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0o5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3 (PortSwigger: CL-spacepad)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5;\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\xa0\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: a no-break space"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \xef\xbc\x95\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: a wide digit"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\0\r\n\r\nhello", 400, Closed, "RFC 9110, 5.5: NUL"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\r\n\r\nhello", 400, Closed, "RFC 9110, 5.5: a bare CR"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length\0: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent\tLength: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent\rLength: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1 (llhttp)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5: no colon (HTTP Garden 28)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.2: folded"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.2: folded (PortSwigger: nameprefix1)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX-Invalid Y: \r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 5.1 (PortSwigger: CL-error)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 2.2: behind a bare LF (llhttp)"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, Open, "RFC 9110, 8.6: a GET with a body of nothing"),
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
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: twice"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: not the last"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400, Closed, "RFC 7230, A.2: no longer a coding"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: contains it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: begins with it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: quotes it"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: with a parameter"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: empty"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, Closed, "RFC 9112, 6.3: not chunked at last"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip, chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: twice (HAProxy: http_transfer_encoding.vtc)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: twice, in two fields (CVE of Tornado, GHSA-753j-mpmx-qq6g)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked, identity\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: in the middle"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a comma (HTTP Garden, 21)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before a comma"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind an empty field (llhttp)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before an empty field"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunk\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: half of it (PortSwigger: lazygrep)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: aposed"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: =?UTF-8?B?Y2h1bmtlZA==?=\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: RFC 2047 (PortSwigger: qencodeutf)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a no-break space, which Unicode would trim (HTTP Garden, 12)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x85\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before a NEL, which Unicode would trim (HTTP Garden, 12)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ch\x96nked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: accentCH"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: two fields"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, Closed, "TE.TE: two fields"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a vertical tab"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: space before the colon"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: folded"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a bare LF"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: behind a bare CR"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING:chunked\t\r\n\r\n0\r\n\r\n", 200, Open, "RFC 9110, 5.1: names have no case (PortSwigger: multiCase, tabsuffix)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, Open, "RFC 9110, 7.6.1 (PortSwigger: connection)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, Open, "RFC 9110, 6.6.2: Trailer"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding x: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: spjunk"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: spacejoin1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer\\Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: backslash"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xc2\x85: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: nel"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xc2\xa0: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: nbsp"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer\xc2\xadEncoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: shy"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransf\x82r-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: accentTE"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTra\rnsfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: 0dspam"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX: y\r\n\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: 0dwrap"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: 0dsuffix"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-\r\nEncoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: a name over two lines (HTTP Garden 37)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\tchunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: tabwrap"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n \r\n chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: doublewrapped"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \n\x0bchunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: vertwrap"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: linewrapped1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nX:\n\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: bodysplit"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before a NUL"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before a form feed"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x7f\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: before a DEL"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xff\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: suffix1"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xffchunked: x\r\n\r\n0\r\n\r\n", 400, Closed, "TE.TE: PortSwigger: spaceFF"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, Closed, "TE.TE: another field"),
    (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.1: both, in HTTP/1.0 (Netty CVE-2026-42581)"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 411, Closed, "TE.TE: another field"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length:\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.3: both, one empty"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", 400, Closed, "RFC 9112, 6.3: both"),
    (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 6.1: in HTTP/1.0"),
    // Expectations.
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: no body, no interim answer"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: no body, no interim answer"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", 200, Open, "RFC 9110, 10.1.1: with its body, which may not wait"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: with its body, which may not wait"),
    (b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", 200, Closed, "RFC 9110, 10.1.1: HTTP/1.0 has no interim answers"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 200, Open, "RFC 9110, 10.1.1: twice"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n", 200, Open, "RFC 9110, 5.6.1: a list of nothing"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: ,100-continue,\r\n\r\n", 200, Open, "RFC 9110, 5.6.1: empty members are none"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\n\r\n", 417, Closed, "RFC 9110, 10.1.1: one of two"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: x 100-continue\r\n\r\n", 417, Closed, "PortSwigger: CL-expect-obfs"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue;q=1\r\n\r\n", 417, Closed, "RFC 9110, 10.1.1: with a parameter"),
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
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n", 200, Open, "RFC 9110, 5.6.1: a list of nothing"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: ,close,\r\n\r\n", 200, Closed, "RFC 9110, 5.6.1: empty members"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\t\r\n\r\n", 200, Closed, "llhttp"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n", 200, Closed, "RFC 9112, 9.3: close wins"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n", 200, Open, "RFC 9110, 7.6.1: no token"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n", 200, Open, "RFC 9112, C.2.2: not a field of this protocol"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5, max=1\r\n\r\n", 200, Open, "RFC 2068, 19.7.1: not looked at"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", 200, Open, "RFC 9110, 7.6.1: that is between others"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 200, Open, "RFC 7540, 3.2: as curl --http2 asks"),
    (b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", 200, Open, "RFC 6455, 4.1: no WebSocket here"),
    (b"POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9110, 7.8: with a body"),
    (b"GET /echo HTTP/1.0\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 300\r\n\r\n", 200, Closed, "RFC 9112, C.2.2: not a field of this protocol"),
    (b"GET /echo HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", 200, Open, "RFC 9112, C.2.2: with a body"),
    (b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", 200, Closed, "RFC 9112, 9.3"),
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
    (b"0_2e\r\n\r\n", 400, Closed, "RFC 9112, 7.1: as Python reads it (HTTP Garden 1)"),
    (b"-0x0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: as strtoll reads it (HTTP Garden 25)"),
    (b"5.\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5\t\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5\xa0\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: a wide digit"),
    (b"\xef\xbb\xbf5\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1: a byte order mark"),
    (b"g\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5,a\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1"),
    (b"5 a\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: no semicolon"),
    (b"5\0\r\nhello\r\n0\r\n\r\n", 400, Closed, "NUL"),
    (b"5;\0\r\nhello\r\n0\r\n\r\n", 400, Closed, "NUL"),
    (b"5;\xff\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1"),
    (b"5;a;b=c;d=\"e\"\r\nhello\r\n0;f\r\n\r\n", 200, Open, "RFC 9112, 7.1.1: more than one"),
    (b"5\t;\ta\t=\tb\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9112, 7.1.1: BWS"),
    (b"5;a=\"I \\\"love\\\"; \\\\x\\\\\";b\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9110, 5.6.4: quoted pairs (llhttp)"),
    (b"5;a=\"\"\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9110, 5.6.4: nothing in quotes"),
    (b"5;a=\"\t\xff\"\r\nhello\r\n0\r\n\r\n", 200, Open, "RFC 9110, 5.6.4: a tab, obs-text"),
    (b"5;\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: no name (llhttp)"),
    (b"5;=a\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: no name"),
    (b"5;a=\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: no value"),
    (b"5;a \r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: space at the end"),
    (b"5;a b\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: two words"),
    (b"5;a[=b\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: not a token (Http11Probe)"),
    (b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9112, 7.1.1: behind the quotes"),
    (b"5;a=\"b;c\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: quotes that do not end (llhttp)"),
    (b"5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: quotes whose end is quoted"),
    (b"5;a=\"b\\\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: a line end that is quoted"),
    (b"5;a=\"\0\"\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: NUL"),
    (b"5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: a CRLF in quotes (w4ke, Funky chunks 2; Netty CVE-2026-33870)"),
    (b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: an LF in quotes (w4ke, Funky chunks 2)"),
    (b"5;a=\"\r\"\r\nhello\r\n0\r\n\r\n", 400, Closed, "RFC 9110, 5.6.4: a CR in quotes (w4ke, Funky chunks 2)"),
    (b"5\r\r;ABCD\r\nhello\r\n0\r\n\r\n", 400, Closed, "EXT.TERM: CRs before an extension (llhttp, HTTP Garden 31)"),
    (b"5\nhello\r\n0\r\n\r\n", 400, Closed, "a bare LF behind the size"),
    (b"5\rhello\r\n0\r\n\r\n", 400, Closed, "a bare CR behind the size"),
    (b"5\r\r\nhello\r\n0\r\n\r\n", 400, Closed, "a bare CR behind the size"),
    (b"5;\nhello\r\n0\r\n\r\n", 400, Closed, "TERM.EXT, EXT.TERM: a bare LF in an extension (w4ke, Funky chunks)"),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", 400, Closed, "TERM.EXT, EXT.TERM: a bare CR in an extension (w4ke, Funky chunks)"),
    (b"5\r\nhelloX\r\n0\r\n\r\n", 400, Closed, "TERM.SPILL, SPILL.TERM: longer than its size"),
    (b"5\r\nhelloXY0\r\n\r\n", 400, Closed, "TWO.ONE: two bytes that are no line end (h11)"),
    (b"5\r\nhello0\r\n\r\n", 400, Closed, "ZERO.TWO: no line end"),
    (b"5\r\nhello\n0\r\n\r\n", 400, Closed, "ONE.TWO: a bare LF behind the data (w4ke, Funky chunks)"),
    (b"5\r\nhello\r0\r\n\r\n", 400, Closed, "ONE.TWO: a bare CR behind the data"),
    (b"5\r\nhello\n\r\n0\r\n\r\n", 400, Closed, "TERM.SPILL: a bare LF before the line end"),
    (b"5\r\nhello\rX\n0\r\n\r\n", 400, Closed, "SPILL.TERM: a line of its own behind the data"),
    (b"5\r\nhello\r_0\r\n\r\n", 400, Closed, "TWO.ONE: both bytes are looked at (h11)"),
    (b"5\r\nhello_\n0\r\n\r\n", 400, Closed, "TWO.ONE: both bytes are looked at (h11)"),
    (b"5\r\nhello\r\n\r\n0\r\n\r\n", 400, Closed, "an empty line before a size (HTTP Garden 17 and 24)"),
    (b"\r\n\r\n", 400, Closed, "an empty size (Go CVE, golang.org/issue/64517)"),
    (b"0\r\n\n", 400, Closed, "a bare LF at the end"),
    (b"0\n\r\n", 400, Closed, "a bare LF at the end"),
    (b"0\r\nAuthorization: b\r\nExpect: x\r\nConnection: close\r\nLast-Event-ID: c\r\n\r\n", 200, Open, "RFC 9110, 6.5.1: and mean nothing"),
    (b"0\r\n: y\r\n\r\n", 400, Closed, "a trailer without a name"),
    (b"0\r\nX: y\r\n z\r\n\r\n", 400, Closed, "a trailer that is folded"),
    (b"0\r\nX: y\rz\r\n\r\n", 400, Closed, "a trailer with a bare CR"),
    (b"0\r\nXX0\r\n\r\n", 400, Closed, "two bytes for an empty line (HTTP Garden 39)"),
    (b"0\r\n\rX\r\n\r\n", 400, Closed, "a bare CR at the end"),
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
    let zeros =
        |bytes: usize| format!("{CHUNKED}{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(bytes - 1)).into();
    let trailer =
        |bytes: usize| format!("{CHUNKED}0\r\nX: {}\r\n\r\n", "v".repeat(bytes - 5)).into();
    let trailers = |count: usize| format!("{CHUNKED}0\r\n{}\r\n", "X:\r\n".repeat(count)).into();
    let single = |count: usize| format!("{CHUNKED}{}0\r\n\r\n", "1\r\nx\r\n".repeat(count)).into();
    let method =
        |bytes: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(bytes)).into();
    let (longest, largest, most) = (limits.max_target, limits.max_head, limits.max_fields);
    let rows: [(Vec<u8>, u16, After, &str); 30] = [
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
        (size_line(256), 200, Open, "the longest line of a size"),
        (size_line(257), 400, Closed, "a longer one"),
        (
            size_line(9000),
            400,
            Closed,
            "and one without an end in sight",
        ),
        (zeros(256), 200, Open, "the most zeros before a size"),
        (zeros(257), 400, Closed, "one more"),
        (trailer(largest), 200, Open, "the largest trailer"),
        (trailer(largest + 1), 431, Closed, "a larger one"),
        (
            trailers(largest / 4),
            200,
            Open,
            "more trailer fields than a head may have: none is kept",
        ),
        (trailers(largest / 4 + 1), 431, Closed, "one more than fits"),
        (single(1000), 200, Open, "a thousand chunks of a byte"),
        (
            get("/echo", &format!("{}: y\r\n", "x".repeat(9000))),
            200,
            Open,
            "a long name",
        ),
        (method(1000), 501, Open, "a method of 1000 bytes"),
        (
            method(longest + 100),
            414,
            Closed,
            "one that is longer than a request line",
        ),
        (
            [b"\r\n".repeat(50), get("/echo", "")].concat(),
            200,
            Open,
            "empty lines before a request",
        ),
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

/// Whether the answer to a row has no body whatever it says.
fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|some| some == part)
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
    let mut sent = Vec::new();
    for piece in pieces {
        sent.extend_from_slice(piece);
        if raw.socket.write_all(piece).is_err() {
            break;
        }
    }
    let mut next = || {
        if is_head(&sent) {
            raw.head()
        } else {
            raw.answer()
        }
    };
    let mut answer = next();
    if answer.status == 100 {
        // Whoever sends the body late is told to go on, and only who asked for it.
        assert!(find(&sent, b"HTTP/1.1\r\n").is_some() && find(&sent, b"Expect: ").is_some());
        answer = next();
    }
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
    if answer.status >= 400 && !is_head(bytes) {
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

/// xorshift64*: enough to make bytes that nobody thought of, and the same ones again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }
}

/// A row with some bytes put in, taken out, doubled or changed, so that it is nearly right.
fn damaged(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    const SUSPECTS: &[u8] = b"\r\n\r\n\r\n :\t\0,;%/.0G\x0b\x7f\xff";
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let suspect = SUSPECTS[random.below(SUSPECTS.len())];
        match random.below(5) {
            0 => bytes[at] = suspect,
            1 => bytes.insert(at, suspect),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => {
                let end = (at + 1 + random.below(40)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => drop(bytes.splice(0..0, *b"\r\n")),
        }
    }
    bytes
}

#[test]
fn whatever_the_bytes_and_the_limits_it_does_not_matter_how_they_are_cut() {
    let seed = 0x5eed_0000_0000_0001;
    let mut random = Random(seed);
    let rows: Vec<_> = rows().into_iter().filter(|row| row.0.len() < 300).collect();
    for round in 0..20_000 {
        let row = &rows[random.below(rows.len())];
        let bytes = damaged(&mut random, &row.0);
        let limits = Config {
            max_head: 1 + random.below(300),
            max_target: 1 + random.below(100),
            max_fields: 1 + random.below(4),
            ..config()
        };
        let whole = parsed(&bytes, [], &limits);
        let cuts: Vec<_> = (0..bytes.len()).filter(|_| random.below(3) == 0).collect();
        for cuts in [cuts, (0..bytes.len()).collect()] {
            let (head, target) = (limits.max_head, limits.max_target);
            assert_eq!(
                parsed(&bytes, cuts, &limits),
                whole,
                "seed {seed:#x}, round {round}, max_head {head}, max_target {target}: {}",
                shown(&bytes, "damaged")
            );
        }
    }
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
