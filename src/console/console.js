// The console: turns the endpoints of the server into a page on which one can try each of them.
//
// The top of the page has two connections to the same stream: the browser's own EventSource and the SSEClient, so
// that their behaviour can be compared. The table of events shows what the SSEClient receives, because an EventSource
// does not receive events whose names it does not know.
//
// Below are panels, one of which is visible. Each is a section of this file: events, clients, compare, and six
// example uses that only `tiny-sse demo` has. A panel opens its own streams when it is shown and closes them when
// another panel is shown, because a browser opens at most six connections to a server over HTTP/1.1.
//
// A publisher may be hostile. Everything from an event is therefore shown with textContent, never as HTML; control
// characters are replaced by visible ones, and long texts are clipped.

import { SSEClient } from './sse-client.js';

// ---- LIMIT: what keeps the page from growing -----------------------------------------------------

const ROWS = 500;               // maximum events that are kept, and rows of the table
const DATA_LENGTH = 8 << 20;    // maximum characters of data in all these events
const CLIP = 280;               // characters of an event that are shown before "show all"
const PIECE = 2048;             // characters of a long text that are laid out together
const RAW = 64 << 10;           // maximum characters of the raw stream that are kept
const CLIENT_ROWS = 200;        // maximum clients that are listed, those with the largest backlogs
const SECONDS = 60;             // width of the charts
const NAMES = 100;              // maximum event names that the EventSource listens to

// ---- small tools --------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const now = () => performance.timeOrigin + performance.now();
const count = (n) => n.toLocaleString('en');
const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');

/**
 * Returns a new element with children. `class`, `text` and `data` set its class, text and dataset; other names are
 * properties of the element.
 */
function el(tag, { class: name, text, data, ...rest } = {}, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  Object.assign(node.dataset, data);
  Object.assign(node, rest);
  node.append(...children);
  return node;
}

/**
 * Returns the text with each control character replaced by a visible symbol, and each character that changes the
 * direction of text or is invisible replaced by its number.
 */
function visible(text) {
  return String(text)
    .replace(/[\u0000-\u0009\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, '\u2421')
    .replace(/[\u0080-\u009f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
      (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}⟩`);
}

/**
 * Returns the beginning of a text: at most four lines and `length` characters, without half a surrogate pair at its
 * end.
 */
function clip(text, length = CLIP) {
  let end = Math.min(text.length, length);
  for (let line = 0, at = -1; line < 4; line += 1) {
    at = text.indexOf('\n', at + 1);
    if (at < 0 || at >= end) break;
    if (line === 3) end = at;
  }
  const last = text.charCodeAt(end - 1);
  return end < text.length && last >= 0xd800 && last < 0xdc00 ? text.slice(0, end - 1) : text.slice(0, end);
}

/** Returns a long text as blocks. The browser need not lay out a block before it becomes visible. */
function pieces(text) {
  const parts = [];
  for (let at = 0, end; at < text.length; at = end) {
    end = Math.min(at + PIECE, text.length);
    const lineEnd = end < text.length ? text.slice(at, end).lastIndexOf('\n') : -1;
    if (lineEnd >= 0) end = at + lineEnd + 1;
    // No cut inside a surrogate pair, or before a character that joins the one before it.
    else for (let i = 0; i < 16 && /[\udc00-\udfff\u200d\ufe0f\u0300-\u036f]/.test(text[end] ?? ''); i += 1) end += 1;
    parts.push(el('span', { class: 'piece', text: text.slice(at, end) }));
  }
  return parts;
}

const utf8 = new TextEncoder();
const byteLength = (text) => utf8.encode(text).length;

function bytes(n) {
  if (n < 1024) return `${n} B`;
  const k = Math.min(3, Math.floor(Math.log2(n) / 10));
  const value = n / 1024 ** k;
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} ${['', 'KiB', 'MiB', 'GiB'][k]}`;
}

function millis(ms) {
  if (ms >= 9950) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 995) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 9.95 ? `${Math.round(ms)} ms` : `${Math.max(ms, 0).toFixed(1)} ms`;
}

function age(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const hours = Math.floor(seconds / 3600);
  return hours < 48 ? `${hours} h ${Math.floor((seconds % 3600) / 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const clockTime = (at) => {
  const date = new Date(at);
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, '0')}`;
};

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
};

/** Returns a path with a query. Parameters with an empty value are left out; an array is a repeated parameter. */
function address(path, query) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const text = pairs.filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  return text ? `${path}?${text}` : path;
}

/** Reads an answer to its end. `verb` is the right that the request needs: `subscribe` or `publish`. */
async function readAnswer(response, verb) {
  const text = await response.text();
  let body = text;
  try { body = JSON.parse(text); } catch { /* The body is not JSON: the text itself is the body. */ }
  return { ok: response.ok, status: response.status, body, text, verb };
}

/** Sends a request and returns what `readAnswer` returns. The status is 0 if the server does not answer. */
async function ask(method, url, body, { verb = method === 'GET' || method === 'HEAD' ? 'subscribe' : 'publish', headers } = {}) {
  try {
    return await readAnswer(await fetch(url, { method, body, cache: 'no-store', headers: { ...bearer(verb), ...headers } }), verb);
  } catch {
    return { ok: false, status: 0, body: { error: 'the server does not answer' }, text: '', verb };
  }
}

/** Shows a text in an element. `kind` selects the colour: `ok`, `wait` or `bad`. */
function say(node, text, kind = '') {
  node.textContent = visible(text);
  node.dataset.kind = kind;
}

/** Stores a setting for later visits of this page, or returns it if there is no `value`. */
function remember(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`tiny-sse ${name}`);
    localStorage.setItem(`tiny-sse ${name}`, value);
  } catch { /* The user has switched storage off: each visit begins with the defaults. */ }
  return null;
}

/** Returns a function that runs `draw` before the next frame: once, however often the function is called. */
function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}

// ---- access: the tokens, and the messages where a token is missing ---------------------------------

// Tokens go only to this server: every address in this file is a path, and the Content-Security-Policy of the page
// allows no other server. A token is in a header, with one exception: an EventSource cannot set headers, so its
// address has the token. No text that the page shows or offers to copy contains a token.
//
// Tokens are kept in sessionStorage, so that a reload does not ask for them again. It belongs to one browser tab,
// ends with the tab, and only pages of this origin can read it. A browser that can restore its tabs after a crash may
// keep it on disk until then. In localStorage the tokens would stay for ever, and in every tab.

const VERBS = ['subscribe', 'publish'];
const STORAGE_KEY = 'tiny-sse tokens';
/** A new object each time the tokens change. An answer that was requested with an older object is ignored. */
let tokens = { subscribe: '', publish: '' };

const tokenFor = (verb) => tokens[verb] || tokens.subscribe;
const bearer = (verb) => (tokenFor(verb) ? { Authorization: `Bearer ${tokenFor(verb)}` } : {});
const isRefused = ({ status }) => status === 401 || status === 403;

/** Uses these tokens for all requests from now on, and shows them in the form. */
function setTokens(given) {
  tokens = Object.fromEntries(VERBS.map((verb) => [verb, String(given[verb] ?? '').trim()]));
  for (const verb of VERBS) $(`access-${verb}`).value = tokens[verb];
  const amount = new Set(Object.values(tokens).filter(Boolean)).size;
  $('access-now').textContent = ['none', 'one', 'two'][amount];
  $('events-curl').textContent = `curl -d hello ${tokenFor('publish') && '-H "Authorization: Bearer $TOKEN" '}${location.origin}/events`;
  forgetDenials();
}

function storedTokens() {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY)) ?? {};
  } catch {
    return {}; // Storage is switched off, or the value is not from this page: there are no tokens.
  }
}

/** Stores and uses the tokens of the form, and reconnects both streams after the latest event. */
function useTokens() {
  setTokens(Object.fromEntries(VERBS.map((verb) => [verb, $(`access-${verb}`).value])));
  try {
    if (VERBS.some((verb) => tokens[verb])) sessionStorage.setItem(STORAGE_KEY, JSON.stringify(tokens));
    else sessionStorage.removeItem(STORAGE_KEY);
  } catch { /* Storage is switched off: the tokens are lost at a reload. */ }
  $('access').open = false;
  $('access-open').focus();
  if (!streams.isDisconnected) {
    say($('outcome'), 'Reconnecting with these tokens …', 'wait');
    openNative(streams.client.lastEventId || $('subscribe-cursor').value.trim());
    streams.client.disconnect().connect();
  }
  if (shown === 'events') { if (rawWanted() && !streams.isDisconnected) openRaw(); } else if (shown !== 'compare') enter(shown);
  askStats();
}

function forgetTokens() {
  for (const verb of VERBS) $(`access-${verb}`).value = '';
  useTokens();
}

/**
 * Returns why a request failed. For a 401 the page has its own text, because the server's names options and headers.
 * `action` says what the user wanted to do.
 */
function reason({ status, body, text, verb, action = verb }) {
  if (status === 401) return tokenFor(verb) ? `The server does not accept this token. A different token is required to ${action}.` : `A token is required to ${action}. Enter it under “Tokens” at the top.`;
  return `${status || ''} ${body?.error ?? text?.slice(0, 200) ?? ''}`.trim();
}

/** Shows why a request failed. If a token would help, a button leads to the form for tokens. */
function showFailure(node, got) {
  say(node, reason(got), 'bad');
  // A 403 to a request without a token: the server has no tokens at all, so none would help.
  if (!isRefused(got) || (got.status === 403 && !tokenFor(got.verb))) return;
  const button = el('button', { class: 'small', type: 'button', text: tokenFor(got.verb) ? 'Change the token' : 'Enter a token' });
  button.addEventListener('click', () => {
    $('access').open = true;
    $(`access-${got.verb}`).focus();
  });
  node.append(' ', button);
}

/** Returns the problem of an SSEClient in the form that `readAnswer` has. */
const answerOfProblem = ({ status, message }) => ({ status, verb: 'subscribe', body: { error: message.replace(/^the server answered \d+: /, '') } });

// ---- charts -------------------------------------------------------------------------------------

const palette = new Map();
const colour = (name) => {
  if (!palette.has(name)) palette.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return palette.get(name);
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  palette.clear();
  drawCharts();
  drawMarks();
  drawComparison();
  if (shown === 'monitoring' || shown === 'prices') uses[shown].draw();
});

/**
 * Prepares a canvas in the resolution of the screen. Returns its context and its size in CSS pixels, or null if the
 * canvas is hidden.
 */
function sheet(canvas) {
  const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio || 1];
  if (!width || !height) return null;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = '10px system-ui, sans-serif';
  return { pen, width, height };
}

/** Returns the smallest of 1, 2, 5, 10, 20, 50, … that is not smaller than the value. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.9999);
}

/**
 * Draws the newest points as lines. A series is `{ values, colour, fill, faint }`; the line is interrupted where a
 * value is null.
 */
function plot(canvas, series, { least = 1, label = String, bare = false, points = SECONDS } = {}) {
  const on = sheet(canvas);
  if (!on) return;
  const { pen, width, height } = on;
  const top = roundUp(Math.max(least, ...series.flatMap(({ values }) => values.filter((v) => v !== null))));
  const [ceiling, floor] = bare ? [2, height - 2] : [13, height - 3];
  const y = (value) => floor - (value / top) * (floor - ceiling);
  if (!bare) {
    pen.strokeStyle = colour('grid');
    pen.beginPath();
    for (const value of [0, top / 2, top]) {
      pen.moveTo(0, Math.round(y(value)) + 0.5);
      pen.lineTo(width, Math.round(y(value)) + 0.5);
    }
    pen.stroke();
    pen.fillStyle = colour('quiet');
    pen.fillText(label(top), 0, 9);
  }
  for (const { values: all, colour: name, fill, faint } of series) {
    const values = all.slice(-points);
    const step = width / (points - 1);
    const x = (i) => width - (values.length - 1 - i) * step;
    pen.strokeStyle = pen.fillStyle = colour(name);
    pen.lineWidth = 1.5;
    pen.lineJoin = 'round';
    const parts = values.reduce((all, value, i) => {
      if (value === null) all.push([]);
      else all.at(-1).push([x(i), y(value)]);
      return all;
    }, [[]]).filter((part) => part.length);
    for (const part of parts) {
      pen.beginPath();
      part.forEach(([px, py], i) => (i ? pen.lineTo(px, py) : pen.moveTo(px, py)));
      if (part.length === 1) pen.arc(Math.min(part[0][0], width - 2), part[0][1], 1, 0, 7);
      pen.globalAlpha = faint ? 0.4 : 1;
      pen.stroke();
      pen.globalAlpha = 1;
      if (fill && part.length > 1) {
        pen.lineTo(part.at(-1)[0], floor);
        pen.lineTo(part[0][0], floor);
        pen.globalAlpha = 0.14;
        pen.fill();
        pen.globalAlpha = 1;
      }
    }
  }
}

/** The values of the last minute, one for each second. */
class Minute {
  values = [];
  push(value) {
    this.values.push(value);
    if (this.values.length > SECONDS) this.values.shift();
  }
  known() { return this.values.filter((value) => value !== null); }
}

const minutes = { events: new Minute(), clients: new Minute(), latency: new Minute(), worst: new Minute() };
const second = { began: now(), events: 0, latencies: [] };

/** Shows the current value beside a chart, and gives it to screen readers. */
function caption(id, text) {
  $(`${id}-now`).textContent = text;
  const name = $(id).parentElement.querySelector('figcaption').firstChild.textContent.trim();
  $(id).ariaLabel = `${name}: ${text}`;
}

/** Runs each second: adds the values of this second to the charts. */
function endSecond() {
  // Browsers slow down the timers of a hidden page. A second without a measurement is null, a gap in the chart.
  const elapsed = Math.max(1, Math.min(SECONDS, Math.round((now() - second.began) / 1000)));
  for (let i = 1; i < elapsed; i += 1) Object.values(minutes).forEach((minute) => minute.push(null));
  minutes.events.push(second.events / elapsed);
  minutes.clients.push(server?.active_connections ?? null);
  minutes.latency.push(second.latencies.length ? median(second.latencies) : null);
  minutes.worst.push(second.latencies.length ? Math.max(...second.latencies) : null);
  Object.assign(second, { began: now(), events: 0, latencies: [] });
  drawCharts();
}

function drawCharts() {
  if (shown !== 'events') return;
  const { events, clients, latency, worst } = minutes;
  caption('chart-events', count(Math.round(events.values.at(-1) ?? 0)));
  caption('chart-clients', server ? count(server.active_connections) : denied.stats ? 'needs a token' : '–');
  const known = latency.known();
  caption('chart-latency', known.length ? `${millis(known.at(-1))}, maximum ${millis(Math.max(...worst.known()))}` : 'none yet');
  plot($('chart-events'), [{ values: events.values, colour: 'a', fill: true }], { least: 5 });
  plot($('chart-clients'), [{ values: clients.values, colour: 'c', fill: true }], { least: 5 });
  plot($('chart-latency'), [{ values: worst.values, colour: 'b', fill: true, faint: true }, { values: latency.values, colour: 'b' }], { least: 2, label: millis });
}

// ---- the two connections: an EventSource and an SSEClient with the same address ---------------------

const STATES = ['CONNECTING', 'OPEN', 'CLOSED'];
/** The state of both connections. */
const streams = {
  native: null,                      // the EventSource
  client: null,                      // the SSEClient
  cursor: '',                        // the id after which Resume continues
  isDisconnected: false,             // the user has pressed Disconnect
  isYielded: false,                  // another browser tab of this page has the EventSource
  isServerGone: false,               // the last attempt of the SSEClient found no server
  names: new Set(),                  // the event names that the EventSource listens to
  received: { native: 0, client: 0 },  // events received since the last Subscribe
  published: 0,                      // events that this page published while it was disconnected
};

/** Returns the values of the form “Subscribe”. */
const subscribeForm = () => ({
  topic: $('subscribe-topics').value.split(/\s+/).filter(Boolean),
  client: $('subscribe-client').value,
  shared: $('subscribe-shared').checked,
});

/**
 * Returns the address of a stream. `kind` is `native`, `client` or `raw` and is part of the client id, because a
 * second stream with the same id replaces the first.
 */
function streamUrl(kind, cursor) {
  const { topic, client, shared } = subscribeForm();
  const name = client && !(shared && kind === 'client') ? `${client}.${kind}` : '';
  return address('/events', { topic, client_id: name, last_event_id: cursor, token: kind === 'native' ? tokenFor('subscribe') : '' });
}

function openNative(cursor) {
  streams.native?.close();
  const source = new EventSource(streamUrl('native', cursor));
  const names = ['message', 'system', 'recovery', ...streams.names];
  streams.native = source;
  streams.isYielded = false;
  otherTabs.postMessage('this tab has opened its EventSource');
  streams.names.clear();
  source.onopen = source.onerror = showStates;
  names.forEach(listenTo);
  showStates();
}

/**
 * Makes the EventSource listen to events of this name. It receives an event only if it listens to the name, so each
 * name that the SSEClient receives is added.
 */
function listenTo(name) {
  if (!streams.native || streams.names.has(name) || streams.names.size >= NAMES || name === 'error' || name === 'open') return;
  streams.names.add(name);
  streams.native.addEventListener(name, () => { streams.received.native += 1; showSoon(); });
}

function openClient(cursor) {
  streams.client?.disconnect();
  const client = new SSEClient(streamUrl('client', cursor), { shared: subscribeForm().shared, token: () => tokenFor('subscribe') });
  streams.client = client;
  client
    .on('state', () => streams.client === client && showStates())
    .on('open', () => streams.client === client && showOpen())
    .on('recovery', (recovery) => streams.client === client && showRecovery(recovery))
    .on('error', (problem) => streams.client === client && showProblem(problem))
    .on('*', (_, event) => streams.client === client && receive(event));
  client.connect();
  showStates();
}

function subscribe() {
  const cursor = $('subscribe-cursor').value.trim();
  remember('shared', subscribeForm().shared ? 'yes' : '');
  Object.assign(streams, { isDisconnected: false, isServerGone: false, cursor: '', received: { native: 0, client: 0 } });
  say($('outcome'), cursor ? 'Requesting the events after this id …' : 'Receiving new events. Press Disconnect, publish an event, and press Resume: this line then shows what was missed.');
  openNative(cursor);
  openClient(cursor);
  if (rawWanted()) openRaw();
}

function disconnect() {
  streams.isDisconnected = true;
  streams.published = 0;
  streams.cursor = streams.client.lastEventId || streams.cursor;
  streams.native.close();
  streams.client.disconnect();
  closeRaw('disconnected');
  say($('outcome'), streams.cursor ? `Disconnected. The cursor is ${streams.cursor}. Events that are published now are missed until you press Resume.` : 'Disconnected before the server sent a cursor.', 'wait');
  showStates();
}

function resume() {
  streams.isDisconnected = false;
  say($('outcome'), 'Resuming …', 'wait');
  openNative(streams.cursor);
  streams.client.connect();
  if (rawWanted()) openRaw();
  showStates();
}

// Of all browser tabs with this page, only one has an EventSource: the tab that was visible last. With two
// connections in each, three tabs would use all six connections of the browser. A tab that becomes visible opens its
// EventSource again and resumes after its cursor.
const otherTabs = new BroadcastChannel('tiny-sse console');

function yieldNative() {
  if (streams.isDisconnected || streams.isYielded) return;
  streams.isYielded = true;
  streams.native.close();
  showStates();
}

function reclaimNative() {
  if (streams.isYielded && !streams.isDisconnected && !document.hidden) openNative(streams.client.lastEventId);
}

/** The meanings of the reasons in a `recovery` event with a gap. */
const GAPS = {
  evicted: 'the cursor is older than the history of the server',
  unknown: 'the server never sent this cursor',
  future: 'the cursor is newer than all events of the server, so it is from before a restart',
};

/** Shows what the server replayed, from its `recovery` event. */
function showRecovery(recovery) {
  if (recovery === null || typeof recovery !== 'object') return;
  const { recovered_from: cursor, replayed, complete, reason } = recovery;
  const events = `${count(replayed)} event${replayed === 1 ? '' : 's'}`;
  if (cursor === 'earliest') {
    say($('outcome'), `Replayed the whole history of the server: ${events}.`, 'ok');
  } else if (complete) {
    say($('outcome'), replayed ? `Resumed after ${cursor}: ${events} replayed, and none is missing.` : `Resumed after ${cursor}: no event was missed.`, 'ok');
  } else {
    say($('outcome'), `Resumed with a gap: ${GAPS[reason] ?? reason}. ${replayed ? `The server replayed its whole history: ${events}` : 'The history of the server is empty'}.`, 'bad');
  }
}

function showOpen() {
  streams.isServerGone = false;
  forgetDenials();
  if ($('outcome').dataset.kind) say($('outcome'), 'The stream is open.', 'ok');
}

function showProblem(problem) {
  const { kind, retryIn, final } = problem;
  // Any other kind, such as the status 503, comes from a server that runs.
  streams.isServerGone = kind === 'network';
  if (isRefused(problem)) {
    const hint = problem.status === 403 ? ' You can change the topics under “Subscribe”.' : '';
    const got = answerOfProblem(problem);
    showFailure($('outcome'), { ...got, body: { error: `${got.body.error}.${hint}` } });
    $('access').open ||= problem.status === 401;
    return;
  }
  const message = streams.isServerGone ? 'The server cannot be reached' : problem.message;
  say($('outcome'), final ? `${message}. The SSEClient does not reconnect by itself.` : `${message}. Next attempt in ${millis(retryIn)}.`, final ? 'bad' : 'wait');
}

/** Shows the state of one connection. `isIntended`: the user has closed it, so CLOSED is not shown in red. */
function showState(who, state, isIntended) {
  $(`${who}-lamp`).dataset.state = state;
  $(`${who}-lamp`).closest('.peer').toggleAttribute('data-intended', isIntended);
  if ($(`${who}-state`).textContent !== state) $(`${who}-state`).textContent = state;
  for (const step of $(`${who}-track`).children) {
    if (step.dataset.state === state) step.ariaCurrent = 'step';
    else step.ariaCurrent = null;
  }
}

function showStates() {
  showState('native', streams.native ? STATES[streams.native.readyState] : 'CLOSED', streams.isDisconnected || streams.isYielded);
  showState('client', streams.client?.state ?? 'DISCONNECTED', streams.isDisconnected);
  $('native-count').textContent = streams.isYielded ? 'open in another tab of this browser' : `${count(streams.received.native)} event${streams.received.native === 1 ? '' : 's'}; it listens to ${streams.names.size} names`;
  $('client-count').textContent = `${count(streams.received.client)} event${streams.received.client === 1 ? '' : 's'}; it listens to all names`;
  $('cursor').textContent = visible(streams.client?.lastEventId || streams.cursor || 'none yet');
  $('cut').disabled = streams.isDisconnected;
  $('resume').disabled = !streams.isDisconnected;
}
const showSoon = eachFrame(showStates);

// ---- events: the table ----------------------------------------------------------------------------

const table = {
  entries: [],      // the events that are kept, oldest first
  dataLength: 0,    // the characters of data in them
  total: 0,         // all events since Clear
  fresh: [],        // the events that no frame has drawn yet
  frozen: null,     // while paused: the entries at that time
  filter: [],       // the words of the filter
};

/** Handles an event of the SSEClient: counts it, measures its latency, keeps it, and draws it with the next frame. */
function receive(event) {
  if (typeof event?.data !== 'string') return;
  if (event.type === 'heartbeat') return showHeartbeat();
  const at = now();
  streams.received.client += 1;
  second.events += 1;
  listenTo(event.type);
  measureLatency(event, at);
  const entry = { at, type: event.type, id: event.hasOwnId ? event.id : '', data: event.data };
  table.total += 1;
  table.entries.push(entry);
  table.fresh.push(entry);
  table.dataLength += entry.data.length;
  while (table.entries.length > ROWS || (table.dataLength > DATA_LENGTH && table.entries.length > 1)) {
    table.dataLength -= table.entries.shift().data.length;
  }
  if (table.fresh.length > 2 * ROWS) table.fresh.splice(0, ROWS);
  showSoon();
  drawEvents();
}

/** Lights the lamp of the SSEClient for a moment. */
function showHeartbeat() {
  if (reducedMotion.matches) return;
  $('client-lamp').classList.add('heartbeat');
  setTimeout(() => $('client-lamp').classList.remove('heartbeat'), 300);
}

const drawEvents = eachFrame(() => {
  const fresh = table.fresh;
  table.fresh = [];
  countEvents();
  if (table.frozen) return;
  const rows = $('events-rows');
  const kept = new Set(table.entries);
  const added = fresh.filter((entry) => kept.has(entry) && matches(entry)).map(eventRow).reverse();
  rows.prepend(...added);
  while (rows.lastElementChild && !kept.has(rows.lastElementChild.entry)) rows.lastElementChild.remove();
});

function redrawEvents() {
  table.fresh = [];
  const entries = table.frozen ?? table.entries;
  $('events-rows').replaceChildren(...entries.filter(matches).map(eventRow).reverse());
  countEvents();
}

function countEvents() {
  const [rows, kept] = [$('events-rows').children.length, table.entries.length];
  $('events-empty').hidden = table.total > 0;
  const waiting = table.frozen ? `paused, ${count(table.total - table.frozenAt)} new` : '';
  const part = table.filter.length ? `${count(rows)} match` : '';
  const dropped = table.total > kept ? `the latest ${count(kept)} of ${count(table.total)} events` : `${count(table.total)} event${table.total === 1 ? '' : 's'}`;
  $('events-count').textContent = table.total ? [part, dropped, waiting].filter(Boolean).join(' · ') : 'no event yet';
}

/**
 * Whether an event matches the filter: its name, id or data must contain each word, and must not contain a word that
 * has a hyphen in front.
 */
function matches({ type, id, data }) {
  if (!table.filter.length) return true;
  const text = `${type}\n${id}\n${data}`.toLowerCase();
  return table.filter.every(({ word, not }) => text.includes(word) !== not);
}

function cell(name, ...children) {
  const node = el('td', { class: name }, ...children);
  node.role = 'cell';
  return node;
}

function eventRow(entry) {
  const own = entry.type === 'system' || entry.type === 'recovery';
  const text = el('span', { class: 'text', dir: 'auto', text: visible(clip(entry.data)) });
  const what = cell('what', text);
  if (text.textContent === '') text.append(el('span', { class: 'quiet', text: 'empty' }));
  if (clip(entry.data).length < entry.data.length) what.append('… ', wholeButton(entry, text));
  const row = el('tr', { class: own ? 'own' : '' },
    cell('when', clockTime(entry.at)), cell('name', visible(clip(entry.type, 80))), cell('id', visible(clip(entry.id, 80))), what);
  row.role = 'row';
  row.entry = entry;
  return row;
}

function wholeButton(entry, text) {
  const all = `show all, ${bytes(byteLength(entry.data))}`;
  const button = el('button', { class: 'small', type: 'button', text: all, ariaExpanded: 'false' });
  button.addEventListener('click', () => {
    const open = button.ariaExpanded === 'true';
    button.ariaExpanded = String(!open);
    button.textContent = open ? all : 'show less';
    button.previousSibling.textContent = open ? '… ' : ' ';
    text.classList.toggle('all', !open);
    // A box that scrolls needs a tab stop and a name, for users without a mouse.
    if (open) text.removeAttribute('tabindex');
    else text.tabIndex = 0;
    Object.assign(text, open ? { role: null, ariaLabel: null } : { role: 'region', ariaLabel: 'The whole data' });
    text.replaceChildren(...(open ? [visible(clip(entry.data))] : pieces(visible(entry.data))));
  });
  return button;
}

function pause() {
  table.frozen = table.frozen ? null : [...table.entries];
  table.frozenAt = table.total;
  $('events-pause').ariaPressed = String(Boolean(table.frozen));
  redrawEvents();
}

function clear() {
  Object.assign(table, { entries: [], dataLength: 0, total: 0, fresh: [], frozen: table.frozen && [], frozenAt: 0 });
  redrawEvents();
}

let filterDelay;
function filter() {
  clearTimeout(filterDelay);
  filterDelay = setTimeout(() => {
    const words = $('events-filter').value.toLowerCase().split(/\s+/).filter((word) => word && word !== '-');
    table.filter = words.map((word) => (word[0] === '-' ? { word: word.slice(1), not: true } : { word, not: false }));
    redrawEvents();
  }, 120);
}

// ---- events: latency ------------------------------------------------------------------------------

// The latency of an event that this page publishes is the time from the start of the POST to the arrival of the
// event. Only the answer to the POST tells the id of the event, and the event may arrive before the answer. So both
// times are kept by id until the other one is known.
const own = {
  begun: new Map(),     // the start of a POST whose answer has arrived and whose event has not
  arrived: new Map(),   // the arrival of an event that may belong to a POST without an answer
  underWay: 0,          // calls of `publish` that are running
};

function measureLatency({ id, hasOwnId, data }, at) {
  const begun = hasOwnId ? own.begun.get(id) : undefined;
  if (begun !== undefined) {
    own.begun.delete(id);
    second.latencies.push(at - begun);
  } else if (own.underWay && hasOwnId) {
    own.arrived.set(id, at);
  } else if (data.length < 4096) {
    const stamp = /"t":\s*(\d{13}(?:\.\d+)?)\s*[,}]/.exec(data);
    // A difference of more than a minute means that the event was replayed, or that the clocks differ.
    if (stamp && Math.abs(at - stamp[1]) < 60_000) second.latencies.push(Math.max(0, at - stamp[1]));
  }
}

/** Measures the latency of an own event when the answer to its POST arrives. */
function measureOwnLatency(id, begun) {
  if (own.arrived.has(id)) second.latencies.push(own.arrived.get(id) - begun);
  else own.begun.set(id, begun);
  // An event of a topic that this page does not subscribe to never arrives. LIMIT: the oldest entry is removed.
  if (own.begun.size > 1000) own.begun.delete(own.begun.keys().next().value);
}

// ---- events: publishing ---------------------------------------------------------------------------

async function publish(event) {
  event.preventDefault();
  const [topic, name, id] = ['topic', 'event', 'id'].map((field) => $(`publish-${field}`).value);
  const [times, data, answer] = [$('publish-times').valueAsNumber, $('publish-data').value, $('publish-answer')];
  if (name) listenTo(name);
  $('publish-send').disabled = true;
  own.underWay += 1;
  try {
    for (let n = 1; n <= times; n += 1) {
      const begun = now();
      const got = await ask('POST', address('/events', { topic, event: name, id }), data.replaceAll('{n}', n));
      if (!got.ok) return showFailure(answer, got);
      if (streams.isDisconnected) streams.published += 1;
      else measureOwnLatency(got.body.id, begun);
      const whole = `${got.status} · id ${got.body.id} · ${count(got.body.recipients)} recipient${got.body.recipients === 1 ? '' : 's'} · ${millis(now() - begun)}`;
      say(answer, times > 1 ? `${n} of ${times}: ${whole}` : whole, 'ok');
    }
    if (streams.isDisconnected) say($('outcome'), `Disconnected. Events published and missed so far: ${count(streams.published)}. Press Resume to receive ${streams.published === 1 ? 'it' : 'them'}.`, 'wait');
  } finally {
    own.underWay -= 1;
    if (!own.underWay) own.arrived.clear();
    $('publish-send').disabled = false;
  }
}

// ---- events: the raw bytes ------------------------------------------------------------------------

const raw = { abort: null, pending: '', kept: 0, bytes: 0 };
const rawWanted = () => shown === 'events' && $('events-raw').ariaPressed === 'true';

function showRaw() {
  const on = $('events-raw').ariaPressed !== 'true';
  $('events-raw').ariaPressed = String(on);
  $('events-table').hidden = on;
  $('raw').hidden = !on;
  if (on && !streams.isDisconnected) openRaw();
  else closeRaw();
}

function closeRaw(why) {
  raw.abort?.abort();
  raw.abort = null;
  if (why) writeRaw(`\n(${why})\n`);
}

async function openRaw() {
  closeRaw();
  Object.assign(raw, { abort: new AbortController(), pending: '', kept: 0, bytes: 0 });
  $('raw-bytes').replaceChildren();
  const { signal } = raw.abort;
  const url = streamUrl('raw', streams.client?.lastEventId);
  writeRaw(`GET ${url} HTTP/1.1\n${tokenFor('subscribe') && 'Authorization: Bearer …\n'}\n`);
  try {
    const response = await fetch(url, { signal, cache: 'no-store', headers: { Accept: 'text/event-stream', ...bearer('subscribe') } });
    writeRaw(`${headOf(response).replaceAll('\r', '')}`);
    const decoder = new TextDecoder();
    for (let reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      raw.bytes += value.byteLength;
      writeRaw(decoder.decode(value, { stream: true }));
    }
    if (!signal.aborted) writeRaw('\n(the server ended the stream)\n');
  } catch {
    if (!signal.aborted) writeRaw('\n(the connection broke)\n');
  }
}

function writeRaw(text) {
  raw.pending += text;
  if (raw.pending.length > 4 * RAW) raw.pending = raw.pending.slice(-2 * RAW);
  drawRaw();
}

const drawRaw = eachFrame(() => {
  const page = $('raw-bytes');
  const follow = page.scrollHeight - page.scrollTop - page.clientHeight < 60;
  const text = raw.pending.length > RAW ? `(…)\n${raw.pending.slice(-RAW)}` : raw.pending;
  raw.pending = '';
  page.append(...pieces(visible(text)));
  raw.kept += text.length;
  while (raw.kept > RAW && page.childNodes.length > 1) {
    raw.kept -= page.firstChild.textContent.length;
    page.firstChild.remove();
  }
  if (follow) page.scrollTop = page.scrollHeight;
  $('raw-count').textContent = `a separate stream, read with fetch: ${count(raw.bytes)} bytes`;
});

/**
 * Returns the head of an answer. It has the bytes of the head on the wire, apart from the order of the fields and the
 * case of their names.
 */
function headOf(response) {
  const fields = [...response.headers].map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return `HTTP/1.1 ${response.status} ${response.statusText}\r\n${fields}\r\n`;
}

// ---- clients: the numbers of /stats, read each second ------------------------------------------------

/** The last answer of /stats; null if there is none. */
let server = null;
/** When the request to /stats that is under way began; 0 if none is. */
let askedAt = 0;
/**
 * Which of the two answers the server has refused. They are not requested again before a token changes, the stream
 * opens, or the user opens the panel.
 */
const denied = { stats: false, clients: false };

function forgetDenials() {
  if (denied.clients) say($('clients-answer'), '');
  Object.assign(denied, { stats: false, clients: false });
}

async function askStats() {
  if (askedAt) {
    const stuck = now() - askedAt > 3000 && !document.hidden;
    if (stuck) $('server-line').textContent = 'waiting for a connection: other tabs use the six connections that the browser opens to one server; let the tabs share one';
    return;
  }
  // No request while the server cannot be reached: the browser would log an error for each.
  if (document.hidden || streams.isServerGone) {
    if (streams.isServerGone) $('server-line').textContent = 'the server does not answer';
    return;
  }
  const what = shown === 'clients' && !denied.clients ? 'clients' : 'stats';
  if (denied[what]) return showDenial(what);
  askedAt = now();
  const asked = tokens;
  const got = what === 'clients' ? await ask('GET', '/stats?clients=1', undefined, { verb: 'publish' }) : await ask('GET', '/stats');
  askedAt = 0;
  if (asked !== tokens) return;
  if (isRefused(got)) return showDenial(what, got);
  if (!got.ok) {
    server = null;
    $('server-line').textContent = reason(got);
    return;
  }
  server = got.body;
  $('server-line').textContent = `${location.host} · up ${age(server.uptime_seconds)} · ${count(server.active_connections)} of ${count(server.max_connections)} clients · ${count(server.total_events)} events`;
  if (shown !== 'clients') return;
  showTiles();
  if (server.clients) showClients();
}

/** Shows that the server refused an answer, in the element that would show the answer. */
function showDenial(what, got) {
  denied[what] = true;
  if (what === 'stats') {
    server = null;
    $('server-line').textContent = `${location.host} · the statistics require a token to subscribe to * (all topics)`;
    tiles($('stats-tiles'), []);
  } else {
    showFailure($('clients-answer'), { ...got, action: 'see the list of clients' });
    $('clients-count').textContent = '';
    update($('clients-rows'), []);
  }
}

/** Why streams ended: the keys of `farewells` in /stats, in words. */
const CLOSE_REASONS = {
  hung_up: 'closed by the client',
  fell_behind: 'fell behind',
  timed_out: 'timed out',
  replaced: 'replaced',
  kicked: 'kicked',
  expired: 'token expired',
  ended: 'topics ended',
  server_closing: 'server closing',
};

function showTiles() {
  const { history, farewells } = server;
  const ends = Object.entries(farewells).filter(([, n]) => n).map(([name, n]) => `${count(n)} ${CLOSE_REASONS[name] ?? name}`);
  tiles($('stats-tiles'), [
    ['Clients', count(server.active_connections), `${count(server.total_connections)} in total, ${count(server.refused_connections)} refused`],
    ['Events', count(server.total_events), `${count(server.total_deliveries)} deliveries`],
    ['Bytes sent', bytes(server.total_bytes), `backlog ${bytes(server.lag_bytes)}`],
    ['Events in the history', count(history.events), bytes(history.bytes)],
    ['Up', age(server.uptime_seconds), `since ${new Date(Date.now() - server.uptime_seconds * 1000).toLocaleString('sv').slice(0, 16)}`],
    ['Streams ended', count(Object.values(farewells).reduce((sum, n) => sum + n, 0)), ends.join(', ') || 'none'],
  ]);
}

function showClients() {
  const { clients } = server;
  const listed = [...clients].sort((a, b) => b.lag_bytes - a.lag_bytes || a.age_seconds - b.age_seconds).slice(0, CLIENT_ROWS);
  $('clients-count').textContent = listed.length < clients.length ? `${listed.length} of ${count(clients.length)}, those with the largest backlogs` : count(clients.length);
  update($('clients-rows'), listed, 'client_id', clientRow, (row, client) => {
    const waiting = client.replaying ? `replay, ${count(client.replaying)} events left` : bytes(client.lag_bytes);
    const values = [age(client.age_seconds), count(client.sent_events), bytes(client.sent_bytes), count(client.lag_events), waiting];
    values.forEach((value, i) => { row.cells[i + 3].textContent = value; });
    row.cells[6].classList.toggle('hot', client.lag_events > 0);
    row.cells[7].classList.toggle('hot', client.lag_bytes > 0);
  });
}

function clientRow({ client_id: id, topics, peer }) {
  const name = el('td', { class: 'wrap', text: visible(id) });
  const base = subscribeForm().client;
  if (base && id.startsWith(`${base}.`)) name.append(el('span', { class: 'you', text: 'this page' }));
  const kick = el('button', { class: 'small', type: 'button', text: 'Kick', ariaLabel: `Kick ${id}` });
  kick.addEventListener('click', async () => {
    const got = await ask('DELETE', `/clients/${encodeURIComponent(id)}`);
    if (got.ok) say($('clients-answer'), `The stream of ${id} was closed.`, 'ok');
    else showFailure($('clients-answer'), got);
    askStats();
  });
  const topicList = topics.length ? topics.map((topic) => visible(clip(topic, 60))).join('  ') : 'no topic';
  return el('tr', {}, name, el('td', { class: 'wrap', text: topicList }), el('td', { text: peer ?? '–' }),
    ...Array.from({ length: 5 }, () => el('td', { class: 'num' })), el('td', {}, kick));
}

/**
 * Makes the table body show `items` in their order. Rows of items that were there before are kept, and so is their
 * focus. `make` returns a new row, `change` updates a row.
 */
function update(body, items, key, make, change) {
  const rows = new Map([...body.rows].map((row) => [row.key, row]));
  items.forEach((item, i) => {
    const row = rows.get(item[key]) ?? Object.assign(make(item), { key: item[key] });
    rows.delete(item[key]);
    // Moving a row removes its focus, so a row that is in the right position is not moved.
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
    change(row, item);
  });
  for (const row of rows.values()) row.remove();
}

function tiles(list, items) {
  list.replaceChildren(...items.map(([name, value, small]) =>
    el('div', {}, el('dt', { text: name }), el('dd', { text: value }, el('small', { text: small })))));
}

// ---- compare: the same events by polling, by long polling and by a stream ---------------------------

const COMPARED = 'console/compare';
const WAYS = [
  { key: 'sse', name: 'SSE stream', colour: 'a', mark: 'circle' },
  { key: 'long', name: 'Long polling', colour: 'c', mark: 'triangle' },
  { key: 'poll', name: 'Polling', colour: 'b', mark: 'square' },
];
const comparison = { run: 0, abort: null, timer: 0, published: 0, ways: {} };

function startComparison(event) {
  event?.preventDefault();
  stopComparison();
  const [rate, interval] = [$('compare-rate').valueAsNumber, Number($('compare-interval').value)];
  comparison.abort = new AbortController();
  comparison.run = Math.floor(now());
  comparison.published = 0;
  for (const { key } of WAYS) comparison.ways[key] = { events: 0, latencies: [], points: [], requests: 0, down: 0, up: 0 };
  setComparing(true);
  compare(rate, interval, comparison.abort.signal).catch((error) => {
    if (error.name === 'AbortError') return;
    stopComparison();
    if (error.got) showFailure($('compare-answer'), error.got);
    else say($('compare-answer'), error.message, 'bad');
  });
}

function stopComparison() {
  comparison.abort?.abort();
  comparison.abort = null;
  clearInterval(comparison.timer);
  setComparing(false);
  // Draws the events that arrived after the last tick of the timer.
  drawComparison();
}

function setComparing(on) {
  $('compare-start').disabled = on;
  $('compare-stop').disabled = !on;
  if (!on && comparison.published) say($('compare-answer'), `Stopped after ${count(comparison.published)} events.`);
}

async function compare(rate, interval, signal) {
  const start = await pollOnce(null, 0, undefined, signal);
  const failed = (error) => { if (!signal.aborted) throw error; };
  const ways = [compareStream(signal), comparePolls('long', start, 0, signal), comparePolls('poll', start, interval, signal)];
  comparison.timer = setInterval(drawComparison, reducedMotion.matches ? 1000 : 200);
  await Promise.all([...ways, publishProbes(rate, signal)].map((way) => way.catch(failed)));
}

async function publishProbes(rate, signal) {
  const begun = now();
  const url = address('/events', { topic: COMPARED, event: 'probe' });
  for (let n = 1; !signal.aborted; n += 1) {
    await sleep(begun + 500 + (n * 1000) / rate - now(), signal);
    const body = JSON.stringify({ run: comparison.run, n, t: now() });
    // Not awaited, so that the time between events does not depend on the answers.
    ask('POST', url, body).then((got) => {
      if (signal.aborted) return;
      if (isRefused(got)) stopComparison();
      if (!got.ok) return showFailure($('compare-answer'), got);
      comparison.published += 1;
      say($('compare-answer'), `${count(comparison.published)} events published to ${COMPARED}.`);
    });
  }
}

const sleep = (ms, signal) => new Promise((wake) => {
  const timer = setTimeout(wake, Math.max(0, ms));
  signal.addEventListener('abort', () => { clearTimeout(timer); wake(); }, { once: true });
});

/** Sends a GET request and returns the answer. Throws if the status is not 200; the error's `got` is the answer. */
async function get(url, signal) {
  const response = await fetch(url, { signal, cache: 'no-store', headers: bearer('subscribe') });
  if (!response.ok) throw Object.assign(new Error(`the server answered ${response.status}`), { got: await readAnswer(response, 'subscribe') });
  return response;
}

/** Polls once for the events after the cursor, and adds the bytes to the counters of `way`. */
async function pollOnce(way, wait, cursor, signal) {
  const url = address('/poll', { topic: COMPARED, last_event_id: cursor, wait });
  const response = await get(url, signal);
  const text = await response.text();
  if (way) {
    way.requests += 1;
    way.down += headOf(response).length + byteLength(text);
    way.up += requestHeadLength(url);
  }
  return { events: JSON.parse(text), cursor: response.headers.get('Last-Event-ID') };
}

/** Polls until the comparison stops: at each `interval`, or, if it is 0, by long polls of at most 30 seconds. */
async function comparePolls(key, { cursor }, interval, signal) {
  for (let next = now(), at = cursor; !signal.aborted;) {
    if (interval) {
      next += interval;
      await sleep(next - now(), signal);
      if (signal.aborted) return;
    }
    const got = await pollOnce(comparison.ways[key], interval ? 0 : 30, at, signal);
    at = got.cursor ?? got.events.at(-1)?.id ?? at;
    for (const event of got.events) receiveProbe(key, event.data);
  }
}

async function compareStream(signal) {
  const way = comparison.ways.sse;
  const url = address('/events', { topic: COMPARED });
  const response = await get(url, signal);
  way.requests += 1;
  way.down += headOf(response).length;
  way.up += requestHeadLength(url);
  const decoder = new TextDecoder();
  let text = '';
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) throw new Error('the server ended the stream');
    text += decoder.decode(value, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const message = text.slice(0, end + 2);
      text = text.slice(end + 2);
      const length = byteLength(message);
      // Each message is sent as one chunk, which adds its length in hexadecimal and two line ends.
      way.down += length + length.toString(16).length + 4;
      const data = /^data: (.*)$/m.exec(message);
      if (data) receiveProbe('sse', data[1]);
    }
  }
}

/** Adds an event of this comparison to the results of one method. */
function receiveProbe(key, data) {
  const at = now();
  let probe;
  try { probe = JSON.parse(data); } catch { return; }
  if (probe?.run !== comparison.run) return;
  const way = comparison.ways[key];
  way.events += 1;
  way.latencies.push(at - probe.t);
  if (way.latencies.length > 1000) way.latencies.shift();
  way.points.push({ at, ms: at - probe.t });
}

/** Returns the estimated length of the browser's head of a GET request. A page cannot see the real one. */
function requestHeadLength(url) {
  const brands = navigator.userAgentData?.brands.map(({ brand, version }) => `"${brand}";v="${version}"`).join(', ');
  const client = brands ? `sec-ch-ua-platform: "${navigator.userAgentData.platform}"\r\nsec-ch-ua: ${brands}\r\nsec-ch-ua-mobile: ?0\r\n` : '';
  const authorization = Object.entries(bearer('subscribe')).map((field) => `${field.join(': ')}\r\n`).join('');
  return `GET ${url} HTTP/1.1\r\n${authorization}Host: ${location.host}\r\nConnection: keep-alive\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: ${navigator.userAgent}\r\n${client}Accept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: ${navigator.languages.join(',')};q=0.9\r\n\r\n`.length;
}

function mark(pen, shape, x, y, r) {
  pen.beginPath();
  if (shape === 'circle') pen.arc(x, y, r, 0, 7);
  if (shape === 'square') pen.rect(x - r * 0.85, y - r * 0.85, r * 1.7, r * 1.7);
  if (shape === 'triangle') {
    pen.moveTo(x, y - r * 1.15);
    pen.lineTo(x + r * 1.1, y + r * 0.8);
    pen.lineTo(x - r * 1.1, y + r * 0.8);
  }
  pen.fill();
}

const DECADES = [1, 10, 100, 1000, 10_000];

function drawComparison() {
  if (shown !== 'compare') return;
  showComparison();
  const on = sheet($('compare-chart'));
  if (!on) return;
  const { pen, width, height } = on;
  const [left, top, floor] = [44, 8, height - 18];
  const y = (ms) => floor - (Math.log10(Math.min(Math.max(ms, 0.5), 20_000) / 0.5) / Math.log10(40_000)) * (floor - top);
  const end = now();
  const x = (at) => width - 6 - ((end - at) / (SECONDS * 1000)) * (width - 6 - left);
  pen.strokeStyle = colour('grid');
  pen.fillStyle = colour('quiet');
  pen.textBaseline = 'middle';
  pen.textAlign = 'right';
  pen.beginPath();
  for (const ms of DECADES) {
    pen.moveTo(left, Math.round(y(ms)) + 0.5);
    pen.lineTo(width, Math.round(y(ms)) + 0.5);
    pen.fillText(ms < 1000 ? `${ms} ms` : `${ms / 1000} s`, left - 6, y(ms));
  }
  pen.stroke();
  pen.textAlign = 'center';
  for (const ago of [45, 30, 15]) pen.fillText(`${ago} s ago`, x(end - ago * 1000), height - 6);
  for (const { key, colour: name, mark: shape } of [...WAYS].reverse()) {
    const way = comparison.ways[key];
    if (!way) continue;
    while (way.points.length && end - way.points[0].at > SECONDS * 1000) way.points.shift();
    pen.fillStyle = colour(name);
    for (const point of way.points) mark(pen, shape, x(point.at), y(point.ms), 3.25);
  }
}

function comparisonRow({ key: way, name, mark: shape, colour: ink }) {
  const key = el('canvas', { ariaHidden: 'true', data: { mark: shape, ink } });
  const head = el('th', { scope: 'row' }, el('span', { class: 'way' }, key, name));
  return el('tr', { id: `compare-${way}` }, head, ...Array.from({ length: 7 }, () => el('td', { class: 'num', text: '–' })));
}

function drawMarks() {
  for (const canvas of document.querySelectorAll('canvas[data-mark]')) {
    const on = sheet(canvas);
    if (!on) continue;
    on.pen.fillStyle = colour(canvas.dataset.ink);
    mark(on.pen, canvas.dataset.mark, 8, 8, 5);
  }
}

function showComparison() {
  const rows = WAYS.map(({ key, colour: ink }) => {
    const { events = 0, latencies = [], requests = 0, down = 0, up = 0 } = comparison.ways[key] ?? {};
    const each = (n) => (events ? n / events : NaN);
    return { ink, median: median(latencies), values: [events, median(latencies), Math.max(...latencies), requests, each(requests), each(down), each(up)] };
  });
  const most = (i) => Math.max(...rows.map(({ values }) => values[i]).filter(Number.isFinite), 0);
  rows.forEach(({ ink, values }, r) => {
    const row = $('compare-rows').rows[r];
    const texts = [count(values[0]), millis(values[1]), millis(values[2]), count(values[3]), values[4].toFixed(2), count(Math.round(values[5])), count(Math.round(values[6]))];
    texts.forEach((text, i) => {
      const td = row.cells[i + 1];
      if (!Number.isFinite(values[i])) return void (td.textContent = '–');
      if (!td.firstElementChild) td.replaceChildren('', ...(i === 0 || i === 3 ? [] : [el('i', { class: `bar ${ink}`, ariaHidden: 'true' })]));
      if (td.firstChild.nodeType === Node.TEXT_NODE) td.firstChild.data = text;
      else td.prepend(text);
      if (td.firstElementChild) td.firstElementChild.style.width = `${Math.max(1, (100 * values[i]) / most(i))}%`;
    });
  });
  const medians = WAYS.map(({ name }, r) => `${name} ${Number.isFinite(rows[r].median) ? millis(rows[r].median) : 'none yet'}`);
  $('compare-chart').ariaLabel = `Median latency: ${medians.join(', ')}`;
}

// ---- the six example uses of `tiny-sse demo` ---------------------------------------------------------

/**
 * Whether the server has turned out to have no uses: `tiny-sse serve` has replaced the demo while the page was open.
 */
let demoMissing = false;
/** The SSEClient of the panel that is shown; null if the panel has none. */
let useClient = null;

/**
 * Opens the stream of a panel and shows its state above the panel. The stream is closed when another panel is shown.
 */
function useStream(panel, url, handlers) {
  useClient?.disconnect();
  const state = $(`panel-${panel}`).querySelector('.use-state');
  const client = useClient = new SSEClient(url, { token: tokenFor('subscribe') });
  const show = () => {
    if (useClient !== client) return;
    const lamp = el('i', { class: 'lamp', ariaHidden: 'true', data: { state: client.state } });
    state.replaceChildren(lamp, el('span', { text: client.state }), el('code', { text: `GET ${visible(url)}` }));
  };
  client.on('state', show).on('error', (problem) => {
    if (problem.status === 404) missing(panel);
    else if (useClient !== client) return;
    else if (isRefused(problem)) showPanelFailure(panel, answerOfProblem(problem));
    else state.append(el('span', { text: visible(problem.message) }));
  });
  for (const [type, handler] of Object.entries(handlers)) {
    client.on(type, (data) => { if (useClient === client && data !== null && typeof data === 'object') handler(data); });
  }
  client.connect();
  show();
}

/** Shows above a panel why a request of the panel was refused. */
function showPanelFailure(panel, got) {
  const message = el('span');
  showFailure(message, got);
  $(`panel-${panel}`).querySelector('.use-state').append(message);
}

/**
 * Replaces the content of a panel by the message that this server has no example uses; or shows the content again.
 */
function missing(panel, is = true) {
  demoMissing = is;
  const use = $(`panel-${panel}`).querySelector('.use');
  const state = use.querySelector('.use-state');
  state.classList.toggle('missing', is);
  for (const other of use.children) if (other !== state) other.hidden = is;
  if (!is) return state.replaceChildren();
  const again = el('button', { type: 'button', text: 'Try again' });
  again.addEventListener('click', () => { missing(panel, false); uses[panel].enter(); });
  state.replaceChildren(el('span', {}, 'This server does not have the example uses. Start it with ', el('code', { text: 'tiny-sse demo' }), '.'), again);
}

/** Inserts an item at the beginning of a list. LIMIT: removes the last item if there are more than `most`. */
function prependItem(list, item, most = 50) {
  list.prepend(item);
  while (list.children.length > most) list.lastElementChild.remove();
}

const shortTime = (at) => (Number.isNaN(Date.parse(at)) ? '' : new Date(at).toTimeString().slice(0, 8));

/** Returns the small line above a message: its author, time and so on. */
function byline(...parts) {
  return el('p', { class: 'quiet by' }, ...parts.filter(Boolean).map((part) => (part instanceof Node ? part : el('span', { text: visible(part) }))));
}

/** Posts a value as JSON. Shows the reason in `answer` if the request fails. */
async function sendJson(url, value, answer) {
  const got = await ask('POST', url, JSON.stringify(value), { headers: { 'Content-Type': 'application/json' } });
  if (got.ok) say(answer, '');
  else showFailure(answer, got);
  return got;
}

const uses = {
  notifications: {
    enter() {
      useStream('notifications', '/api/notifications', {
        alert({ level, text, at, simulated }) {
          const item = el('li', { data: { level } }, byline(el('b', { text: visible(level) }), shortTime(at), simulated && 'simulated'), el('p', { text: visible(clip(String(text), 1000)), dir: 'auto' }));
          prependItem($('notifications-list'), item);
        },
        badge({ count: n }) {
          if (!Number.isFinite(n)) return;
          // Two badges can arrive in the wrong order. The larger count is the newer one.
          const before = Number($('notifications-badge').dataset.count ?? 0);
          $('notifications-badge').dataset.count = Math.max(n, before);
          $('notifications-badge').textContent = count(Math.max(n, before));
        },
      });
    },
    async send(event) {
      event.preventDefault();
      const got = await sendJson('/api/notifications', { text: $('notifications-text').value, level: $('notifications-level').value }, $('notifications-answer'));
      if (got.ok) $('notifications-form').reset();
    },
  },

  feed: {
    enter() {
      useStream('feed', '/api/feed/live', {
        post({ number, author, text, at, simulated }) {
          const item = el('li', {}, byline(el('b', { text: visible(author) }), `#${number}`, shortTime(at), simulated && 'simulated'), el('p', { text: visible(clip(String(text), 1000)), dir: 'auto' }));
          prependItem($('feed-list'), item);
        },
      });
    },
  },

  monitoring: {
    series: { load: new Minute(), memory: new Minute(), received: new Minute(), sent: new Minute() },
    enter() {
      this.draw();
      useStream('monitoring', '/api/metrics', {
        metrics: ({ error, cpus, load, memory, network }) => {
          if (error) return say($('monitoring-answer'), error, 'bad');
          const { series } = this;
          const used = memory.total - memory.available;
          series.load.push(load[0]);
          series.memory.push(used / memory.total);
          series.received.push(network.received_per_second);
          series.sent.push(network.sent_per_second);
          caption('monitoring-load', `${load.map((n) => n.toFixed(2)).join(' · ')}, ${cpus} cpus`);
          caption('monitoring-memory', `${bytes(used)} of ${bytes(memory.total)}`);
          caption('monitoring-network', `↓ ${bytes(network.received_per_second)}/s · ↑ ${bytes(network.sent_per_second)}/s`);
          this.draw();
        },
      });
    },
    draw() {
      const { load, memory, received, sent } = this.series;
      plot($('monitoring-load'), [{ values: load.values, colour: 'a', fill: true }], { least: 1, points: 24 });
      plot($('monitoring-memory'), [{ values: memory.values, colour: 'c', fill: true }], { least: 1, points: 24, label: (part) => `${Math.round(part * 100)} %` });
      plot($('monitoring-network'), [{ values: received.values, colour: 'a' }, { values: sent.values, colour: 'b' }], { least: 1000, points: 24, label: (n) => `${bytes(n)}/s` });
    },
  },

  process: {
    async enter() {
      // This panel has no stream before a file is uploaded. A request to another use shows whether the server has
      // them.
      const got = await ask('HEAD', '/api/metrics');
      if (got.status === 404) missing('process');
      if (isRefused(got)) showPanelFailure('process', got);
    },
    async send(file) {
      if (!file) return say($('process-label'), 'Choose a file first.', 'bad');
      $('process-progress').value = 0;
      $('process-result').replaceChildren();
      say($('process-label'), `Sending ${file.name}, ${bytes(file.size)} …`);
      const got = await ask('POST', '/api/process', file, { headers: { 'Content-Type': 'application/octet-stream' } });
      if (isRefused(got)) showPanelFailure('process', got);
      if (!got.ok) return say($('process-label'), reason(got), 'bad');
      // `earliest`, so that no progress between the answer and this request is missed.
      useStream('process', `/api/process/${encodeURIComponent(got.body.job)}?last_event_id=earliest`, {
        progress({ bytes: done, total, percent }) {
          $('process-progress').value = percent;
          say($('process-label'), `Hashing ${file.name}: ${bytes(done)} of ${bytes(total)}, ${percent} %`);
        },
        complete({ sha256, bytes: size, ms, job }) {
          $('process-progress').value = 100;
          say($('process-label'), `Finished ${file.name}.`, 'ok');
          const facts = { 'SHA-256': sha256, size: `${count(size)} bytes`, took: `${ms} ms`, job };
          $('process-result').replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [el('dt', { text: name }), el('dd', { text: visible(value) })]));
          useClient.disconnect();
        },
      });
    },
  },

  prices: {
    known: new Map(),
    enter() {
      useStream('prices', '/api/stocks/stream', {
        price_update: (update_) => {
          const { symbol, price, change, open } = update_;
          if (!this.known.has(symbol) && this.known.size >= 50) return;
          const known = this.known.get(symbol) ?? { symbol, minute: new Minute() };
          known.minute.push(price);
          this.known.set(symbol, Object.assign(known, { price, change, open }));
          this.draw();
        },
      });
      this.draw();
    },
    draw: eachFrame(() => {
      const items = [...uses.prices.known.values()];
      update($('prices-rows'), items, 'symbol', ({ symbol }) => el('tr', {}, el('th', { scope: 'row', text: visible(symbol) }),
        ...[1, 2, 3].map(() => el('td', { class: 'num' })), el('td', {}, el('canvas', { class: 'spark', ariaHidden: 'true' }))),
      (row, { price, change, open, minute }) => {
        const sign = change > 0 ? 'up' : change < 0 ? 'down' : '';
        row.cells[1].textContent = price.toFixed(2);
        row.cells[2].textContent = `${{ up: '▲ +', down: '▼ −' }[sign] ?? ''}${Math.abs(change).toFixed(2)}`;
        row.cells[3].textContent = `${((price / open - 1) * 100).toFixed(1)} %`.replace('-', '−');
        row.cells[2].className = `num ${sign}`;
        const [low, high] = [Math.min(...minute.values), Math.max(...minute.values)];
        plot(row.querySelector('canvas'), [{ values: minute.values.map((value) => (value - low) / (high - low || 1)), colour: 'a' }], { least: 1, points: 30, bare: true });
      });
    }),
  },

  chat: {
    room: 'lobby',
    enter() {
      this.room = $('chat-room').value.trim() || 'lobby';
      $('chat-list').replaceChildren(el('li', { class: 'note', text: `Room “${visible(this.room)}”, with all messages that the server still has` }));
      useStream('chat', `/api/chat/room/${encodeURIComponent(this.room)}?last_event_id=earliest`, {
        message({ user, text, at }) {
          if (typeof user !== 'string' || typeof text !== 'string') return;
          const [list, log] = [$('chat-list'), $('chat-log')];
          const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
          const mine = user === $('chat-name').value;
          list.append(el('li', { class: mine ? 'mine' : '' }, byline(mine ? 'you' : clip(user, 40), shortTime(at)), el('p', { class: 'text', text: visible(clip(text, 2000)), dir: 'auto' })));
          if (list.children.length > 200) list.firstElementChild.remove();
          if (follow) log.scrollTop = log.scrollHeight;
        },
      });
    },
    async send(event) {
      event.preventDefault();
      const got = await sendJson(`/api/chat/room/${encodeURIComponent(this.room)}/messages`, { user: $('chat-name').value, text: $('chat-text').value }, $('chat-answer'));
      if (got.ok) $('chat').reset();
    },
  },
};

// ---- the panels: one is shown, and only that one has open streams --------------------------------------

/** Only `tiny-sse demo` has the six uses. It answers `/demo.js` with a script that sets the class `demo`. */
const isDemo = document.documentElement.classList.contains('demo');
const TABS = ['events', 'clients', 'compare', ...(isDemo ? Object.keys(uses) : [])];
let shown = 'events';

/** Shows a panel in place of the current one. */
function show(panel) {
  if (panel === shown) return;
  leave(shown);
  shown = panel;
  for (const name of TABS) {
    const on = name === panel;
    $(`tab-${name}`).ariaSelected = String(on);
    $(`tab-${name}`).tabIndex = on ? 0 : -1;
    $(`panel-${name}`).hidden = !on;
  }
  $(`tab-${panel}`).scrollIntoView({ block: 'nearest', inline: 'nearest' });
  history.replaceState(null, '', panel === 'events' ? location.pathname : `#${panel}`);
  enter(panel);
}

function leave(panel) {
  if (panel === 'events') closeRaw();
  if (panel === 'compare') stopComparison();
  useClient?.disconnect();
  useClient = null;
}

function enter(panel) {
  if (panel === 'events') {
    drawCharts();
    if (rawWanted() && !streams.isDisconnected) openRaw();
  } else if (panel === 'clients') {
    forgetDenials();
    askStats();
  } else if (panel === 'compare') {
    drawMarks();
    drawComparison();
  } else {
    missing(panel, demoMissing);
    if (!demoMissing) uses[panel].enter();
  }
}

/**
 * Moves the focus between tabs, as WAI-ARIA recommends: arrow keys move the focus, Enter or a click shows the panel.
 */
function onTabKey(event) {
  const at = TABS.findIndex((name) => `tab-${name}` === event.target.id);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + TABS.length, Home: 0, End: TABS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  $(`tab-${TABS[to % TABS.length]}`).focus();
}

// ---- the start ------------------------------------------------------------------------------------------

const on = (id, type, handler) => $(id).addEventListener(type, handler);
const prevented = (run) => (event) => { event.preventDefault(); run(); };

for (const name of TABS) on(`tab-${name}`, 'click', () => show(name));
on('tabs', 'keydown', onTabKey);
document.addEventListener('visibilitychange', reclaimNative);
addEventListener('focus', reclaimNative);
// A page in the back-forward cache keeps its open streams, each with its slot at the server. So they are closed
// first.
addEventListener('pagehide', () => { yieldNative(); closeRaw(); stopComparison(); });
addEventListener('pageshow', ({ persisted }) => {
  if (!persisted) return;
  reclaimNative();
  if (rawWanted() && !streams.isDisconnected) openRaw();
});
otherTabs.onmessage = yieldNative;
on('access-form', 'submit', prevented(useTokens));
on('access-forget', 'click', forgetTokens);
on('cut', 'click', disconnect);
on('resume', 'click', resume);
on('subscribe', 'submit', prevented(subscribe));
on('publish', 'submit', publish);
on('events-filter', 'input', filter);
on('events-pause', 'click', pause);
on('events-clear', 'click', clear);
on('events-raw', 'click', showRaw);
on('compare', 'submit', startComparison);
on('compare-stop', 'click', stopComparison);
on('notifications-form', 'submit', uses.notifications.send);
on('process', 'submit', prevented(() => uses.process.send($('process-file').files[0])));
on('process-sample', 'click', () => uses.process.send(new File([new Uint8Array(512 << 10).map((_, i) => i * 31 + (i >> 8))], 'sample.bin')));
on('chat-join', 'submit', prevented(() => uses.chat.enter()));
on('chat', 'submit', (event) => uses.chat.send(event));

const name = Math.random().toString(36).slice(2, 6);
$('subscribe-client').value = `console-${name}`;
$('chat-name').value = `guest-${name}`;
// On a small screen the form is folded, so that the events are visible.
$('subscribe-fold').open = matchMedia('(min-width: 40rem)').matches;
$('subscribe-shared').checked = remember('shared') === 'yes';
$('compare-rows').append(...WAYS.map(comparisonRow));

setTokens(storedTokens());
subscribe();
askStats();
setInterval(() => { endSecond(); askStats(); }, 1000);
addEventListener('resize', eachFrame(() => { drawCharts(); drawComparison(); if (shown === 'monitoring') uses.monitoring.draw(); }));
if (TABS.includes(location.hash.slice(1))) show(location.hash.slice(1));
