//! The rules of the server in full: what the README says in short. This module has no
//! code.
//!
//! [Streams](#streams) · [Polls](#polls) · [Publishing](#publishing) · [Rights](#rights)
//! · [Pages of other sites](#pages-of-other-sites) · [Proxies](#proxies) · [The
//! journal](#the-journal) · [Limits](#limits) · [Connections](#connections) ·
//! [Restarts](#restarts) · [The program](#the-program)
//!
//! # Streams
//!
//! `GET /events`, `GET /events/{topic}` and `GET /events?topic=a&topic=b/*` are streams.
//! The following parameters of the query change them. Streams ignore unknown parameters,
//! except those that look like a known one (`?topics=`, `?channel=`): they are
//! answered 400.
//!
//! | parameter | effect |
//! |---|---|
//! | `topic=NAME` | subscribes to this topic too. `NAME` may end in `*`: then it stands for all topics that begin like this |
//! | `client_id=NAME` | sets the client's id. A client that has the id is replaced if it has the same credential; else the answer is 403 |
//! | `last_event_id=ID` | the cursor, for pages that create a new `EventSource`. `lastEventId`, which polyfills send, wins over it, and the header `Last-Event-ID` wins over both. `earliest` replays everything that is retained |
//! | `heartbeat=event` | sends heartbeats as events named `heartbeat`, without an id, instead of comments |
//!
//! An id consists of a time in milliseconds and a sequence number. The sequence number
//! begins at a random value each time the server starts, so that an id of another server,
//! or of a time before a restart, is not mistaken for an id of this server. The first id
//! of a stream without a cursor is the id of the latest event, or of the server's start
//! if there is no event yet. A cursor is never refused: one that cannot be parsed is
//! `unknown`.
//!
//! A stream that the server ends has a last event, `{"type":"closed","reason":"…"}`:
//!
//! | reason | cause | `retry:` |
//! |---|---|---|
//! | `replaced` | another stream has the same `client_id` | one day, because an `EventSource` cannot be told to stop |
//! | `kicked` | `DELETE /clients/{client_id}`, `DELETE /users/{user}` | one day |
//! | `expired` | the token is not valid any more | up to twice the usual time, because many clients may be affected |
//! | `closing` | the server shuts down | the usual time, and 2 ms more for each client that was told before |
//!
//! A client that vanishes without closing its connection (a pulled cable) is disconnected
//! within two heartbeats, or within one heartbeat and two write timeouts, whichever is
//! longer: on Linux the program sets `TCP_USER_TIMEOUT` on its listener. On a listener of
//! your own, set it yourself; otherwise the kernel gives up after about 15 minutes
//! (`net.ipv4.tcp_retries2`).
//!
//! # Polls
//!
//! A poll is one request for clients that cannot read a stream. The answer is a JSON
//! array of the events that the client missed, or of the first events that arrive within
//! `wait` seconds (0 to 60). Every answer, also an empty one, has a `Last-Event-ID`. A
//! client that sends it with its next poll misses nothing between the two. If events were
//! lost, the array begins with the `recovery` event.
//!
//! ```text
//! GET /poll?topic=chat&wait=30 HTTP/1.1
//! Host: 127.0.0.1:8080
//! Last-Event-ID: 1795326000123-415203811
//!
//! HTTP/1.1 200 OK
//! Last-Event-ID: 1795326004711-731902466
//!
//! [{"id":"1795326004711-731902466","event":"greeting","data":"hello"}]
//! ```
//!
//! # Publishing
//!
//! - `POST /events` and `POST /events/{topic}` publish the body as it is, a final line
//!   break included.
//! - With `Content-Type: application/x-ndjson` (or `jsonl`) each line is an event. All of
//!   them are published, or none.
//! - `POST /broadcast` publishes a JSON object. Its member `event` is the event's name;
//!   `?topic=` sets the topic.
//! - `POST /send` publishes a JSON object without its member `_event`, which is the
//!   event's name.
//! - `POST /clients/{client_id}` sends an event to one client. The event is not kept in
//!   the history.
//!
//! The names `system`, `recovery` and `heartbeat` are reserved for the server. A name or
//! an id has at most 255 bytes; an id is visible ASCII; a `retry` is between 100 ms and
//! one day. Everything else is answered 400, and so is a `POST` or `DELETE` with an
//! unknown parameter. A form (`curl -F`, `multipart/form-data`) is answered 415:
//! `curl --data-binary @FILE` sends the file itself.
//!
//! An id that the publisher chose is known per topic for as long as the event is
//! retained; a second event with the same id is answered 409. A publisher cannot use up
//! the ids of a topic to which it may not publish. A client that reconnects with such an
//! id resumes after the last event of this id among its topics, so topics that are read
//! together should not share ids.
//!
//! # Rights
//!
//! | request | required right |
//! |---|---|
//! | `GET /events…`, `GET /poll` | subscribe, to each of the topics; without a topic, to any topic |
//! | `POST /events…`, `/broadcast`, `/send` | publish, to the topic; without a topic, to `*` |
//! | `POST` and `DELETE /clients/{client_id}`, `DELETE /users/{user}` | publish to `*` |
//! | `GET /stats?clients=1` | publish to `*`; where publishing needs no token: subscribe to `*` |
//! | `GET /stats`, `GET /metrics` | subscribe to `*` |
//! | `GET /health`, the console, the JavaScript files | none |
//!
//! A server is *local* if it listens on a loopback address and trusts no proxy. There a
//! client without a token may do everything for which no token is set. Any other server
//! is *public*. There a client without a token receives the events without a topic, and
//! the topics of `--public PATTERN` (repeatable), and may do nothing else, unless a file
//! of tokens grants it to every client. `--open` allows everything to every client.
//!
//! In the file of tokens, the lines of one token add up, and `*` in the place of a token
//! grants to every client. With a file, every request needs a grant. SIGHUP reads the
//! file again: a file with an error changes nothing, and streams that have lost their
//! right end. A file that every user of the machine may read or write is refused. Tokens
//! are compared in constant time and never logged. Every user of the machine can read the
//! command line (`--publish-token`), but not the environment (`TINY_SSE_PUBLISH_TOKEN`).
//! A credential of systemd (`LoadCredential=`, `--tokens %d/NAME`) works too; before
//! systemd 260 a change to it needs a restart.
//!
//! While a client has an id, another client takes the id only with the same credential:
//! the same user or the same token, or, if neither has a token, the same address (of
//! IPv6, the same /64). [`Verdict::known_as`](crate::Verdict::known_as) lets your own
//! code decide which requests come from the same client.
//!
//! # Signed tokens
//!
//! With `--jwt-key FILE` the server accepts JSON Web Tokens with the algorithm HS256. A
//! backend makes one for each of its users, with a library that it has, and the server
//! needs no list of users. The payload:
//!
//! | claim | type | meaning |
//! |---|---|---|
//! | `subscribe`, `publish` | lists of topics and patterns, at most 64 in each | the rights; also as members of `mercure`, but not in both places |
//! | `exp` | seconds since 1970 | the end of the token; required with `subscribe` |
//! | `nbf` | seconds since 1970 | the beginning |
//! | `sub` | text of 1 to 255 bytes | the user |
//! | `aud` | text or a list of texts | must contain the name of `--jwt-audience`, if that is given |
//!
//! A claim of the wrong type, a member that is there twice, another algorithm, `crit` and
//! `b64` make the token invalid. Clocks may differ by 60 s. The answer 401 has the reason
//! in `WWW-Authenticate` (`error_description`), and so has the log; neither repeats
//! anything of the token.
//!
//! A stream ends with its token, at `exp` or up to 3 s later, with the reason `expired`;
//! a poll answers then. An `EventSource` whose cookie was renewed resumes.
//! `sse-client.js` asks its function `token` for the next token 30 s before the end, or,
//! if the token lives less than 300 s, at nine tenths of its life. The stream of a client
//! that connects in the 60 s after `exp` lasts until these are over.
//!
//! `sub` is the user of a stream: `/stats?clients=1` shows it, the user's streams may
//! take over each other's client ids, and `DELETE /users/{user}` ends all streams and
//! polls of a user and answers with their number (`ended`), or 404. A token that has not
//! ended yet can connect again, so a backend that bans a user also stops making tokens
//! for it.
//!
//! A line of the key file is `[NAME] KEY [until TIME]`. `KEY` is its text, or `base64:`
//! and bytes in base64; it has at least 32 bytes. A token whose header has a `kid` is
//! verified with the key of that name, or, if there is none, with the keys without a
//! name. To replace a key, add the new one, send SIGHUP, let the backend use the new one,
//! and end the old one after the last of its tokens. A key that is removed or over ends
//! its streams. There are at most 16 keys. `TINY_SSE_JWT_KEY` is a key itself, instead of
//! the file.
//!
//! With a key, every request needs a grant, as with a file of tokens; `*` lines of such a
//! file grant to every client. A signed token in a URL (`?token=`) must end within 10
//! minutes.
//!
//! # Pages of other sites
//!
//! A page of another site may read streams. It may not publish, see the clients or choose
//! a `client_id`: such a request is answered 403, with or without a token, if its
//! `Origin`, `Sec-Fetch-Site` or `Referer` names another site.
//! `--cors-origin https://app.example.org` (repeatable) allows the pages of this origin
//! to publish, with cookies; then only pages of these origins may read.
//!
//! Where a request needs no token because it comes from this machine, its `Host` must be
//! `localhost`, end in `.localhost`, or be an address such as `127.0.0.1` or `[::1]`,
//! with any port. The reason is DNS rebinding: anybody can make another name resolve to
//! 127.0.0.1, and browsers then treat the pages of that name as pages of this server.
//! `--cors-origin http://NAME:PORT` allows a name of your own.
//!
//! # Proxies
//!
//! Behind a proxy all clients have the proxy's address. `--trust-proxy ADDR` (or
//! `ADDR/PREFIX`; repeatable) makes the server believe the proxy: it reads `Forwarded` or
//! `X-Forwarded-For` from the right, skips trusted proxies, and takes the first other
//! address. This address is shown in `/stats?clients=1` and in the log, and
//! `--max-per-ip` counts requests and streams under it. The proxy must append to one of
//! the two fields. If both are missing, empty or invalid, or contradict each other, the
//! proxy's own address is counted and shown, and the client has no right that depends on
//! its address. `X-Real-IP` is not read.
//!
//! A proxy in front should wait longer for the server than the server may be silent (a
//! heartbeat, 15 s; a poll, 60 s), and should close an idle connection before the server
//! does (15 s): a `POST` that crosses the close would be answered 502.
//!
//! # The journal
//!
//! The journal (`--journal DIR`) is an event stream itself, in plain text:
//!
//! ```text
//! : event 1796077517846-496174390 чат
//! id: 1796077517846-496174390
//! data: привет
//! : crc 1464cf56
//! ```
//!
//! | `--sync` | an acknowledged event survives | a publisher waits for |
//! |---|---|---|
//! | `always` | a power failure | an `fsync`, shared by all publishers that wait at the same time |
//! | `interval` | the end of the process; a power failure may lose the last second | nothing, except when a file of 32 MiB is full |
//! | `off` | the end of the process | nothing |
//!
//! At the start an incomplete last record, which a crash leaves, is cut off with a
//! warning. Damage before good records is an error that names the file and the byte.
//! `--repair` continues without the rest of that file, saves it beside the file, and
//! tells clients of the gap. If the disk is full, publishers get 503, and no event is
//! delivered that is not kept. The oldest files may be deleted at any time. The directory
//! has the mode 0700, the files 0600; wider modes of an existing journal are narrowed
//! with a warning.
//!
//! The file that is written to belongs to the server alone. If it is removed, moved,
//! replaced, truncated or edited while the server runs, the next event goes to a new
//! file, and an error is logged: events in the old file are lost for replays after a
//! restart, and clients that have not received its last event are then told of a gap. If
//! the file still begins with all acknowledged events, the journal continues in this file
//! with a warning. If the whole directory is moved or removed, publishers get 503 until
//! it is back or the server is restarted. A journal whose last id is near 2^64 is refused
//! at the start; one whose last id is more than a day ahead of the clock causes a
//! warning.
//!
//! # Limits
//!
//! | option | default | when it is reached |
//! |---|---|---|
//! | `--max-clients` | 1,000 | 503 `Too many connections`; lowered with a warning if the machine allows less, after `--extra-connections` |
//! | `--extra-connections` | 256 | a new connection evicts the one that has waited longest for its request; 503 if none waits |
//! | `--max-per-ip` | off | 503 that names the address; in IPv6 a /64 counts as one |
//! | `--max-head` | 16 KiB | 431 |
//! | `--max-fields` | 100 | 431 |
//! | `--max-target` | 8 KiB | 414 |
//! | `--max-body` | 1 MiB | 413; also if the events of one request, with names and topics, have more than four times as many bytes |
//! | `--total-bodies` | 64 MiB | 503 if the bodies of all requests together would be larger; bodies of at most 4 KiB are not counted |
//! | `--total-answers` | 64 MiB | 503 if all responses that are being written would be larger; responses of at most 16 KiB are not counted |
//! | `--max-patterns` | 64 | 400 |
//! | `--head-timeout` | 10 s | 408 |
//! | `--body-timeout` | 30 s | 408 |
//! | `--idle-timeout` | 15 s | the connection is closed |
//! | `--write-timeout` | 10 s | the client is disconnected |
//! | `--queue-bytes` | 1 MiB | the client is disconnected; it can resume from the history |
//! | `--total-queues` | auto | the clients with the largest backlogs are disconnected; `auto` is 64 queues, or a quarter of the memory that the process may use, whichever is more |
//! | `--send-buffer` | 128 KiB | the kernel accepts no more bytes for a client that does not read, and its queue begins to fill |
//! | `--history` | 10,000 | the oldest event is evicted, unless all events together are smaller than three queues |
//! | `--history-bytes` | 16 MiB | the oldest event is evicted; at least three queues, so that a client that was disconnected can resume |
//! | `--heartbeat` | 15 s | a silent stream gets a heartbeat; a client that has gone is disconnected by then |
//! | `--retry` | 5 s | what clients are told to wait before they reconnect |
//! | `--grace` | 5 s | at a shutdown, connections that are still open are closed |
//! | `--stack-bytes` | 256 KiB | address space of a thread's stack; at least 64 KiB |
//!
//! `--send-buffer` is the size that the program requests. With its own bookkeeping Linux
//! uses up to 2.7 times as much: 260 KiB for a client that reads nothing, and 3.8 MiB
//! with `auto`, which leaves the size to the kernel. One connection carries at most about
//! one buffer per round trip: with 128 KiB and a round trip of 200 ms, 640 KiB/s.
//!
//! # Connections
//!
//! If all connections are taken, a new connection evicts the one that has waited longest
//! for a request, or for the rest of a body. If part of a request had arrived, the
//! evicted connection is answered 503; otherwise it is closed without an answer. The
//! waiting time of a body begins again with each 16 KiB that arrive. Streams, and
//! requests that are being answered, are never evicted. `--max-per-ip N` limits the
//! connections of one address.
//!
//! Without `--overload retry`, one client too many is answered 503. An `EventSource` does
//! not reconnect after a 503; with `--overload retry` it gets a stream that ends at once
//! with a `retry:`.
//!
//! # Restarts
//!
//! At a shutdown each client gets a `retry:` of its own, 2 ms after that of the client
//! before, so that the next server does not get all of them at once. 1,000 clients after
//! a restart (`cargo bench --bench storm`):
//!
//! ```text
//! all get the same retry:                  each gets a retry: of its own
//!
//!    after   returns/s                        after   returns/s
//!    1.0 s      3000  ##################      1.0 s       485  ###
//!    1.2 s         0  ...                     1.2 s       485  ###
//!    2.0 s      1290  ########                1.4 s       470  ###
//!    2.2 s       665  ####                    …
//!    2.4 s         0  ...                     2.8 s       480  ###
//!    3.0 s        45  #                       3.0 s       200  ##
//! ```
//!
//! # The program
//!
//! `--listen :8080` (or `*:8080`) listens on every address of the machine: IPv6 and IPv4,
//! or IPv4 alone where there is no IPv6. An IPv6 address has brackets: `[::1]:8080`. If a
//! name has several addresses, the server listens on the first of them, IPv4 before IPv6.
//! `--console auto` shows the console on 127.0.0.1, unless there is a `--trust-proxy`.
//!
//! Exit codes: 0 done, 1 the machine refused something, 2 the command line is wrong.
//! SIGTERM and SIGINT end the program cleanly: streams get their last event, requests in
//! flight are finished, threads are joined. A second signal ends the program at once.
//! SIGHUP reads the files of `--tokens` and `--jwt-key` again; without them it is logged
//! and ignored, so a closed terminal ends no stream. Where the size of files is limited
//! (`ulimit -f`), a larger write fails and the publisher gets a
//! 503. Other signals do what they do by default.
//!
//! A separate thread writes the log to standard error. If nobody reads it, at most 1 MiB
//! of lines are queued; further lines are dropped, and a line `N lines were dropped`
//! replaces them. No other thread waits for the log; at its end the program waits at most
//! 0.5 s for it.
//!
//! The program starts without std's handler for stack overflows, which would cost each
//! thread two memory maps: a stack overflow ends the process with SIGSEGV and without a
//! message. With two maps per thread, the default `vm.max_map_count` (65,530) has room
//! for 32,000 clients.
