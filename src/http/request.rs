//! A complete request, as a handler gets it. `Connection::next_request` makes it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Weak;
use std::time::Duration;

use super::budget::{Budget, Share};
use super::forwarded::ClientAddr;
use super::head::RequestHead;
use super::target::{Parameter, percent_decoded};
use super::{Refusal, Version};
use crate::socket::seems_disconnected;
use crate::wire::{Framing, RemoteAddr};

/// A request: its head, its body, and its sender.
#[derive(Debug)]
pub struct Request {
    pub(super) head: RequestHead,
    /// The decoded body; empty while it has not been read.
    pub(super) body: Vec<u8>,
    /// The request announces a body that has not been read.
    pub(super) has_unread_body: bool,
    /// The other end of the socket.
    pub(super) peer: SocketAddr,
    /// The client. It is the peer, unless the peer is a trusted proxy.
    pub(super) client: ClientAddr,
    /// The connection's socket, to find out whether the client is still connected. It is
    /// weak so that a handler that keeps the request does not keep the socket open.
    pub(super) socket: Weak<TcpStream>,
    /// The budget for the large answers of all requests.
    pub(super) answer_budget: Budget,
}

impl Request {
    /// The method, unchanged. Methods are case-sensitive: `GET`, not `get`.
    pub fn method(&self) -> &str {
        self.head.method()
    }

    /// The path, percent-decoded and without the query. It begins with `/`, or it is `*`.
    pub fn path(&self) -> &str {
        &self.head.path
    }

    /// The parts of the [`path`](Self::path) between its slashes, for routes with a
    /// variable part:
    ///
    /// ```
    /// use tiny_sse::http::{Request, Response};
    /// fn answer(request: Request) -> Response {
    ///     match (request.method(), &*request.segments()) {
    ///         ("GET", ["users", id]) => Response::text(200, format!("user {id}\n")),
    ///         ("GET", ["files", ..]) => Response::text(200, "a file\n"),
    ///         _ => Response::error(404, "not here"),
    ///     }
    /// }
    /// ```
    ///
    /// `/` has no segments. `/a/` has two, and the second one is empty. A slash that was
    /// sent as `%2F` separates segments, too.
    pub fn segments(&self) -> Vec<&str> {
        match self.path() {
            "/" => Vec::new(),
            path => path.strip_prefix('/').unwrap_or(path).split('/').collect(),
        }
    }

    /// The host that the request is for, with its port if the client sent one. It comes
    /// from the target if that is a whole URL, otherwise from the field `Host`. It may be
    /// empty. Only a request of HTTP/1.0 may have none.
    pub fn host(&self) -> Option<&str> {
        self.head.host()
    }

    /// The first value of a query parameter, decoded as browsers decode HTML forms: `+`
    /// is a space, a `%` without two hexadecimal digits stays as it is, and U+FFFD
    /// replaces bytes that are not UTF-8.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries(name).next()
    }

    /// All values of a query parameter, in order.
    pub fn queries<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.parameters()
            .filter(move |parameter| parameter.name == name)
            .map(|parameter| parameter.value)
    }

    /// All parameters of the query, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        self.head.query.iter()
    }

    /// The value of a header field. `None` if the request does not have the field.
    ///
    /// # Errors
    ///
    /// The request has the field more than once, or its value is not UTF-8.
    /// [`Refusal::status`] is 400.
    pub fn field(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.head.fields(name);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Refusal::Field(format!("{name} is there more than once")));
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Refusal::Field(format!("{name} is not UTF-8"))),
        }
    }

    /// The values of all header fields with this name, in order and unchanged.
    pub fn fields<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.head.fields(name)
    }

    /// The token in `Authorization: Bearer TOKEN`, without white space around it.
    ///
    /// # Errors
    ///
    /// As for [`field`](Self::field).
    pub fn bearer(&self) -> Result<Option<&str>, Refusal> {
        let credentials = self.field("authorization")?;
        // SPEC: RFC 9110, 11.4: upper and lower case are the same in the scheme.
        let (scheme, token) = credentials.and_then(|text| text.split_once(' ')).unzip();
        let is_bearer = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
        Ok(token.filter(|_| is_bearer).map(str::trim_ascii))
    }

    /// The values of the cookies with this name, in order. Quotes around a value are
    /// removed. Percent-encoding is decoded, because most libraries encode cookies so,
    /// and U+FFFD replaces bytes that are not UTF-8.
    pub fn cookies<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        // SPEC: RFC 6265, 4.2.1: `cookie-string = cookie-pair *( ";" SP cookie-pair )`.
        let fields = self.fields("cookie");
        let pairs = fields.flat_map(|field| field.split(|&byte| byte == b';'));
        pairs.filter_map(move |pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            // SPEC: RFC 6265, 4.1.1: `cookie-value = *cookie-octet / ( DQUOTE
            // *cookie-octet DQUOTE )`.
            let value = match value.strip_prefix(b"=")? {
                [b'"', quoted @ .., b'"'] => quoted,
                plain => plain,
            };
            Some(match value.contains(&b'%') {
                true => percent_decoded(value).into(),
                false => String::from_utf8_lossy(value),
            })
        })
    }

    /// The body, without its chunk sizes if it came in chunks. At most `Config::max_body`
    /// bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body. It is not copied.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The other end of the connection: the client, or a proxy in front of it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address of the client. It is the address of the [`peer`](Self::peer), unless
    /// the peer is one of the proxies in
    /// [`Config::trust_proxy`](crate::Config::trust_proxy); then it is the address that
    /// the proxy names.
    ///
    /// The list in `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right.
    /// Trusted proxies are skipped, and the first other address is the client's. Any
    /// client can write what is further to the left. If the field is missing or
    /// malformed, or if the two fields contradict each other, the result is the address
    /// of the last proxy that is known. An IPv4 address that comes from an IPv6 socket,
    /// such as `::ffff:192.0.2.7`, is returned as an IPv4 address.
    pub fn client(&self) -> IpAddr {
        self.client.address
    }

    /// Whether [`client`](Self::client) is the address of the client. If not, it is the
    /// address of a trusted proxy that does not name its client, or names it in a way
    /// that is not understood.
    pub(crate) fn is_client_known(&self) -> bool {
        self.client.is_known
    }

    /// The addresses of the peer and of the client, for a log line.
    pub(crate) fn remote_addr(&self) -> RemoteAddr {
        RemoteAddr {
            peer: self.peer,
            client: self.client.address,
        }
    }

    /// Whether the client has disconnected while its answer is being made, as far as the
    /// socket shows it. Only the handler of this request may call this, because it makes
    /// the socket non-blocking for a moment. Does not block.
    pub(crate) fn is_abandoned(&self) -> bool {
        let socket = self.socket.upgrade();
        socket.is_none_or(|socket| seems_disconnected(&socket))
    }

    /// Takes the bytes of an answer from the answer budget before the answer is made; see
    /// [`Response::reserved`](super::Response::reserved). Blocks for at most `timeout`
    /// while the budget has no room. `None`: it has had no room for that time.
    pub(crate) fn reserve_answer(&self, bytes: usize, timeout: Duration) -> Option<Share> {
        let mut share = self.answer_budget.share();
        share.grow_within(bytes, timeout).then_some(share)
    }

    /// The version of HTTP in the request.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// How a stream to this client marks its end: by chunks, or in HTTP/1.0 by closing
    /// the connection.
    pub fn stream_framing(&self) -> Framing {
        self.head.version().stream_framing()
    }
}
