/**
 * Server-Sent Events for a page that must not miss any: bytes from `fetch` become events, through
 * cuts, restarts, refusals and silence, in one tab or in many.
 *
 *     import { SSEClient } from './sse-client.js';
 *     new SSEClient('/events/chat', { shared: true })
 *       .on('message', (data, event) => console.log(event.id, data))
 *       .on('gap', (gap) => console.warn('something was missed', gap.reason))
 *       .connect();
 *
 * Why not EventSource: it gives up for good when an answer is not a stream (the 503 of a restart),
 * waits for ever on a connection that died without a word, shows neither status codes nor the time
 * of the next attempt, and takes one of the six connections that HTTP/1.1 allows an origin in every
 * tab. What EventSource and a server agree on is kept: `Last-Event-ID`, `retry:`, 204 for "enough".
 *
 * It needs `fetch` with streams, and private methods: Chrome 84, Firefox 90, Safari 15, Node 20, or
 * newer; older ones are not catered for. Without Web Locks or BroadcastChannel (on plain http, browsers
 * give the former to localhost alone), `shared` has no effect: each tab has its own connection.
 *
 * A server that wants a token is given it by `token`, which goes in a header and so into no address,
 * history or log. A function is asked before each connection, and so for a new one when the old one
 * has expired; the server's 401 or 403 is the end until `connect()` is called again:
 *
 *     new SSEClient('/events', { token: async () => (await fetch('/session/token')).text() })
 *       .on('error', ({ status }) => status === 401 && location.assign('/login'))
 *       .connect();
 *
 * With a cookie no option is needed; `credentials: 'include'` if it is that of another origin.
 *
 * A server that ends a stream says why, and it is the `reason` of the `error` event. After `replaced`
 * (another stream has the same `client_id`: a second tab, say) and `kicked` (somebody asked for the end)
 * the client stays closed until `connect()` is called: two tabs under one name would otherwise
 * take the stream from each other for ever. After all others it comes back.
 *
 * The reading order: {@link EventStreamParser} is the format, `Connection` one stream and its
 * returns, `SharedConnection` one stream for many tabs, {@link SSEClient} what a page sees of them.
 *
 * @module
 */

/**
 * What a handler gets beside the data.
 * @typedef {object} SSEEvent
 * @property {string} type its name; `message` if the server gave none
 * @property {string} data the data as it came
 * @property {string} id the cursor behind it: its own id, or that of the latest event with one
 * @property {boolean} hasOwnId whether the id is its own
 */

/**
 * @typedef {'DISCONNECTED' | 'CONNECTING' | 'OPEN' | 'CLOSED'} State
 * `CONNECTING` also while it waits for the next attempt. `CLOSED`: the server has said that it is
 * no use; `connect()` tries again.
 */

/**
 * Why there is no stream at the moment: the data of an `error` event.
 * @typedef {object} Problem
 * @property {'status' | 'type' | 'network' | 'silence' | 'end' | 'token'} kind an answer with the wrong
 *   status or type, no connection or a broken one, nothing heard for too long, the stream's end; or
 *   `token` did not give one
 * @property {string} message
 * @property {string} [reason] why the server ended the stream, if it has said so: `replaced`, `kicked`,
 *   `expired`, `ended` or `closing`
 * @property {boolean} final no further attempt is made
 * @property {number} [status] of the answer, if there was one
 * @property {number} [retryAfter] milliseconds that the answer asks for, if it can be seen
 * @property {number} [retryIn] milliseconds until the next attempt
 */

/**
 * @typedef {object} Options
 * @property {string} [lastEventId] the cursor to begin behind; without it: from now on. Of shared
 *   tabs, only the first one's counts
 * @property {boolean} [shared] one connection for all tabs of this origin with the same URL, token,
 *   headers and credentials. A function that gives another token each time shares with nobody [false]
 * @property {number} [silence] milliseconds without a byte until the connection is taken for dead;
 *   0: never. 2.5 heartbeats of the server, or a little more [40000]
 * @property {boolean} [heartbeat] ask the server for heartbeats with a name (`?heartbeat=event`),
 *   to be had as `heartbeat` events. The watchdog does without: any byte calms it [true]
 * @property {number} [retry] milliseconds to the first return, until the server says how many [3000]
 * @property {number} [maxDelay] milliseconds that no wait exceeds, unless the server asks for it [30000]
 * @property {number} [jitter] the part of a wait by which chance may prolong it [0.5]
 * @property {number[]} [giveUpOn] status codes that end it for good [204, 401, 403, 404, 410]
 * @property {string | (() => string | Promise<string>)} [token] sent as `Authorization: Bearer`, in
 *   place of one in `headers`; a function is asked before each connection. Empty: none is sent. When a
 *   redirect leads to another origin, browsers of today leave it out []
 * @property {Record<string, string>} [headers] of the request
 * @property {RequestCredentials} [credentials] as of `fetch` [same-origin]
 */

/** @typedef {(data: any, event: SSEEvent) => void} Handler */

/**
 * What a connection tells its owner, each at once and in order.
 * @typedef {object} Owner
 * @property {(event: SSEEvent) => void} event
 * @property {(cursor: string) => void} cursor an id that came without an event
 * @property {(state: 'CONNECTING' | 'OPEN') => void} state
 * @property {(problem: Problem) => void} problem behind the state; a final one is the last word
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

/** LIMIT: no server, by `retry: 0` or by mistake, makes a client busier than this. */
const SHORTEST_DELAY = 100;

/** LIMIT: a timer that is told to wait longer does not wait at all. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** LIMIT: ids that a tab remembers of what it had, against doubles when another tab takes over. */
const REMEMBERED_IDS = 4096;

/** What a server says of the connection itself, to each one anew. It is never replayed. */
const OF_THE_CONNECTION = new Set(['system', 'recovery', 'heartbeat']);

/** What the reasons of a server that ends a stream mean. */
const REASONS = Object.freeze({
  replaced: 'another stream came under the same client_id',
  kicked: 'somebody asked for it',
  expired: 'the token is not valid any more',
  ended: 'its topics have ended',
  closing: 'the server is closing',
});

/** The reasons after which the client does not reconnect by itself. */
const LAST_REASONS = new Set(['replaced', 'kicked']);

/** Names that the client speaks under. The server's events of these names go to `*` alone. */
const OWN_TYPES = new Set(['open', 'error', 'state', 'gap']);

// ---- the format

/**
 * Bytes, cut anywhere, as the events that a browser would dispatch.
 *
 * SPEC: HTML, 9.2.5 and 9.2.6. An event that the end of the stream cuts off is dropped, which takes
 * no code. In one thing browsers themselves differ from the letter, and so does this: an id
 * outlives a cut, so a stream that has not said one yet does not forget the last.
 *
 * LIMIT: none on the length of a line, as in EventSource: the server is trusted not to flood.
 */
export class EventStreamParser {
  /** SPEC: "UTF-8 decode": one BOM is dropped, what is no UTF-8 becomes U+FFFD. */
  #decoder = new TextDecoder();
  /** The pieces of a line that has not ended. @type {string[]} */
  #pieces = [];
  /** The last character was a CR, which ended its line at once. An LF would belong to it. */
  #afterCr = false;
  /** The lines of the event's data. None is not the same as one empty line. @type {string[]} */
  #data = [];
  #type = '';
  #id;
  #hasOwnId = false;
  #sink;

  /**
   * @param {object} sink
   * @param {(event: SSEEvent) => void} sink.event
   * @param {(cursor: string) => void} [sink.cursor] the id of a block without data
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
      this.#line(this.#pieces.splice(0).join(''));
    }
    if (start < text.length) this.#pieces.push(text.slice(start));
  }

  /** @param {string} line */
  #line(line) {
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

/** One stream that comes back, from `start` to `stop`. */
class Connection {
  #url;
  #options;
  #owner;
  #cursor;
  #retry;
  /** Attempts that failed since there was a good stream: one with an event, or one that lasted. */
  #failures = 0;
  #openedAt = Infinity;
  /** Why the server ends the stream, once it has said so. */
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

  /** Closes it. The owner hears nothing more. */
  stop() {
    this.#stopping.abort();
  }

  async #run() {
    const { signal } = this.#stopping;
    this.#enter('CONNECTING');
    while (!signal.aborted) {
      const problem = await this.#attempt();
      if (signal.aborted) return;
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
   * One request, and the stream that it becomes. Answers why that is over.
   * @returns {Promise<Problem>}
   */
  async #attempt() {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    const watchdog = new Watchdog(this.#options.silence, abort);
    this.#reason = '';
    this.#stopping.signal.addEventListener('abort', abort);
    try {
      const token = await tokenOf(this.#options, attempt.signal);
      const response = await fetch(this.#url, this.#request(token, attempt.signal));
      watchdog.calm();
      const refusal = await refusalOf(response, this.#options.giveUpOn);
      if (refusal) return refusal;
      await this.#read(/** @type {ReadableStream<Uint8Array>} */ (response.body), watchdog);
      return this.#end();
    } catch (error) {
      // What breaks after the last event breaks nothing.
      if (this.#reason) return this.#end();
      if (watchdog.hasBarked) {
        const message = `nothing came for ${this.#options.silence} ms`;
        return { kind: 'silence', message, final: false };
      }
      const kind = error instanceof NoToken ? 'token' : 'network';
      return { kind, message: error instanceof NoToken ? error.message : String(error), final: false };
    } finally {
      this.#stopping.signal.removeEventListener('abort', abort);
      watchdog.stop();
      attempt.abort();
    }
  }

  /** The stream has ended. @returns {Problem} */
  #end() {
    const message = 'the server ended the stream';
    const reason = this.#reason;
    if (!reason) return { kind: 'end', message, final: false };
    const meaning = Object(REASONS)[reason] ?? reason;
    return { kind: 'end', reason, message: `${message}: ${meaning}`, final: LAST_REASONS.has(reason) };
  }

  /** @param {string} token @param {AbortSignal} signal @returns {RequestInit} */
  #request(token, signal) {
    const { credentials } = this.#options;
    /** @type {Record<string, string>} */
    const own = { Accept: 'text/event-stream' };
    // From another origin this header costs a preflight, which the server must allow; the first
    // request goes without. tiny-sse takes `last_event_id` in the query as well.
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
    // What a proxy keeps open after the last event is not waited for.
    for (let part; !this.#reason && !(part = await reader.read()).done; ) {
      watchdog.calm();
      parser.feed(part.value);
    }
  }

  /** What a stream's bytes do, unless a handler has just stopped the connection between two events. */
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
   * The server's word is the least, twice as much after each failure; and chance only ever adds,
   * because a server that sends many away at once has given each a time of its own.
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

/** Why the server ends the stream, if this event says so. @param {SSEEvent} event @returns {string} */
function closingReason({ type, data }) {
  if (type !== 'system') return '';
  const told = Object(parsed(data));
  return told.type === 'closed' ? String(told.reason) : '';
}

/** `token` gave none. What it gave instead is not in the message, which goes into logs. */
class NoToken extends Error {}

/**
 * The token of the moment, or none. A page's promise may never be kept: `signal` ends the wait.
 * @param {Required<Options>} options
 * @param {AbortSignal} signal
 * @returns {Promise<string>}
 */
async function tokenOf({ token }, signal) {
  const given = (typeof token === 'function' ? await answerOf(token, signal) : token) ?? '';
  // SPEC: RFC 9110, 5.5: visible ASCII, to be sure. `fetch` would name the token in its complaint.
  if (!/^[!-~]*$/.test(given)) throw new NoToken('the token has characters that are for no header');
  return given;
}

/** @param {() => string | Promise<string>} ask @param {AbortSignal} signal @returns {Promise<string>} */
async function answerOf(ask, signal) {
  const aborted = new Promise((_, reject) => signal.addEventListener('abort', reject));
  try {
    return /** @type {string} */ (await Promise.race([Promise.resolve().then(ask), aborted]));
  } catch (error) {
    throw new NoToken(`there is no token: ${error}`);
  }
}

/** Barks once, when it has not been calmed for so long. */
class Watchdog {
  hasBarked = false;
  #heard = performance.now();
  #patience;
  #bark;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {number} patience milliseconds, or 0 for ever @param {() => void} bark */
  constructor(patience, bark) {
    this.#patience = patience;
    this.#bark = bark;
    if (patience > 0) this.#watch(patience);
  }

  /** Cheap: it is called for every chunk. The timer runs on and looks again. */
  calm() {
    this.#heard = performance.now();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** @param {number} left */
  #watch(left) {
    this.#timer = setTimeout(() => this.#look(), Math.min(left, LONGEST_DELAY));
  }

  #look() {
    const left = this.#heard + this.#patience - performance.now();
    if (left > 0) return this.#watch(left);
    this.hasBarked = true;
    this.#bark();
  }
}

/**
 * Why an answer is no stream; `null` if it is one.
 * @param {Response} response
 * @param {number[]} giveUpOn
 * @returns {Promise<Problem | null>}
 */
async function refusalOf(response, giveUpOn) {
  const { status, headers } = response;
  const type = headers.get('Content-Type') ?? '';
  if (status === 200) {
    if (/^text\/event-stream\s*(;|$)/i.test(type)) return null;
    // Not final: this is what the login page of a hotel's network looks like.
    return { kind: 'type', status, message: `the answer is ${type || 'of no type'}`, final: false };
  }
  const reason = type.startsWith('application/json') ? await errorIn(response) : '';
  const message = `the server answered ${status}${reason && `: ${reason}`}`;
  // Another origin shows this header only if it is exposed. Seconds; the form of a date is not read.
  const retryAfter = 1000 * (Number(headers.get('Retry-After')) || 0);
  return { kind: 'status', status, message, final: giveUpOn.includes(status), retryAfter };
}

/** The server's own words, `{"error": "…"}`. @param {Response} response */
async function errorIn(response) {
  const { error } = Object(parsed(await response.text()));
  return typeof error === 'string' ? error : '';
}

/** Waits. It is over early if the connection is stopped, or the network has come back. */
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
 * SPEC: HTML, 9.2.2: `Last-Event-ID` goes as UTF-8. `fetch` takes headers as one character a byte.
 * @param {string} text
 */
function asHeaderBytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
}

/** JSON, or else the text itself. @param {string} text @returns {any} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// ---- one stream for many tabs

/**
 * What a tab tells the others. Each word of a leader has its cursor before what the word brings.
 * @typedef {{ from: string, cursor: string } & (
 *   { kind: 'hello' } |
 *   { kind: 'event', event: SSEEvent } |
 *   { kind: 'cursor', id: string } |
 *   { kind: 'state', state: 'CONNECTING' | 'OPEN' } |
 *   { kind: 'problem', problem: Problem }
 * )} Word
 */

/**
 * One stream for all tabs of an origin that have this class on the same URL, and would be let in as
 * the same: what one may hear, another may not. The tab that holds a Web Lock leads: it has the connection, and passes on what comes over a BroadcastChannel. The
 * others wait for the lock, which the browser gives on, in the order of asking, when a tab closes,
 * crashes or leaves the page.
 *
 * What holds. A tab gets each event once, from its joining on. It has joined when it has heard from
 * a leader, or leads itself. A new leader goes on behind the last event that *it* had:
 *
 * - Nothing is lost, because the old leader passes an event on before its own page sees it, and
 *   whatever it had not passed on comes again, behind the new leader's cursor.
 * - Nothing is doubled. The old leader's last words may still be on their way when the new one
 *   asks, and then come twice, from two leaders; the second time is known by its id. Ids that one
 *   and the same leader repeats are the server's business.
 * - Events without an id of their own, such as those to one client alone, are not kept by the
 *   server. They may be lost at a change of leaders, as they are at any cut.
 * - A tab with a cursor of its own (it was in the back-forward cache, say) that finds a leader with
 *   another one is told of a gap, of the reason `shared`: nobody can replay for it alone.
 *
 * What does not:
 *
 * - A leader whose page hangs, in an endless loop or a debugger, holds up the others. (Browsers do
 *   not freeze a page in the background while it holds a lock.)
 * - A leader in the background comes back after a cut as slowly as its timers run there, which in
 *   Chromium may be once a minute; the others wait for it.
 * - That the last words of a leader come before the first of the next, which are a request and an
 *   answer younger, is what browsers do and no standard says. If they did not, a tab would still
 *   get each event once, but these out of order.
 */
class SharedConnection {
  #url;
  #options;
  #owner;
  #cursor;
  #me = crypto.randomUUID();
  #hasJoined = false;
  /** Which leader brought an event, by the event's id. @type {Map<string, string>} */
  #bringers = new Map();
  /** The connection, of the tab that leads. @type {Connection | null} */
  #line = null;
  #stopping = new AbortController();
  /** Gives the lock back. */
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
   * What those that share it have in common, as a digest: the names of channels and locks are
   * to be seen, and a token is in it. It is that of the joining; a new one does not change it.
   */
  async #name() {
    const { headers, credentials, silence } = this.#options;
    const attempt = new AbortController();
    const watchdog = new Watchdog(silence, () => attempt.abort());
    const token = await tokenOf(this.#options, attempt.signal).finally(() => watchdog.stop());
    const all = JSON.stringify([this.#url.href, token, headers, credentials]);
    const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(all));
    return `tiny-sse ${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
  }

  get isLeader() {
    return this.#line !== null;
  }

  start() {
    const { signal } = this.#stopping;
    this.#owner.state('CONNECTING');
    if (signal.aborted) return; // by a handler, just now
    const lead = () => this.#lead();
    // Fails when it is stopped before its turn; or there are no locks to be had, as in a sandboxed
    // frame, which is an origin of its own and shares with nobody anyway; or no token, without which
    // nobody knows with whom: then it has a connection of its own, which says so and tries again.
    void this.#join(lead).catch(lead);
  }

  /** @param {() => Promise<void> | undefined} lead */
  async #join(lead) {
    const name = await this.#name();
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#tell({ kind: 'hello' });
    await navigator.locks.request(name, { signal }, lead);
  }

  stop() {
    this.#stopping.abort();
    this.#line?.stop();
    this.#line = null;
    this.#channel?.close();
    // ORDER: after the last word, so that few are on their way when the next one begins.
    this.#release();
  }

  /** Holds the lock until the promise that it answers is fulfilled. */
  #lead() {
    if (this.#stopping.signal.aborted) return;
    this.#hasJoined = true;
    this.#line = new Connection(this.#url, this.#options, this.#cursor, this.#spokesman());
    this.#line.start();
    return new Promise((resolve) => {
      this.#release = () => resolve(undefined);
      if (this.#stopping.signal.aborted) this.#release();
    });
  }

  /**
   * The owner of a leader's connection. ORDER: the others hear first. A handler of this page may
   * take long, or close it.
   * @returns {Owner}
   */
  #spokesman() {
    return {
      event: (event) => {
        this.#tell({ kind: 'event', event });
        this.#takeEvent(event, this.#me);
      },
      cursor: (id) => {
        this.#tell({ kind: 'cursor', id });
        this.#takeCursor(id);
      },
      state: (state) => {
        this.#tell({ kind: 'state', state });
        this.#owner.state(state);
      },
      problem: (problem) => {
        this.#tell({ kind: 'problem', problem });
        this.#owner.problem(problem);
      },
    };
  }

  /** @param {Record<string, unknown> & { kind: Word['kind'] }} word */
  #tell(word) {
    if (this.#stopping.signal.aborted) return;
    this.#channel?.postMessage({ ...word, from: this.#me, cursor: this.#cursor });
  }

  /** @param {Word} word */
  #hear(word) {
    if (this.#stopping.signal.aborted) return;
    if (word.kind === 'hello') {
      if (this.#line) this.#tell({ kind: 'state', state: this.#line.state });
    } else if (this.#line) {
      // The message is from the previous leader. Its events count, and so does the server's message that the
      // client should not come back. Other messages are out of date.
      if (word.kind === 'event') this.#takeEvent(word.event, word.from);
      else if (word.kind === 'problem' && word.problem.final && word.problem.reason) this.#owner.problem(word.problem);
    } else {
      this.#compare(word.cursor);
      this.#follow(word);
    }
  }

  /** @param {Word} word */
  #follow(word) {
    if (word.kind === 'event') this.#takeEvent(word.event, word.from);
    else if (word.kind === 'cursor') this.#takeCursor(word.id);
    else if (word.kind === 'state') this.#owner.state(word.state);
    else if (word.kind === 'problem') this.#owner.problem(word.problem);
  }

  /**
   * Compares the leader's cursor with ours: at joining, and for a leader that has none, because it
   * came to lead before it had heard of any.
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

  /** @param {SSEEvent} event @param {string} bringer */
  #takeEvent(event, bringer) {
    if (event.hasOwnId && !OF_THE_CONNECTION.has(event.type)) {
      const before = this.#bringers.get(event.id);
      if (before !== undefined && before !== bringer) return;
      this.#remember(event.id, bringer);
    }
    this.#cursor = event.id;
    this.#owner.event(event);
  }

  /** @param {string} id @param {string} bringer */
  #remember(id, bringer) {
    this.#bringers.set(id, bringer);
    if (this.#bringers.size > REMEMBERED_IDS) {
      // A map is in the order of insertion.
      const [oldest] = this.#bringers.keys();
      this.#bringers.delete(oldest);
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
 * Handlers get the events of the server by their names (`message` if they have none), the data
 * parsed as JSON if it is JSON, else as it came; and, of the client itself:
 *
 * - `open`: there is a stream, again or for the first time.
 * - `error`: there is none, for this {@link Problem}. It comes back unless `final` is true.
 * - `state`: the new {@link State}.
 * - `recovery`, from tiny-sse after a return: `{ recovered_from, replayed, complete, reason? }`.
 * - `gap`: the same when `complete` is false. Something was missed and cannot be replayed.
 * - `*`: every event of the server, whatever its name.
 *
 * The server's events named `open`, `error`, `state` or `gap` go to `*` alone, so that nobody who
 * may publish can feign what the client says.
 */
export class SSEClient {
  #url;
  /** @type {Required<Options>} */
  #options;
  #cursor;
  /** By type; each handler with whether it is for once. @type {Map<string, Map<Handler, boolean>>} */
  #handlers = new Map();
  /** @type {State} */
  #state = 'DISCONNECTED';
  /** @type {Connection | SharedConnection | null} */
  #line = null;
  /** The page is hidden for good or in the back-forward cache, and would have a connection else. */
  #isSuspended = false;

  /**
   * Connects nothing yet.
   * @param {string | URL} url relative to the page
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    this.#cursor = this.#options.lastEventId;
    this.#url = withHeartbeat(absolute(url), this.#options.heartbeat);
  }

  /** Whether there is a stream. */
  get state() {
    return this.#state;
  }

  /** The cursor: the id of the last event that had one. Empty: none yet. */
  get lastEventId() {
    return this.#cursor;
  }

  /** Whether it is this tab that has the connection, now. Of those that share one, one has. */
  get isLeader() {
    return this.#line?.isLeader ?? false;
  }

  /** Connects, behind the cursor if there is one. Without effect if it is connected or about to be. */
  connect() {
    if (this.#line) return this;
    this.#isSuspended = false;
    for (const type of ['pagehide', 'pageshow']) {
      globalThis.addEventListener?.(type, this.#onPage);
    }
    this.#open();
    return this;
  }

  /** Ends the stream and all attempts. No handler is called for it any more, but for `state`. */
  disconnect() {
    this.#close('DISCONNECTED');
    return this;
  }

  /**
   * Calls `handler` for each event of this type. Adding it a second time changes nothing.
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
   * Calls `handler` no more; without a handler, none of this type.
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
    const Line = isShared ? SharedConnection : Connection;
    const line = new Line(this.#url, this.#options, this.#cursor, this.#owner());
    this.#line = line;
    line.start();
  }

  /** @returns {Owner} */
  #owner() {
    return {
      event: (event) => this.#take(event),
      cursor: (cursor) => {
        this.#cursor = cursor;
      },
      state: (state) => this.#enter(state),
      problem: (problem) => {
        if (problem.final) this.#close('CLOSED');
        this.#say('error', problem, problem.message);
      },
    };
  }

  /** @param {State} state */
  #close(state) {
    for (const type of ['pagehide', 'pageshow']) {
      globalThis.removeEventListener?.(type, this.#onPage);
    }
    this.#isSuspended = false;
    this.#line?.stop();
    this.#line = null;
    this.#enter(state);
  }

  /**
   * A page that goes into the back-forward cache must not hold a connection, a lock or a channel,
   * or it does not get there; one that goes for good should say so at once.
   * @param {Event} event
   */
  #onPage = ({ type }) => {
    if (type === 'pageshow' && this.#isSuspended) {
      this.#isSuspended = false;
      this.#open();
    } else if (type === 'pagehide' && this.#line) {
      this.#isSuspended = true;
      this.#line.stop();
      this.#line = null;
      this.#enter('DISCONNECTED');
    }
  };

  /** @param {State} state */
  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#say('state', state, state);
    if (state === 'OPEN' && this.#state === 'OPEN') this.#say('open', undefined, '');
  }

  /** An event of the server's. @param {SSEEvent} event */
  #take(event) {
    this.#cursor = event.id;
    const data = parsed(event.data);
    if (!OWN_TYPES.has(event.type)) this.#emit(event.type, data, event);
    this.#emit('*', data, event);
    if (event.type === 'recovery' && data?.complete === false) this.#say('gap', data, event.data);
  }

  /** An event of our own. @param {string} type @param {unknown} data @param {string} text */
  #say(type, data, text) {
    this.#emit(type, data, { type, data: text, id: this.#cursor, hasOwnId: false });
  }

  /**
   * One handler's exception is reported like any that nobody catches; the others still run.
   * @param {string} type @param {unknown} data @param {SSEEvent} event
   */
  #emit(type, data, event) {
    const handlers = this.#handlers.get(type);
    // A copy: handlers may add and remove. One that was removed meanwhile is not called.
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
 * Appended as text: to set a parameter would write the others anew.
 * @param {URL} url
 * @param {boolean} wanted
 */
function withHeartbeat(url, wanted) {
  if (wanted && !url.searchParams.has('heartbeat')) {
    url.search += `${url.search ? '&' : '?'}heartbeat=event`;
  }
  return url;
}
