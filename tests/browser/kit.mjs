// The tools of the browser tests: the real program, a page of another origin, and a headless Chromium.
//
//     npm ci --prefix tests/browser
//     TINY_SSE=target/debug/tiny-sse node --test tests/browser/*.test.mjs
//
// `cargo test -- --include-ignored browser` runs the second command. CHROMIUM names a browser other than
// /usr/bin/chromium.
//
// Tests wait for conditions, not for time. A wait fails after DEADLINE, which is much longer than any successful
// wait. The system chooses all ports.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer, get } from 'node:http';
import { createInterface } from 'node:readline';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const DEADLINE = 30_000;

/** The folder for pictures. */
export const SHOTS = process.env.TINY_SSE_SHOTS ?? fileURLToPath(new URL('../../target/screenshots', import.meta.url));

const CONSOLE = new URL('../../src/console/', import.meta.url);

/** Waits until `condition` returns a true value, and returns it. */
export async function until(what, condition) {
  const end = Date.now() + DEADLINE;
  let last;
  while (Date.now() < end) {
    last = await condition();
    if (last) return last;
    await sleep(20);
  }
  assert.fail(`${what}: not within ${DEADLINE} ms; at last ${JSON.stringify(last)}`);
}

/** The program. It keeps its port when it is started again. The first option may be a command. */
export class Server {
  /** The token for the requests of the methods below; empty if none is required. */
  token = '';
  #options;
  #child;
  #ended;
  #address = '127.0.0.1:0';

  static async start(t, ...options) {
    const server = new Server();
    server.#options = options;
    t.after(() => server.signal('SIGKILL'));
    await server.restart();
    return server;
  }

  get origin() {
    return `http://${this.#address}`;
  }

  /** Starts the program on the same port; with other options if some are given. */
  async restart(...options) {
    if (options.length > 0) this.#options = options;
    assert.ok(process.env.TINY_SSE, 'TINY_SSE must name the program');
    const child = spawn(process.env.TINY_SSE, [...this.#options, '--listen', this.#address], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('exit', resolve));
    for await (const line of createInterface({ input: child.stdout })) {
      const told = / listens on (\S+)$/.exec(line);
      if (told) {
        this.#address = told[1];
        child.stdout.resume();
        return;
      }
    }
    assert.fail(`the program did not start with ${this.#options.join(' ')}`);
  }

  /** Kills the program, which cannot write or flush anything any more. */
  async kill() {
    this.signal('SIGKILL');
    await this.#ended;
  }

  /** Shuts the program down and waits until it has ended. */
  async close() {
    this.signal('SIGTERM');
    await this.#ended;
  }

  signal(name) {
    this.#child?.kill(name);
  }

  get #headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  async publish(data, path = '/events') {
    const response = await fetch(this.origin + path, { method: 'POST', body: String(data), headers: this.#headers });
    const answer = await response.json();
    assert.equal(response.status, 200, JSON.stringify(answer));
    return answer;
  }

  async publishAll(...data) {
    for (const each of data) await this.publish(each);
  }

  async stats() {
    return (await fetch(`${this.origin}/stats?clients=1`, { headers: this.#headers })).json();
  }

  async active() {
    return (await this.stats()).active_connections;
  }

  /** Opens a stream that takes a slot. Returns a function that closes it. */
  async occupy() {
    // Not with `fetch`, which closes the connection of an answer whose body is not read.
    const request = get(`${this.origin}/events`, { agent: false });
    const response = await new Promise((resolve) => request.once('response', resolve));
    assert.equal(response.statusCode, 200);
    response.resume();
    response.on('error', () => {}); // the error of `destroy`
    return () => request.destroy();
  }
}

/** Creates a folder for a journal. It is deleted after the test. */
export async function folder(t) {
  const path = await mkdtemp(join(tmpdir(), 'tiny-sse-browser-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/**
 * Starts a site of another origin: the same host with a different port, so that the rules of CORS apply. `pages` are
 * paths with their contents.
 */
export async function site(t, pages = {}) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    const content = pages[pathname] ?? (await asset(pathname));
    const type = pathname.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8';
    response.writeHead(content === null ? 404 : 200, { 'Content-Type': type });
    response.end(content);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** Returns the client or the hook from src/console, or an empty page. */
async function asset(path) {
  if (path === '/') return '<!doctype html><title>a page</title><link rel="icon" href="data:,">';
  if (!['/sse-client.js', '/use-sse.js'].includes(path)) return null;
  return readFile(new URL(`.${path}`, CONSOLE));
}

/** Starts Chromium. Its pages share cookies, locks and channels, as the tabs of one window do. */
export async function browser(t) {
  const { chromium } = await import('playwright-core');
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Playwright switches this cache off. The browsers of users have it, so pages must work with it.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    // Chromium does not start as root with a sandbox. The other options keep it from sending requests to the
    // internet.
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  t.after(() => browser.close());
  const context = await browser.newContext();
  return { browser, context, tab: (url, expected) => tab(t, context, url, expected) };
}

/** Opens a tab with a page. */
async function tab(t, context, url, expected = /net::ERR_|Failed to load resource|status of 503/) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  watch(t, page, expected);
  await page.goto(url);
  return page;
}

/** Makes the test fail if the log of a tab has a line that does not match `expected`. */
export function watch(t, page, expected) {
  const log = [];
  page.on('pageerror', (error) => log.push(String(error.stack)));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !expected?.test(message.text())) log.push(message.text());
  });
  // This runs after the browser is closed, because the browser was started first.
  t.after(() => assert.deepEqual(log, [], "the browser's log"));
}

/**
 * `text` returns the text of an element. `says` waits until the text is `what`, or matches it, and returns the match.
 */
export const text = (page, selector) => page.evaluate((selector) => document.querySelector(selector)?.textContent ?? '', selector);
export async function says(page, selector, what) {
  let said;
  const found = until(`${selector} says ${what}`, async () => {
    said = await text(page, selector);
    return what instanceof RegExp ? what.exec(said) : said === what && [said];
  });
  return found.catch((error) => assert.fail(`${error.message}; it says ${JSON.stringify(said)}`));
}

/** Waits until both streams of the console are open. */
export async function isOpen(page) {
  await says(page, '#native-state', 'OPEN');
  await says(page, '#client-state', 'OPEN');
}

/**
 * Starts an SSEClient in a tab, as `window.client`. `window.heard` has what it received, by type. With `asks`, its
 * token is a function that returns `window.token` and counts its calls in `window.asked`.
 */
export async function listen(page, url, { asks = false, ...options } = {}) {
  await page.evaluate(
    async ([url, options, asks]) => {
      const { SSEClient } = await import('/sse-client.js');
      window.asked = 0;
      if (asks) {
        options.token = async () => {
          window.asked += 1;
          return window.token;
        };
      }
      const heard = { message: [], ids: [], state: [], error: [], recovery: [], gap: [], open: [] };
      const client = new SSEClient(url, options);
      client.on('message', (data, event) => {
        heard.message.push(data);
        heard.ids.push(event.id);
      });
      for (const type of ['state', 'error', 'recovery', 'gap', 'open']) {
        client.on(type, (data) => heard[type].push(data));
      }
      Object.assign(window, { heard, client: client.connect() });
    },
    [url, options, asks],
  );
}

/** Starts the browser's own EventSource, as `window.source`. `window.heard` has what it received. */
export async function listenNatively(page, url) {
  await page.evaluate((url) => {
    const source = new EventSource(url);
    const heard = { message: [], ids: [], open: 0, error: 0 };
    source.onmessage = (event) => {
      heard.message.push(JSON.parse(event.data));
      heard.ids.push(event.lastEventId);
    };
    source.onopen = () => (heard.open += 1);
    source.onerror = () => (heard.error += 1);
    Object.assign(window, { heard, source });
  }, url);
}

/** Leaves the page in a tab. The page may then be in the back-forward cache. */
export const goElsewhere = (page) => page.goto(`${new URL(page.url()).origin}/?elsewhere`);

/** Goes back, and checks that the page comes from the back-forward cache and is not loaded again. */
export async function goBack(page) {
  await page.goBack({ waitUntil: 'commit' });
  await until('the page is as it was left', () => page.evaluate(() => Boolean(window.heard)));
}

export const heard = (page) => page.evaluate(() => window.heard);
export const state = (page) => page.evaluate(() => window.client?.state ?? window.source.readyState);
export const opened = (page) => until('the stream opens', async () => ['OPEN', 1].includes(await state(page)));

/** Waits for this many messages and returns them. */
export async function messages(page, count) {
  let list;
  await until(`${count} messages`, async () => {
    list = (await heard(page)).message;
    return list.length >= count && { so_far: list.length };
  }).catch((error) => assert.fail(`${error.message}; there are ${JSON.stringify(list)}`));
  return list;
}

export const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** Runs the comparison of the console until each of the three methods has received events. */
export async function compareAll(page) {
  await page.fill('#compare-rate', '10');
  await page.selectOption('#compare-interval', '500');
  await page.click('#compare-start');
  for (const way of ['sse', 'long', 'poll']) {
    await until(`events by ${way}`, async () => Number(await text(page, `#compare-${way} td`)) >= 3);
  }
  await page.click('#compare-stop');
  await says(page, '#compare-answer', /^Stopped after \d+ events\.$/);
}
