//! The whole server: [`Server`] joins a listener, a hub and its endpoints; [`Running`] is
//! a server that serves.
//!
//! `Server::bind` checks the configuration, lowers it to what the machine has room for
//! (`machine.rs`), and opens the hub, with its journal if there is one. `spawn` starts
//! `http::HttpServer` with [`Front`] as its handler, which passes each request to the
//! embedder's routes or to the built-in endpoints in `api/`.

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

/// A server that listens and does not serve yet. The system already accepts connections;
/// they wait until [`spawn`](Self::spawn).
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
    /// Whether other processes may have the listener, too.
    holders: Holders,
    /// The configuration, lowered to what the machine has room for.
    config: Config,
    /// How many rejected and evicted connections the machine has room for.
    reserves: Reserves,
    /// The handler of all requests, before it is moved into the `HttpServer`.
    front: Front,
}

impl Server {
    /// Listens on `address`. Port 0 chooses a free port, which
    /// [`local_addr`](Self::local_addr) returns.
    ///
    /// With `config.journal.dir` the journal is opened, and its latest events fill the
    /// history. This reads the disk.
    ///
    /// If the machine does not have room for `config.max_clients` clients, fewer are
    /// admitted. A warning in `config.report` names the limit of the machine and how to
    /// raise it.
    ///
    /// # Errors
    ///
    /// The address is in use, or it is not an address of this machine; the port is not
    /// permitted; the configuration contradicts itself; the machine does not have room
    /// for one client; a thread of the hub cannot be started; the journal cannot be
    /// opened ([`Journal::open`](crate::store::Journal::open)); or the file of tokens
    /// cannot be used.
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> io::Result<Server> {
        Server::new(TcpListener::bind(address)?, Holders::ThisServer, config)
    }

    /// Serves a listener that was made elsewhere, for example by a service manager. Other
    /// processes may have it, too, so a shutdown does not end it for them; instead it
    /// connects to the listener to wake its own `accept`. A non-blocking listener is made
    /// blocking, for all processes that have it.
    ///
    /// # Errors
    ///
    /// The errors of [`bind`](Self::bind), except those about the address.
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
            // Without a function of the embedder, a request that is not for a built-in
            // endpoint may be for one of its routes, and may need its body.
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

    /// The address of the listener, with the port that the system has chosen if the port
    /// was 0.
    ///
    /// # Errors
    ///
    /// The system does not return the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The hub, to publish from this program.
    pub fn hub(&self) -> &Hub {
        self.front.api.hub()
    }

    /// Calls `guard` whenever a request is about to do something, before the tokens of
    /// the configuration are checked. The guard gets the request and the action. It
    /// allows or refuses the action, narrows its topics, or leaves the decision to the
    /// configuration.
    ///
    /// The guard runs on the thread of the connection. For a request with a body it is
    /// called twice: before the body is read, and before the body is used. In the first
    /// call the body of the request is empty.
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

    /// Decides which requests to routes of your own need the bodies that they announce.
    /// The built-in endpoints decide for themselves. `wants_body` is called for a request
    /// with a body, when only its head has arrived. It may call [`Api::permit`], so that
    /// the body of a client without the right is not read either.
    ///
    /// If the body is not wanted, it is not read: the handler gets the request with an
    /// empty body, and the connection is closed after the answer. So a client that
    /// announces large bodies to unknown paths takes no memory.
    ///
    /// Without a call of this function, the body of each request is read before the
    /// handler is called, within [`Config::total_bodies`], because the request may be for
    /// a route of your own.
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

    /// Serves the built-in endpoints from now on, in new threads. Does not block.
    ///
    /// # Errors
    ///
    /// The thread that accepts connections cannot be started.
    pub fn spawn(self) -> io::Result<Running> {
        self.wants_body(|_, _| false).start()
    }

    /// Serves routes of your own, and with [`Api::answer`] the built-in endpoints.
    /// `handler` runs on the threads of the connections. A panic in it is answered with
    /// a 500. Does not block.
    ///
    /// A request with a body to a built-in endpoint is refused before `handler` is
    /// called, if its sender does not have the right. Routes of your own check rights
    /// with [`Api::permit`]. [`wants_body`](Self::wants_body) decides which of them need
    /// a body.
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
    /// The thread that accepts connections cannot be started.
    pub fn spawn_with(
        mut self,
        handler: impl Fn(Request, &Api) -> Response + Send + Sync + 'static,
    ) -> io::Result<Running> {
        self.front.handler = Box::new(handler);
        self.start()
    }

    /// Starts the HTTP server, with the front as its handler.
    fn start(self) -> io::Result<Running> {
        let (api, front) = (self.front.api.clone(), Box::new(self.front));
        api.report_open_access();
        let (config, reserves) = (self.config, self.reserves);
        let http = HttpServer::spawn(self.listener, self.holders, config, reserves, front)?;
        Ok(Running { http, api })
    }
}

/// The handler of all requests: the embedder's function, with the built-in endpoints at
/// hand.
struct Front {
    /// The built-in endpoints.
    api: Api,
    /// Answers each request. By default it is `Api::answer`.
    handler: Box<Answerer>,
    /// Whether the body of a request to a route of the embedder is to be read.
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

/// A running server. Dropping it shuts the server down, which blocks as
/// [`shutdown`](Self::shutdown) does.
#[derive(Debug)]
#[must_use = "dropping it shuts the server down"]
pub struct Running {
    http: HttpServer,
    api: Api,
}

impl Running {
    /// The address of the listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// The hub, to publish from this program.
    pub fn hub(&self) -> &Hub {
        self.api.hub()
    }

    /// Reads the file of [`tokens`](crate::AccessConfig::tokens) again. From now on
    /// requests are checked against the new tokens. Streams and polls whose tokens do not
    /// permit them any more are ended. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The file cannot be used. Then the old tokens remain in use.
    #[cfg(feature = "access")]
    pub fn reload_tokens(&self) -> io::Result<()> {
        self.api.reload_tokens()
    }

    /// Shuts the server down: ends each stream with a close event, waits for the requests
    /// in flight, closes the connections that are left after `Config::grace`, joins the
    /// threads, and closes the journal.
    ///
    /// Blocks for at most the grace and half a second, and then on the disk.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Blocks until the hub is closed, and then shuts down as
    /// [`shutdown`](Self::shutdown) does. A `main` can end with it. It blocks for ever if
    /// no thread calls [`Hub::close`] on a clone of the hub.
    ///
    /// The library does not touch the process, so it handles no signals. A crate that
    /// does, such as `ctrlc` or `signal-hook`, calls a function of yours at SIGTERM or
    /// SIGINT; let that close the hub:
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
        // ORDER: the HTTP server begins its shutdown before the hub is closed. So a
        // request that is answered with "the hub is closed" also gets
        // `Connection: close`.
        self.http.begin_shutdown();
        self.api.hub().close();
        self.http.shutdown();
        self.api.hub().end();
    }
}
