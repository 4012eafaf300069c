/**
 * Turns the bytes of a `fetch` response into Server-Sent Events for a page that must not miss any. It reconnects and
 * resumes when the connection breaks, the server restarts, an answer is an error, or the stream is silent for too
 * long. Several tabs can share one connection.
 *
 *     import { SSEClient } from './sse-client.js';
 *     new SSEClient('/events/chat', { shared: true })
 *       .on('message', (data, event) => console.log(event.id, data))
 *       .on('gap', (gap) => console.warn('events were lost', gap.reason))
 *       .connect();
 *
 * Why not EventSource? An EventSource
 *
 * - never reconnects after an answer that is not a stream, such as a 503 during a restart;
 * - waits for ever if the connection is lost and no packet says so;
 * - shows neither status codes nor the time of the next attempt;
 * - needs one connection in each tab, and over HTTP/1.1 a browser opens at most six to one server.
 *
 * The protocol is the same as that of EventSource: `Last-Event-ID`, `retry:`, and 204 ends the reconnecting.
 *
 * Requirements: `fetch` with streams, and private methods: Chrome 84, Firefox 90, Safari 15, Node 20, or newer.
 * `shared` needs Web Locks and BroadcastChannel; without them each tab has its own connection. Over plain http,
 * browsers have Web Locks only for localhost.
 *
 * Token: `token` is sent in a header, so it is not in any address, history or log. If it is a function, it is called
 * before each connection, and before a JSON Web Token ends (`exp`): the client then resumes with the next token, without
 * an `error`. After a 401 or 403 the client stays closed until `connect()` is called again:
 *
 *     new SSEClient('/events', { token: async () => (await fetch('/session/token')).text() })
 *       .on('error', ({ status }) => status === 401 && location.assign('/login'))
 *       .connect();
 *
 * Cookie: no option is needed for a cookie of the page's own origin. For a cookie of another origin use
 * `credentials: 'include'`.
 *
 * When the server ends a stream, it sends the reason, which becomes the `reason` of the `error` event. After
 * `replaced` (another stream has the same `client_id`, for example in a second tab) and `kicked` (an operator closed
 * the stream) the client stays closed until `connect()` is called. Otherwise two tabs with the same id would replace
 * each other for ever. After any other reason the client reconnects.
 *
 * Reading order: {@link EventStreamParser} parses the format, `Connection` is one stream with its reconnects,
 * `SharedConnection` is one stream for several tabs, and {@link SSEClient} is the interface for a page.
 *
 * @module
 */

/**
 * The second argument of a handler.
 * @typedef {object} SSEEvent
 * @property {string} type its name; `message` if the server gave none
 * @property {string} data the data as text, not parsed
 * @property {string} id the cursor after this event: its own id, or the id of the latest event that had one
 * @property {boolean} hasOwnId whether the event has an id of its own
 */

/**
 * @typedef {'DISCONNECTED' | 'CONNECTING' | 'OPEN' | 'CLOSED'} State
 * `DISCONNECTED`: before `connect()` and after `disconnect()`. `CONNECTING`: during an attempt, and while the client
 * waits for the next one. `OPEN`: there is a stream. `CLOSED`: the client does not reconnect by itself, because of
 * the server's answer; `connect()` tries again.
 */

/**
 * Why there is no stream at the moment: the data of an `error` event.
 * @typedef {object} Problem
 * @property {'status' | 'type' | 'network' | 'silence' | 'end' | 'token'} kind `status`: the answer has a status
 *   other than 200; `type`: the answer is not an event stream; `network`: the connection could not be opened or
 *   broke; `silence`: no byte arrived for too long; `end`: the server ended the stream; `token`: the function `token`
 *   failed
 * @property {string} message a text for people
 * @property {string} [reason] why the server ended the stream, if it sent a reason: `replaced`, `kicked`, `expired`,
 *   `ended` or `closing`
 * @property {boolean} final whether the client makes no further attempt by itself
 * @property {number} [status] the status of the answer, if there was one
 * @property {number} [retryAfter] milliseconds from the field `Retry-After` of the answer, if the page may read it
 * @property {number} [retryIn] milliseconds until the next attempt
 */

/**
 * @typedef {object} Options
 * @property {string} [lastEventId] the cursor after which to begin; without it the stream begins with new events. If
 *   tabs share a connection, only the value of the first tab is used
 * @property {boolean} [shared] whether all tabs of this origin with the same URL, token, headers and credentials
 *   share one connection. With a function that returns a different token each time, no tab shares [false]
 * @property {number} [silence] milliseconds without a byte after which the client reconnects; 0: never. It should be
 *   2.5 heartbeat intervals of the server, or a little more [40000]
 * @property {boolean} [heartbeat] whether to request heartbeats as events (`?heartbeat=event`), for handlers of
 *   `heartbeat`. `silence` works without them, because every byte counts [true]
 * @property {number} [retry] milliseconds before the first reconnect, until the server sends `retry:` [3000]
 * @property {number} [maxDelay] the longest delay in milliseconds, unless the server demands a longer one [30000]
 * @property {number} [jitter] the maximum random addition to a delay, as a part of it: 0.5 adds up to 50 percent
 *   [0.5]
 * @property {number[]} [giveUpOn] status codes after which the client does not reconnect [204, 401, 403, 404, 410]
 * @property {string | (() => string | Promise<string>)} [token] sent as `Authorization: Bearer`, in place of an
 *   `Authorization` in `headers`. A function is called before each connection. An empty one is not sent.
 *   Current browsers do not send it when a redirect leads to another origin []
 * @property {Record<string, string>} [headers] header fields of the request
 * @property {RequestCredentials} [credentials] the option of `fetch` with the same name [same-origin]
 */

/** @typedef {(data: any, event: SSEEvent) => void} Handler */

/**
 * The functions that a connection calls, synchronously and in order.
 * @typedef {object} Owner
 * @property {(event: SSEEvent) => void} event
 * @property {(cursor: string) => void} cursor an id arrived in a block without data
 * @property {(state: 'CONNECTING' | 'OPEN') => void} state
 * @property {(problem: Problem) => void} problem called after `state`; after a final problem nothing is called any
 *   more
 */

const DEFAULTS = Object.freeze({
  lastEventId: '',
  shared: false,
  silence: 40_000,
  heartbeat: true,
  retry: 3_000,
  maxDelay: 30_000,
  jitter: 0.5,
  giveUpOn: [204, 401, 403, 404, 410],
  token: /** @type {string | (() => string | Promise<string>)} */ (''),
  headers: /** @type {Record<string, string>} */ ({}),
  credentials: /** @type {RequestCredentials} */ ('same-origin'),
});

/** LIMIT: the shortest delay in milliseconds before a reconnect, even if the server sends `retry: 0`. */
const SHORTEST_DELAY = 100;

/** LIMIT: the longest delay of a timer in milliseconds. `setTimeout` does not wait at all if the delay is longer. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** A token is renewed this long before its end, in milliseconds; or after nine tenths of its life. */
const RENEWAL_LEAD = 30_000;

/** LIMIT: the ids that a tab remembers, to recognise events that arrive from two leaders. */
const REMEMBERED_IDS = 4096;

/** Events about the connection itself. The server sends them on each connection and never replays them. */
const CONNECTION_EVENTS = new Set(['system', 'recovery', 'heartbeat']);

/** The meanings of the reasons that a server sends when it ends a stream. */
const REASONS = Object.freeze({
  replaced: 'another stream has the same client_id',
  kicked: 'it was closed on request',
  expired: 'the token is no longer valid',
  ended: 'its topics have ended',
  closing: 'the server is closing',
});

/** The reasons after which the client does not reconnect by itself. */
const FINAL_REASONS = new Set(['replaced', 'kicked']);

/** The names of the client's own events. Events of the server with these names go only to handlers of `*`. */
const OWN_TYPES = new Set(['open', 'error', 'state', 'gap']);

// ---- the format

/**
 * Turns bytes, in parts of any size, into the events that a browser would dispatch.
 *
 * SPEC: HTML, 9.2.5 and 9.2.6. An event without its final blank line at the end of the stream is dropped; no code is
 * needed for that. Browsers deviate from the standard in one point, and so does this class: the last id is kept
 * across reconnects, even if the new stream has not sent any id yet.
 *
 * LIMIT: there is no limit on the length of a line, as in EventSource. The server is trusted.
 */
export class EventStreamParser {
  /** SPEC: "UTF-8 decode": one BOM is dropped, and invalid bytes become U+FFFD. */
  #decoder = new TextDecoder();
  /** The parts of a line whose end has not arrived. @type {string[]} */
  #pieces = [];
  /**
   * Whether the last character was a CR. It has ended its line; a directly following LF belongs to the same line end.
   */
  #afterCr = false;
  /**
   * The lines of the event's data. An empty list means no `data` field; one empty line is empty data.
   * @type {string[]}
   */
  #data = [];
  #type = '';
  #id;
  #hasOwnId = false;
  #sink;

  /**
   * @param {object} sink
   * @param {(event: SSEEvent) => void} sink.event
   * @param {(cursor: string) => void} [sink.cursor] called with the id of a block without data
   * @param {(milliseconds: number) => void} [sink.retry]
   * @param {string} [lastEventId]
   */
  constructor(sink, lastEventId = '') {
    this.#sink = sink;
    this.#id = lastEventId;
  }

  /** @param {Uint8Array} bytes */
  feed(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    let start = this.#afterCr && text[0] === '\n' ? 1 : 0;
    this.#afterCr = text.endsWith('\r');
    const lineEnd = /\r\n|\r|\n/g;
    lineEnd.lastIndex = start;
    for (let end; (end = lineEnd.exec(text)); start = lineEnd.lastIndex) {
      this.#pieces.push(text.slice(start, end.index));
      this.#parseLine(this.#pieces.splice(0).join(''));
    }
    if (start < text.length) this.#pieces.push(text.slice(start));
  }

  /** @param {string} line */
  #parseLine(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment
    if (colon < 0) return this.#field(line, '');
    const value = line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    this.#field(line.slice(0, colon), value);
  }

  /** @param {string} name @param {string} value */
  #field(name, value) {
    if (name === 'data') {
      this.#data.push(value);
    } else if (name === 'event') {
      this.#type = value;
    } else if (name === 'id' && !value.includes('\0')) {
      this.#id = value;
      this.#hasOwnId = true;
    } else if (name === 'retry' && /^[0-9]+$/.test(value)) {
      this.#sink.retry?.(Number(value));
    }
  }

  #dispatch() {
    const [data, type, hasOwnId] = [this.#data, this.#type || 'message', this.#hasOwnId];
    [this.#data, this.#type, this.#hasOwnId] = [[], '', false];
    if (data.length > 0) {
      this.#sink.event({ type, data: data.join('\n'), id: this.#id, hasOwnId });
    } else if (hasOwnId) {
      this.#sink.cursor?.(this.#id);
    }
  }
}

// ---- one stream

/** One stream that reconnects, from `start` to `stop`. */
class Connection {
  #url;
  #options;
  #owner;
  #cursor;
  #retry;
  /**
   * Failed attempts since the last good stream: a stream with an event, or one that lasted longer than `maxDelay`.
   */
  #failures = 0;
  #openedAt = Infinity;
  /** The reason that the server sent before it ends the stream; empty until then. */
  #reason = '';
  #stopping = new AbortController();
  /** @type {'CONNECTING' | 'OPEN'} */
  state = 'CONNECTING';

  /**
   * @param {URL} url
   * @param {Required<Options>} options
   * @param {string} cursor
   * @param {Owner} owner
   */
  constructor(url, options, cursor, owner) {
    this.#url = url;
    this.#options = options;
    this.#cursor = cursor;
    this.#owner = owner;
    this.#retry = options.retry;
  }

  get isLeader() {
    return true;
  }

  start() {
    void this.#run();
  }

  /** Closes the stream. No function of the owner is called any more. */
  stop() {
    this.#stopping.abort();
  }

  async #run() {
    const { signal } = this.#stopping;
    this.#enter('CONNECTING');
    while (!signal.aborted) {
      const problem = await this.#attempt();
      if (signal.aborted) return;
      if (!problem) {
        this.#enter('CONNECTING');
        continue;
      }
      if (problem.final) return this.#owner.problem(problem);
      const retryIn = this.#nextDelay(problem);
      this.#enter('CONNECTING');
      if (!signal.aborted) this.#owner.problem({ ...problem, retryIn });
      await pause(retryIn, signal);
    }
  }

  /** @param {'CONNECTING' | 'OPEN'} state */
  #enter(state) {
    if (this.#stopping.signal.aborted) return;
    this.state = state;
    this.#owner.state(state);
  }

  /**
   * Sends one request and reads the stream to its end. Returns why there is no stream any more; `undefined`: the token
   * is about to end, and the next attempt follows at once.
   * @returns {Promise<Problem | undefined>}
   */
  async #attempt() {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    const watchdog = new Watchdog(this.#options.silence, abort);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let renewal;
    let isRenewing = false;
    this.#reason = '';
    this.#stopping.signal.addEventListener('abort', abort);
    try {
      const token = await currentToken(this.#options, attempt.signal);
      const response = await fetch(this.#url, this.#request(token, attempt.signal));
      watchdog.reset();
      const problem = await problemOf(response, this.#options.giveUpOn);
      if (problem) return problem;
      if (typeof this.#options.token === 'function') {
        const renew = () => {
          isRenewing = true;
          abort();
        };
        const delay = renewalDelay(token);
        if (delay <= LONGEST_DELAY) renewal = setTimeout(renew, delay);
      }
      await this.#read(/** @type {ReadableStream<Uint8Array>} */ (response.body), watchdog);
      return this.#end();
    } catch (error) {
      // An error after the close event does not matter: the stream was complete.
      if (this.#reason) return this.#end();
      if (isRenewing) return undefined;
      if (watchdog.hasExpired) {
        const message = `no byte arrived for ${this.#options.silence} ms`;
        return { kind: 'silence', message, final: false };
      }
      const kind = error instanceof TokenError ? 'token' : 'network';
      return { kind, message: error instanceof TokenError ? error.message : String(error), final: false };
    } finally {
      this.#stopping.signal.removeEventListener('abort', abort);
      clearTimeout(renewal);
      watchdog.stop();
      attempt.abort();
    }
  }

  /** Returns the problem of a stream that the server has ended. @returns {Problem} */
  #end() {
    const message = 'the server ended the stream';
    const reason = this.#reason;
    if (!reason) return { kind: 'end', message, final: false };
    const meaning = Object(REASONS)[reason] ?? reason;
    return { kind: 'end', reason, message: `${message}: ${meaning}`, final: FINAL_REASONS.has(reason) };
  }

  /** @param {string} token @param {AbortSignal} signal @returns {RequestInit} */
  #request(token, signal) {
    const { credentials } = this.#options;
    /** @type {Record<string, string>} */
    const own = { Accept: 'text/event-stream' };
    // To another origin this header requires a preflight, which the server must allow. The first request has no
    // cursor and needs none. tiny-sse also accepts the cursor as `last_event_id` in the query.
    if (this.#cursor !== '') own['Last-Event-ID'] = asHeaderBytes(this.#cursor);
    const headers = new Headers({ ...own, ...this.#options.headers });
    if (token) headers.set('Authorization', `Bearer ${token}`);
    return { headers, credentials, signal, cache: 'no-store' };
  }

  /** @param {ReadableStream<Uint8Array>} body @param {Watchdog} watchdog */
  async #read(body, watchdog) {
    this.#openedAt = performance.now();
    this.#enter('OPEN');
    const parser = new EventStreamParser(this.#sink(), this.#cursor);
    const reader = body.getReader();
    // The loop ends after the close event, because a proxy may keep the connection open.
    for (let part; !this.#reason && !(part = await reader.read()).done; ) {
      watchdog.reset();
      parser.feed(part.value);
    }
  }

  /**
   * Returns the functions for the parser. They do nothing after `stop`, which a handler may call between two events.
   */
  #sink() {
    const { signal } = this.#stopping;
    return {
      event: (/** @type {SSEEvent} */ event) => {
        if (signal.aborted) return;
        this.#failures = 0;
        this.#cursor = event.id;
        this.#reason ||= closingReason(event);
        this.#owner.event(event);
      },
      cursor: (/** @type {string} */ cursor) => {
        if (signal.aborted) return;
        this.#cursor = cursor;
        this.#owner.cursor(cursor);
      },
      retry: (/** @type {number} */ milliseconds) => {
        this.#retry = milliseconds;
      },
    };
  }

  /**
   * Returns the delay before the next attempt. The delay that the server demands is the minimum; each further failure
   * doubles it, up to `maxDelay`. The random part is only ever added, because a server that disconnects many clients
   * at once may have sent each of them a different `retry:`.
   * @param {Problem} problem
   */
  #nextDelay({ retryAfter = 0 }) {
    const { maxDelay, jitter } = this.#options;
    if (performance.now() - this.#openedAt > maxDelay) this.#failures = 0;
    this.#openedAt = Infinity;
    const least = Math.max(this.#retry, retryAfter, SHORTEST_DELAY);
    const grown = Math.min(least * 2 ** this.#failures, Math.max(least, maxDelay));
    this.#failures += 1;
    return Math.min(grown * (1 + jitter * Math.random()), LONGEST_DELAY);
  }
}

/** Returns the reason if this is the close event, or else an empty text. @param {SSEEvent} event @returns {string} */
function closingReason({ type, data }) {
  if (type !== 'system') return '';
  const message = Object(parseJson(data));
  return message.type === 'closed' ? String(message.reason) : '';
}

/** The option `token` gave no valid token. The message does not contain the value, because messages go into logs. */
class TokenError extends Error {}

/**
 * Returns the current token; empty if there is none. The promise of a page may never settle, so `signal` ends the
 * wait.
 * @param {Required<Options>} options
 * @param {AbortSignal} signal
 * @returns {Promise<string>}
 */
async function currentToken({ token }, signal) {
  const given = (typeof token === 'function' ? await callTokenFunction(token, signal) : token) ?? '';
  // SPEC: RFC 9110, 5.5. Only visible ASCII is accepted. `fetch` would quote an invalid token in its error message.
  if (!/^[!-~]*$/.test(given)) throw new TokenError('the token has characters that a header field cannot contain');
  return given;
}

/** Returns the milliseconds until a token is renewed; `Infinity` if it has no `exp`. @param {string} token */
function renewalDelay(token) {
  const payload = token.split('.')[1] ?? '';
  let end;
  try {
    end = Object(JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/')))).exp;
  } catch {
    return Infinity;
  }
  if (typeof end !== 'number') return Infinity;
  const left = end * 1000 - Date.now();
  // LIMIT: there is a pause even if the clock is wrong.
  return Math.max(left - RENEWAL_LEAD, left * 0.9, 1000);
}

/** @param {() => string | Promise<string>} ask @param {AbortSignal} signal @returns {Promise<string>} */
async function callTokenFunction(ask, signal) {
  const aborted = new Promise((_, reject) => signal.addEventListener('abort', reject));
  try {
    return /** @type {string} */ (await Promise.race([Promise.resolve().then(ask), aborted]));
  } catch (error) {
    throw new TokenError(`the function for the token failed: ${error}`);
  }
}

/**
 * A timeout that is reset by every byte. It calls `expire` once, when it was not reset for `timeout` milliseconds.
 */
class Watchdog {
  hasExpired = false;
  #resetAt = performance.now();
  #timeout;
  #expire;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {number} timeout milliseconds; 0: never @param {() => void} expire */
  constructor(timeout, expire) {
    this.#timeout = timeout;
    this.#expire = expire;
    if (timeout > 0) this.#watch(timeout);
  }

  /** Called for every chunk, so it only notes the time. The timer keeps running and checks the time when it fires. */
  reset() {
    this.#resetAt = performance.now();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** @param {number} left */
  #watch(left) {
    this.#timer = setTimeout(() => this.#check(), Math.min(left, LONGEST_DELAY));
  }

  #check() {
    const left = this.#resetAt + this.#timeout - performance.now();
    if (left > 0) return this.#watch(left);
    this.hasExpired = true;
    this.#expire();
  }
}

/**
 * Returns why an answer is not an event stream; `null` if it is one.
 * @param {Response} response
 * @param {number[]} giveUpOn
 * @returns {Promise<Problem | null>}
 */
async function problemOf(response, giveUpOn) {
  const { status, headers } = response;
  const type = headers.get('Content-Type') ?? '';
  if (status === 200) {
    if (/^text\/event-stream\s*(;|$)/i.test(type)) return null;
    // Not final: the login page of a hotel's network looks like this, and goes away.
    const message = `the answer is not an event stream: its type is ${type || 'missing'}`;
    return { kind: 'type', status, message, final: false };
  }
  const reason = type.startsWith('application/json') ? await errorTextOf(response) : '';
  const message = `the server answered ${status}${reason && `: ${reason}`}`;
  // A page can read this field of another origin only if the server exposes it. It is in seconds; a date is ignored.
  const retryAfter = 1000 * (Number(headers.get('Retry-After')) || 0);
  return { kind: 'status', status, message, final: giveUpOn.includes(status), retryAfter };
}

/**
 * Returns the message of the server in the body, `{"error": "…"}`; empty if there is none.
 * @param {Response} response
 */
async function errorTextOf(response) {
  const { error } = Object(parseJson(await response.text()));
  return typeof error === 'string' ? error : '';
}

/** Waits. Ends early if `signal` is aborted, or if the browser reports that the network is available again. */
function pause(/** @type {number} */ milliseconds, /** @type {AbortSignal} */ signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      globalThis.removeEventListener?.('online', done);
      resolve(undefined);
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener('abort', done);
    globalThis.addEventListener?.('online', done);
    if (signal.aborted) done();
  });
}

/**
 * SPEC: HTML, 9.2.2: `Last-Event-ID` is sent as UTF-8. In a header value of `fetch`, each character is one byte.
 * @param {string} text
 */
function asHeaderBytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
}

/** Returns the value of a JSON text, or the text itself if it is not JSON. @param {string} text @returns {any} */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// ---- one stream for many tabs

/**
 * A message between tabs. `from` is the sender. `cursor` is the sender's cursor before the event or id of this
 * message.
 * @typedef {{ from: string, cursor: string } & (
 *   { kind: 'hello' } |
 *   { kind: 'event', event: SSEEvent } |
 *   { kind: 'cursor', id: string } |
 *   { kind: 'state', state: 'CONNECTING' | 'OPEN' } |
 *   { kind: 'problem', problem: Problem }
 * )} TabMessage
 */

/**
 * One stream for all tabs of an origin that use this class with the same URL, token, headers and credentials. (With
 * different tokens the server might send them different events.) The tab that holds a Web Lock is the leader: it has
 * the connection and forwards what it receives over a BroadcastChannel. The other tabs wait for the lock. When the
 * leader closes, crashes or leaves the page, the browser gives the lock to the tab that has waited longest.
 *
 * Guarantees. A tab gets each event once from the moment at which it has joined. It has joined when it has received a
 * message of a leader, or has become the leader. A new leader resumes after the last event that it received *itself*:
 *
 * - No event is lost. A leader forwards an event before its own page handles it. The server replays every event that
 *   was not forwarded, because those events come after the cursor of the new leader.
 * - No event comes twice. The last messages of the old leader may still be on their way when the new leader connects.
 *   Their events then arrive from two leaders, and the second copy is recognised by its id. If one leader receives an
 *   id twice, both events are delivered: the server meant it so.
 * - Events without an id of their own, such as those to one client, are not in the history of the server. They can be
 *   lost when the leader changes, as in any reconnect.
 * - A tab may have a different cursor than the leader, for example after a time in the back-forward cache. The server
 *   cannot replay events for this tab alone, so it gets a `gap` event with the reason `shared`.
 *
 * Limits:
 *
 * - A leader whose page hangs, in an endless loop or a debugger, delays all other tabs. (Browsers do not freeze a
 *   background page while it holds a lock.)
 * - A leader in the background reconnects only when its timers run, which in Chromium may be once a minute. The other
 *   tabs wait for it.
 * - The last messages of a leader should arrive before the first of the next leader, which come at least one request
 *   later. Browsers do so, but no standard demands it. Otherwise a tab would still get each event once, but these
 *   events out of order.
 */
class SharedConnection {
  #url;
  #options;
  #owner;
  #cursor;
  #me = crypto.randomUUID();
  #hasJoined = false;
  /** For each event id, the leader from which the event came. @type {Map<string, string>} */
  #leaderOfId = new Map();
  /** The connection, if this tab is the leader. @type {Connection | null} */
  #connection = null;
  #stopping = new AbortController();
  /** Releases the lock. */
  #release = () => {};
  /** @type {BroadcastChannel | undefined} */
  #channel;

  static isPossible() {
    return typeof BroadcastChannel === 'function' && Boolean(globalThis.navigator?.locks);
  }

  /**
   * @param {URL} url
   * @param {Required<Options>} options
   * @param {string} cursor
   * @param {Owner} owner
   */
  constructor(url, options, cursor, owner) {
    this.#url = url;
    this.#options = options;
    this.#cursor = cursor;
    this.#owner = owner;
  }

  /**
   * Returns the name of the lock and of the channel: a digest of everything that tabs must have in common to share a
   * connection. Other scripts can see these names, and the token must stay secret. The token is the
   * one at the time of joining; a later token does not change the name.
   */
  async #name() {
    const { headers, credentials, silence } = this.#options;
    const attempt = new AbortController();
    const watchdog = new Watchdog(silence, () => attempt.abort());
    const token = await currentToken(this.#options, attempt.signal).finally(() => watchdog.stop());
    const all = JSON.stringify([this.#url.href, token, headers, credentials]);
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(all));
    return `tiny-sse ${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
  }

  get isLeader() {
    return this.#connection !== null;
  }

  start() {
    const { signal } = this.#stopping;
    this.#owner.state('CONNECTING');
    if (signal.aborted) return; // a handler of the state called `stop`
    const lead = () => this.#lead();
    // `#join` fails if `stop` was called before this tab got the lock (then `lead` does nothing), if locks are not
    // allowed, as in a sandboxed frame, or if there is no token. Then this tab has a connection of its own.
    void this.#join(lead).catch(lead);
  }

  /** @param {() => Promise<void> | undefined} lead */
  async #join(lead) {
    const name = await this.#name();
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    this.#broadcast({ kind: 'hello' });
    await navigator.locks.request(name, { signal }, lead);
  }

  stop() {
    this.#stopping.abort();
    this.#connection?.stop();
    this.#connection = null;
    this.#channel?.close();
    // ORDER: after the last message, so that few messages are on their way when the next leader connects.
    this.#release();
  }

  /** Becomes the leader. The lock is held until the returned promise is fulfilled. */
  #lead() {
    if (this.#stopping.signal.aborted) return;
    this.#hasJoined = true;
    this.#connection = new Connection(this.#url, this.#options, this.#cursor, this.#ownerOfLeader());
    this.#connection.start();
    return new Promise((resolve) => {
      this.#release = () => resolve(undefined);
      if (this.#stopping.signal.aborted) this.#release();
    });
  }

  /**
   * Returns the owner of the leader's connection. ORDER: messages go to the other tabs first, because a handler of
   * this page may take long or call `stop`.
   * @returns {Owner}
   */
  #ownerOfLeader() {
    return {
      event: (event) => {
        this.#broadcast({ kind: 'event', event });
        this.#takeEvent(event, this.#me);
      },
      cursor: (id) => {
        this.#broadcast({ kind: 'cursor', id });
        this.#takeCursor(id);
      },
      state: (state) => {
        this.#broadcast({ kind: 'state', state });
        this.#owner.state(state);
      },
      problem: (problem) => {
        this.#broadcast({ kind: 'problem', problem });
        this.#owner.problem(problem);
      },
    };
  }

  /** Sends a message to all other tabs. @param {Record<string, unknown> & { kind: TabMessage['kind'] }} message */
  #broadcast(message) {
    if (this.#stopping.signal.aborted) return;
    this.#channel?.postMessage({ ...message, from: this.#me, cursor: this.#cursor });
  }

  /** Handles a message of another tab. @param {TabMessage} message */
  #receive(message) {
    if (this.#stopping.signal.aborted) return;
    if (message.kind === 'hello') {
      if (this.#connection) this.#broadcast({ kind: 'state', state: this.#connection.state });
    } else if (this.#connection) {
      // The message is from the previous leader. Its events count, and so does the server's message that the
      // client should not come back. Other messages are out of date.
      if (message.kind === 'event') this.#takeEvent(message.event, message.from);
      else if (message.kind === 'problem' && message.problem.final && message.problem.reason) {
        this.#owner.problem(message.problem);
      }
    } else {
      this.#compare(message.cursor);
      this.#follow(message);
    }
  }

  /** Handles a message of the leader. @param {TabMessage} message */
  #follow(message) {
    if (message.kind === 'event') this.#takeEvent(message.event, message.from);
    else if (message.kind === 'cursor') this.#takeCursor(message.id);
    else if (message.kind === 'state') this.#owner.state(message.state);
    else if (message.kind === 'problem') this.#owner.problem(message.problem);
  }

  /**
   * Compares the leader's cursor with the cursor of this tab, and reports a gap if they differ. That is done when
   * this tab joins, and for a leader without a cursor, which became the leader before it had received any.
   * @param {string} cursor
   */
  #compare(cursor) {
    const isBehind = this.#hasJoined ? cursor === '' : cursor !== this.#cursor;
    if (this.#cursor !== '' && isBehind) {
      const gap = { recovered_from: this.#cursor, replayed: 0, complete: false, reason: 'shared' };
      this.#cursor = cursor;
      const data = JSON.stringify(gap);
      this.#owner.event({ type: 'recovery', data, id: cursor, hasOwnId: false });
    }
    if (!this.#hasJoined) this.#takeCursor(cursor);
    this.#hasJoined = true;
  }

  /** @param {SSEEvent} event @param {string} leader */
  #takeEvent(event, leader) {
    if (event.hasOwnId && !CONNECTION_EVENTS.has(event.type)) {
      const before = this.#leaderOfId.get(event.id);
      if (before !== undefined && before !== leader) return;
      this.#remember(event.id, leader);
    }
    this.#cursor = event.id;
    this.#owner.event(event);
  }

  /** @param {string} id @param {string} leader */
  #remember(id, leader) {
    this.#leaderOfId.set(id, leader);
    if (this.#leaderOfId.size > REMEMBERED_IDS) {
      // A map is in the order of insertion.
      const [oldest] = this.#leaderOfId.keys();
      this.#leaderOfId.delete(oldest);
    }
  }

  /** @param {string} id */
  #takeCursor(id) {
    this.#cursor = id;
    this.#owner.cursor(id);
  }
}

// ---- what a page sees

/**
 * A stream of events, with handlers.
 *
 * A handler is registered for a name and gets the events of the server with this name; an event without a name has
 * the name `message`. Its first argument is the data: parsed if it is JSON, or else the text. These names have a
 * meaning of their own:
 *
 * - `open`: the stream is open, for the first time or again.
 * - `error`: there is no stream, because of this {@link Problem}. The client reconnects unless `final` is true.
 * - `state`: the new {@link State}.
 * - `recovery`: sent by tiny-sse after a reconnect: `{ recovered_from, replayed, complete, reason? }`.
 * - `gap`: the same data, if `complete` is false: events were lost and cannot be replayed.
 * - `*`: every event of the server, whatever its name.
 *
 * Events of the server with the names `open`, `error`, `state` or `gap` go only to handlers of `*`. A publisher can
 * therefore not imitate the client's own events.
 */
export class SSEClient {
  #url;
  /** @type {Required<Options>} */
  #options;
  #cursor;
  /**
   * The handlers of each type; the value tells whether a handler is called only once.
   * @type {Map<string, Map<Handler, boolean>>}
   */
  #handlers = new Map();
  /** @type {State} */
  #state = 'DISCONNECTED';
  /** @type {Connection | SharedConnection | null} */
  #connection = null;
  /** Whether the user has left the page while it had a connection. The page may be in the back-forward cache. */
  #isSuspended = false;

  /**
   * Creates a client. `connect` opens the connection.
   * @param {string | URL} url relative to the page
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    this.#cursor = this.#options.lastEventId;
    this.#url = withHeartbeat(absolute(url), this.#options.heartbeat);
  }

  /** The current {@link State}. */
  get state() {
    return this.#state;
  }

  /** The cursor: the id of the last event that had one. Empty if no event had one yet. */
  get lastEventId() {
    return this.#cursor;
  }

  /** Whether this tab has the connection now. Of the tabs that share a connection, one has it. */
  get isLeader() {
    return this.#connection?.isLeader ?? false;
  }

  /**
   * Connects, and resumes after the cursor if there is one. Does nothing if the client is connected or connecting.
   */
  connect() {
    if (this.#connection) return this;
    this.#isSuspended = false;
    for (const type of ['pagehide', 'pageshow']) {
      globalThis.addEventListener?.(type, this.#onPage);
    }
    this.#open();
    return this;
  }

  /** Ends the stream and all attempts. The only handlers that are still called are those of `state`. */
  disconnect() {
    this.#close('DISCONNECTED');
    return this;
  }

  /**
   * Calls `handler` for each event of this type. Adding the same handler again has no effect.
   * @param {string} type
   * @param {Handler} handler
   */
  on(type, handler) {
    return this.#add(type, handler, false);
  }

  /**
   * Calls `handler` for the next event of this type.
   * @param {string} type
   * @param {Handler} handler
   */
  once(type, handler) {
    return this.#add(type, handler, true);
  }

  /**
   * Removes a handler; without `handler`, removes all handlers of this type.
   * @param {string} type
   * @param {Handler} [handler]
   */
  off(type, handler) {
    if (handler) this.#handlers.get(type)?.delete(handler);
    else this.#handlers.delete(type);
    return this;
  }

  /** @param {string} type @param {Handler} handler @param {boolean} isOnce */
  #add(type, handler, isOnce) {
    const handlers = this.#handlers.get(type) ?? new Map();
    if (!handlers.has(handler)) handlers.set(handler, isOnce);
    this.#handlers.set(type, handlers);
    return this;
  }

  #open() {
    const isShared = this.#options.shared && SharedConnection.isPossible();
    const Kind = isShared ? SharedConnection : Connection;
    const connection = new Kind(this.#url, this.#options, this.#cursor, this.#owner());
    this.#connection = connection;
    connection.start();
  }

  /** @returns {Owner} */
  #owner() {
    return {
      event: (event) => this.#receive(event),
      cursor: (cursor) => {
        this.#cursor = cursor;
      },
      state: (state) => this.#enter(state),
      problem: (problem) => {
        if (problem.final) this.#close('CLOSED');
        this.#emitOwn('error', problem, problem.message);
      },
    };
  }

  /** @param {State} state */
  #close(state) {
    for (const type of ['pagehide', 'pageshow']) {
      globalThis.removeEventListener?.(type, this.#onPage);
    }
    this.#isSuspended = false;
    this.#connection?.stop();
    this.#connection = null;
    this.#enter(state);
  }

  /**
   * Closes the connection when the user leaves the page, and opens it when the page returns from the back-forward
   * cache. A browser does not put a page into this cache while the page has a connection, a lock or a channel.
   * @param {Event} event
   */
  #onPage = ({ type }) => {
    if (type === 'pageshow' && this.#isSuspended) {
      this.#isSuspended = false;
      this.#open();
    } else if (type === 'pagehide' && this.#connection) {
      this.#isSuspended = true;
      this.#connection.stop();
      this.#connection = null;
      this.#enter('DISCONNECTED');
    }
  };

  /** @param {State} state */
  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emitOwn('state', state, state);
    if (state === 'OPEN' && this.#state === 'OPEN') this.#emitOwn('open', undefined, '');
  }

  /** Handles an event of the server. @param {SSEEvent} event */
  #receive(event) {
    this.#cursor = event.id;
    const data = parseJson(event.data);
    if (!OWN_TYPES.has(event.type)) this.#emit(event.type, data, event);
    this.#emit('*', data, event);
    if (event.type === 'recovery' && data?.complete === false) this.#emitOwn('gap', data, event.data);
  }

  /** Emits an event of the client itself. @param {string} type @param {unknown} data @param {string} text */
  #emitOwn(type, data, text) {
    this.#emit(type, data, { type, data: text, id: this.#cursor, hasOwnId: false });
  }

  /**
   * Calls all handlers of a type. If a handler throws, the error is reported like an uncaught one, and the others
   * still run.
   * @param {string} type @param {unknown} data @param {SSEEvent} event
   */
  #emit(type, data, event) {
    const handlers = this.#handlers.get(type);
    // A copy, because handlers may add and remove handlers. A handler that has been removed in the meantime is not
    // called.
    for (const [handler, isOnce] of [...(handlers ?? [])]) {
      if (!handlers?.has(handler)) continue;
      if (isOnce) handlers.delete(handler);
      try {
        handler(data, event);
      } catch (error) {
        if (typeof reportError === 'function') reportError(error);
        else console.error(error);
      }
    }
  }
}

/** @param {string | URL} url */
function absolute(url) {
  return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
}

/**
 * Adds the parameter `heartbeat`. It is appended as text, because `searchParams.set` would rewrite the other
 * parameters.
 * @param {URL} url
 * @param {boolean} wanted
 */
function withHeartbeat(url, wanted) {
  if (wanted && !url.searchParams.has('heartbeat')) {
    url.search += `${url.search ? '&' : '?'}heartbeat=event`;
  }
  return url;
}
