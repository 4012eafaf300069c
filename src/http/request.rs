//! A whole request, as a handler gets it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Weak;
use std::time::Duration;

use super::budget::{Budget, Share};
use super::forwarded::ClientAddr;
use super::head::RequestHead;
use super::target::{Parameter, percent_decoded};
use super::{Refusal, Version};
use crate::socket::seems_gone;
use crate::wire::{Framing, RemoteAddr};

/// A request: its head, its body, and who sent it.
#[derive(Debug)]
pub struct Request {
    pub(super) head: RequestHead,
    pub(super) body: Vec<u8>,
    /// It has a body that was not read.
    pub(super) is_cut: bool,
    pub(super) peer: SocketAddr,
    pub(super) client: ClientAddr,
    /// To look whether the client is still there. Who keeps the request keeps no connection by it.
    pub(super) socket: Weak<TcpStream>,
    /// What all answers together may take.
    pub(super) answer_budget: Budget,
}

impl Request {
    /// The method, as it came: `GET`, not `get`.
    pub fn method(&self) -> &str {
        self.head.method()
    }

    /// The path, percent-decoded, without the query; it begins with `/`, or is `*`.
    pub fn path(&self) -> &str {
        &self.head.path
    }

    /// The parts of the [`path`](Self::path) between its slashes, for routes with a variable part:
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
    /// `/` has none, and `/a/` has two, of which the second is empty. A slash that came as `%2F` separates, too.
    pub fn segments(&self) -> Vec<&str> {
        match self.path() {
            "/" => Vec::new(),
            path => path.strip_prefix('/').unwrap_or(path).split('/').collect(),
        }
    }

    /// The host that is asked for, with its port if that is said: of the target, if it is a whole URL,
    /// and else of the field `Host`. It may be empty; `None` is for HTTP/1.0.
    pub fn host(&self) -> Option<&str> {
        self.head.host()
    }

    /// The first value of a query parameter, decoded as browsers decode HTML forms: `+` is a space, a
    /// `%` without two hexadecimal digits stays, and U+FFFD replaces what is not UTF-8.
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

    /// The value of a header field, if it is there once and is UTF-8 text.
    ///
    /// # Errors
    ///
    /// It is there more than once, or is not UTF-8: a 400, by [`Refusal::status`].
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

    /// The values of all header fields of that name, in order, as they came.
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
        // SPEC: RFC 9110, 11.4: the scheme has no case.
        let (scheme, token) = credentials.and_then(|text| text.split_once(' ')).unzip();
        let is_bearer = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
        Ok(token.filter(|_| is_bearer).map(str::trim_ascii))
    }

    /// The values of the cookies with this name, in order. Quotes around a value are taken off, `%41` is
    /// resolved, as most libraries write cookies, and U+FFFD replaces what is not UTF-8.
    pub fn cookies<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        // SPEC: RFC 6265, 4.2.1: `cookie-string = cookie-pair *( ";" SP cookie-pair )`.
        let fields = self.fields("cookie");
        let pairs = fields.flat_map(|field| field.split(|&byte| byte == b';'));
        pairs.filter_map(move |pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            // SPEC: RFC 6265, 4.1.1: `cookie-value = *cookie-octet / ( DQUOTE *cookie-octet DQUOTE )`.
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

    /// The body, decoded from its chunks if it had any. At most `Config::max_body` bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without a copy.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The other end of the connection: the client, or a proxy in front of it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address of the client: that of the [`peer`](Self::peer), or, if that is one of the proxies
    /// in [`Config::trust_proxy`](crate::Config::trust_proxy), the one that it says its client has.
    ///
    /// The list in `Forwarded` (RFC 7239) or `X-Forwarded-For` is read from the right, past proxies
    /// that are trusted, to the first address that is not: what is left of that, anybody may have
    /// written. Where the proxy says nothing, it cannot be read, or the two fields contradict each other,
    /// it is the last proxy whose address is known. An IPv4 address is one in either family of sockets.
    pub fn client(&self) -> IpAddr {
        self.client.address
    }

    /// Whether [`client`](Self::client) is the address of the client. False: it is the address of a
    /// trusted proxy that does not say who its client is, or says it in a way that is not understood.
    pub(crate) fn is_client_known(&self) -> bool {
        self.client.is_known
    }

    /// Whether the client is known, and is this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.client.is_known && self.client.address.is_loopback()
    }

    /// Both of these, for a line of the log.
    pub(crate) fn remote_addr(&self) -> RemoteAddr {
        RemoteAddr {
            peer: self.peer,
            client: self.client.address,
        }
    }

    /// Whether the client has gone while its answer is still being made: as far as can be seen, and
    /// only by the handler, whose the socket is until it returns.
    pub(crate) fn is_abandoned(&self) -> bool {
        let socket = self.socket.upgrade();
        socket.is_none_or(|socket| seems_gone(&socket))
    }

    /// Takes the memory of an answer before the answer is made; see
    /// [`Response::reserved`](super::Response::reserved). Waits for it for up to `patience`. `None`: the answers of others have all of it.
    pub(crate) fn reserve_answer(&self, bytes: usize, patience: Duration) -> Option<Share> {
        let mut share = self.answer_budget.share();
        share.grow_within(bytes, patience).then_some(share)
    }

    /// The version of HTTP that the client speaks.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// How a stream to this client is delimited.
    pub fn stream_framing(&self) -> Framing {
        self.head.version().stream_framing()
    }
}
