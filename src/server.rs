//! The whole server: a hub, its endpoints, and the listener in front of them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use crate::api::Api;
#[cfg(feature = "access")]
use crate::api::{Action, Verdict};
use crate::config::Config;
use crate::http::{Handler, Holders, HttpServer, Refusal, Request, Response};
use crate::hub::Hub;
use crate::machine::{self, Reserves};

/// A server that listens and is about to serve.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tiny_sse::{Config, Event, Server};
/// let server = Server::bind("127.0.0.1:8080", Config::default())?.spawn()?;
/// server.hub().publish(Event::new("hello"))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    holders: Holders,
    config: Config,
    reserves: Reserves,
    front: Front,
}

impl Server {
    /// Listens on `address`. Port 0 is any free one: see [`local_addr`](Self::local_addr).
    ///
    /// With `config.journal.dir` the journal is opened, and what it has fills the history.
    ///
    /// If the machine cannot give what `config.max_clients` clients need, fewer are let in, and
    /// `config.report` is told which limit it is and how to raise it.
    ///
    /// # Errors
    ///
    /// The address is in use or not this machine's, the port is not permitted, the configuration
    /// contradicts itself, there is no thread for the hub, the journal cannot be opened
    /// ([`Journal::open`](crate::store::Journal::open)), or the file of tokens cannot be used.
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> io::Result<Server> {
        Server::new(TcpListener::bind(address)?, Holders::ThisServer, config)
    }

    /// Serves a listener that was made elsewhere. Other processes may hold it too: a shutdown leaves it to
    /// them, and connects to the listener to wake its own `accept`. A listener that does not block is made
    /// blocking, for all its holders.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind), but for the address.
    pub fn from_listener(listener: TcpListener, config: Config) -> io::Result<Server> {
        Server::new(listener, Holders::MaybeOthers, config)
    }

    fn new(listener: TcpListener, holders: Holders, mut config: Config) -> io::Result<Server> {
        config.check()?;
        let reserves = machine::lower_limits(&mut config)?;
        let address = listener.local_addr()?;
        #[cfg(feature = "journal")]
        let hub = crate::store::hub(&config)?;
        #[cfg(not(feature = "journal"))]
        let hub = Hub::new(config.clone())?;
        let front = Front {
            api: Api::at(hub, config.clone(), Some(address))?,
            handler: Box::new(|request, api| api.answer(request)),
            // A request that was not declared may be for a route of the embedder.
            wants_body: Box::new(|_, _| true),
        };
        Ok(Server {
            listener,
            holders,
            config,
            reserves,
            front,
        })
    }

    /// The address that is listened on, with its real port.
    ///
    /// # Errors
    ///
    /// The system will not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The hub, to publish from this program.
    pub fn hub(&self) -> &Hub {
        self.front.api.hub()
    }

    /// Asks `guard` whenever a request is about to do something, before the tokens of the
    /// configuration are looked at. It sees the request (its body may not be there yet) and allows,
    /// refuses, narrows the topics, or leaves it to the configuration. It runs on the connection's
    /// thread, and for a request with a body twice: before the body is read and before it is used.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tiny_sse::{Action, Config, Pattern, Server, Verdict, http::{Request, Response}};
    ///
    /// /// A session of your own.
    /// fn user(request: &Request) -> Option<&str> {
    ///     request.field("x-user").ok().flatten()
    /// }
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let running = server
    ///     .guard(|request, action| match (user(request), action) {
    ///         (None, _) => Verdict::Refuse(Response::error(401, "who are you?")),
    ///         // A user gets only their own topics, whatever the request asks for, and keeps a
    ///         // `client_id` when they reconnect from another address.
    ///         (Some(user), Action::Subscribe(_)) => match Pattern::new(&format!("users/{user}/*")) {
    ///             Ok(own) => Verdict::Narrow([own].into_iter().collect()).known_as(user),
    ///             Err(error) => Verdict::Refuse(Response::error(400, error)),
    ///         },
    ///         (Some(_), _) => Verdict::AsConfigured,
    ///     })
    ///     .spawn()?;
    /// # running.shutdown();
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "access")]
    pub fn guard(
        mut self,
        guard: impl Fn(&Request, &Action<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Server {
        self.front.api = self.front.api.guard(guard);
        self
    }

    /// Says which requests to routes of your own want the bodies that they announce. The built-in
    /// endpoints say so for themselves. `wants_body` sees the head of a request that has a body; it may
    /// ask [`Api::permit`], so that the body of a client without the right is not read either.
    ///
    /// A request whose body is not wanted is answered by its head: the handler gets it with an empty
    /// body, and its connection is closed after the answer. So a client that announces large bodies to
    /// unknown paths takes no memory.
    ///
    /// Without this, the body of each request is read before the handler is asked, within
    /// [`Config::total_bodies`], because the request may be one to a route of your own.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tiny_sse::{Config, Server, http::Response};
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let running = server
    ///     .wants_body(|request, _| (request.method(), request.path()) == ("POST", "/length"))
    ///     .spawn_with(|request, api| match (request.method(), request.path()) {
    ///         ("POST", "/length") => Response::text(200, request.body().len().to_string()),
    ///         _ => api.answer(request),
    ///     })?;
    /// # running.shutdown();
    /// # Ok(()) }
    /// ```
    pub fn wants_body(
        mut self,
        wants_body: impl Fn(&Request, &Api) -> bool + Send + Sync + 'static,
    ) -> Server {
        self.front.wants_body = Box::new(wants_body);
        self
    }

    /// Serves the built-in endpoints from now on, in threads of its own. Does not block.
    ///
    /// # Errors
    ///
    /// The threads that accept connections cannot be had.
    pub fn spawn(self) -> io::Result<Running> {
        self.wants_body(|_, _| false).start()
    }

    /// Serves routes of your own, and by [`Api::answer`] the built-in ones. `handler` runs on the
    /// threads of the connections; a panic in it is a 500. Who may not do what a built-in endpoint
    /// would do is refused before the body is read, so before `handler` is asked; what it does by
    /// itself it guards by [`Api::permit`]. Say by [`wants_body`](Self::wants_body) which of your routes
    /// have a use for a body.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tiny_sse::{Config, Server, http::Response};
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let running = server.spawn_with(|request, api| match (request.method(), request.path()) {
    ///     ("GET", "/hello") => Response::text(200, "hello\n"),
    ///     _ => api.answer(request),
    /// })?;
    /// # running.shutdown();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The threads that accept connections cannot be had.
    pub fn spawn_with(
        mut self,
        handler: impl Fn(Request, &Api) -> Response + Send + Sync + 'static,
    ) -> io::Result<Running> {
        self.front.handler = Box::new(handler);
        self.start()
    }

    fn start(self) -> io::Result<Running> {
        let (api, front) = (self.front.api.clone(), Box::new(self.front));
        api.warn_of_open_doors();
        let (config, reserves) = (self.config, self.reserves);
        let http = HttpServer::spawn(self.listener, self.holders, config, reserves, front)?;
        Ok(Running { http, api })
    }
}

/// The built-in endpoints, after the routes of the embedder.
struct Front {
    api: Api,
    handler: Box<Answerer>,
    /// Whether a request to a route of the embedder wants its body.
    wants_body: Box<BodyFilter>,
}

type Answerer = dyn Fn(Request, &Api) -> Response + Send + Sync;
type BodyFilter = dyn Fn(&Request, &Api) -> bool + Send + Sync;

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Front(..)")
    }
}

impl Handler for Front {
    fn wants_body(&self, request: &Request) -> bool {
        self.api.wants_body(request) || (self.wants_body)(request, &self.api)
    }

    fn authorize(&self, request: &Request) -> Result<(), Response> {
        self.api.admit(request)
    }

    fn answer(&self, request: Request) -> Response {
        (self.handler)(request, &self.api)
    }

    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        self.api.refuse(refusal, request)
    }
}

/// A server that runs. Dropping it shuts the server down.
#[derive(Debug)]
#[must_use = "dropping it shuts the server down"]
pub struct Running {
    http: HttpServer,
    api: Api,
}

impl Running {
    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// The hub, to publish from this program.
    pub fn hub(&self) -> &Hub {
        self.api.hub()
    }

    /// Reads the file of [`tokens`](crate::AccessConfig::tokens) again. Requests are judged by it from now on, and
    /// streams and polls whose token does not let them in any more are ended. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The file cannot be used. Then all stays as it was.
    #[cfg(feature = "access")]
    pub fn reload_tokens(&self) -> io::Result<()> {
        self.api.reload_tokens()
    }

    /// Ends all streams with a farewell, lets requests in flight finish, closes the rest when
    /// `Config::grace` has passed, joins all threads, and brings the journal to its end. Blocks until
    /// then, and on the disk.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Serves until the hub is closed, and then shuts down as [`shutdown`](Self::shutdown) does. A `main` can
    /// end with it. Without a call of [`Hub::close`] on any clone of the hub it blocks for ever.
    ///
    /// The library does not touch the process, so it handles no signals. A crate that does, such as `ctrlc` or
    /// `signal-hook`, calls a function of yours at SIGTERM or SIGINT; let that close the hub:
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// # mod ctrlc {
    /// #     pub fn set_handler(handler: impl FnMut() + Send + 'static) { std::thread::spawn(handler); }
    /// # }
    /// use tiny_sse::{Config, Server};
    ///
    /// let running = Server::bind("127.0.0.1:0", Config::default())?.spawn()?;
    /// let hub = running.hub().clone();
    /// ctrlc::set_handler(move || hub.close());
    /// running.wait();
    /// # Ok(()) }
    /// ```
    pub fn wait(self) {
        self.api.hub().wait_until_closed();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // ORDER: a client that is told that the hub is closed is told, too, that its connection is.
        self.http.begin_shutdown();
        self.api.hub().close();
        self.http.shutdown();
        self.api.hub().end();
    }
}
