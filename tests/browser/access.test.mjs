// The rights of pages: pages of other origins, with and without cookies, and the client with a token, in one tab and
// in tabs that share a connection.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Server, browser, folder, heard, listen, messages, opened, site, state, until } from './kit.mjs';

const quick = { maxDelay: 500 };
/** The messages in the browser's log about answers that a page may not read, and about 401 and 403. */
const KEPT_BACK = /CORS policy|net::ERR_FAILED|status of 40[13]/;

/** Calls `fetch` in a page. Returns the status and the answer, or the name of the exception. */
const ask = (page, url, options = {}) =>
  page.evaluate(
    ([url, options]) => fetch(url, options).then(async (response) => [response.status, await response.json()], (error) => [error.name]),
    [url, options],
  );
const post = { method: 'POST', body: 'hello' };
const bearer = (token) => ({ headers: { Authorization: `Bearer ${token}` } });

test('a page of another site can read but not publish, and gets the reason', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const origin = await site(t);
  const page = await tab(origin, KEPT_BACK);
  const may = `start the server with --cors-origin ${origin} to allow it`;
  assert.deepEqual(await ask(page, `${server.origin}/events`, post), [403, { status: 'error', error: `a page of ${origin} may not publish to everybody (${may})` }]);
  // This request has a preflight. The server allows it, so that the page can read the 403.
  assert.deepEqual(await ask(page, `${server.origin}/clients/x`, { method: 'DELETE' }), [403, { status: 'error', error: `a page of ${origin} may not publish to the client "x" or end its stream (${may})` }]);
  assert.equal((await ask(page, `${server.origin}/events`, { ...post, ...bearer('any') }))[0], 403);
  const [status, stats] = await ask(page, `${server.origin}/stats`);
  assert.deepEqual([status, stats.total_events], [200, 0]);
});

test('only pages of a listed origin can publish and read', async (t) => {
  const { tab } = await browser(t);
  const [listed, other] = [await site(t), await site(t)];
  const server = await Server.start(t, '--cors-origin', listed);
  const [page, stranger] = [await tab(listed), await tab(other, KEPT_BACK)];
  const [status, { id }] = await ask(page, `${server.origin}/events`, post);
  assert.ok(status === 200 && id);
  assert.deepEqual(await ask(page, `${server.origin}/clients/x`, { method: 'DELETE' }), [404, { status: 'error', error: 'no client has the id "x"' }]);
  for (const [path, options] of [['/events', post], ['/clients/x', { method: 'DELETE' }], ['/stats', {}], ['/poll', {}]]) {
    assert.deepEqual(await ask(stranger, server.origin + path, options), ['TypeError'], path);
  }
  assert.equal((await server.stats()).total_events, 1);
});

test('a page in a sandboxed frame, which has no origin, cannot publish', async (t) => {
  const { tab } = await browser(t);
  const origin = await site(t);
  const open = await Server.start(t);
  const listing = await Server.start(t, '--cors-origin', origin);
  const page = await tab(origin, KEPT_BACK);
  const inFrame = (url) => page.evaluate((url) => new Promise((resolve) => {
    addEventListener('message', ({ data }) => resolve(data), { once: true });
    const frame = document.createElement('iframe');
    frame.sandbox = 'allow-scripts';
    frame.srcdoc = `<script>
      const tell = (what) => parent.postMessage(what, '*');
      fetch('${url}', { method: 'POST', body: 'x' }).then(async (response) => tell([response.status, (await response.json()).error]), (error) => tell([error.name]));
    </script>`;
    document.body.append(frame);
  }), url);
  assert.deepEqual(await inFrame(`${open.origin}/events`), [403, 'a page without an origin may not publish to everybody']);
  assert.deepEqual(await inFrame(`${listing.origin}/events`), ['TypeError']);
  for (const server of [open, listing]) assert.equal((await server.stats()).total_events, 0);
});

test('the cookie gives rights only to pages of listed origins that send it', async (t) => {
  const { tab, context } = await browser(t);
  const [listed, other] = [await site(t), await site(t)];
  const server = await Server.start(t, '--cors-origin', listed, '--subscribe-token', 'reader', '--publish-token', 'writer');
  const [page, stranger] = [await tab(listed, KEPT_BACK), await tab(other, KEPT_BACK)];
  const withCookie = { credentials: 'include' };
  const native = (where, withCredentials) => where.evaluate(([url, withCredentials]) => new Promise((resolve) => {
    const source = new EventSource(url, { withCredentials });
    source.onopen = source.onerror = ({ type }) => {
      resolve(type);
      source.close();
    };
  }), [`${server.origin}/events`, withCredentials]);

  await context.addCookies([{ name: 'tiny_sse_token', value: 'reader', url: server.origin, httpOnly: true }]);
  assert.equal((await ask(page, `${server.origin}/poll`, withCookie))[0], 200);
  assert.equal((await ask(page, `${server.origin}/poll`))[0], 401, 'a page sends no cookie to another origin unless it asks for that');
  assert.deepEqual([await native(page, true), await native(page, false)], ['open', 'error']);
  assert.equal((await ask(page, `${server.origin}/events`, { ...post, ...withCookie }))[0], 403);
  await listen(page, `${server.origin}/events`, { ...quick, credentials: 'include' });
  await opened(page);
  await context.addCookies([{ name: 'tiny_sse_token', value: 'writer', url: server.origin, httpOnly: true }]);
  assert.equal((await ask(page, `${server.origin}/events`, { ...post, ...withCookie }))[0], 200);
  assert.deepEqual(await messages(page, 1), ['hello']);

  for (const options of [withCookie, { ...post, ...withCookie }]) {
    assert.deepEqual(await ask(stranger, `${server.origin}/poll`, options), ['TypeError']);
    assert.deepEqual(await ask(stranger, `${server.origin}/events`, options), ['TypeError']);
  }
  assert.equal(await native(stranger, true), 'error');
  server.token = 'writer';
  assert.equal((await server.stats()).total_events, 1);
});

/** Starts a server with a token file. `change` replaces the file and waits until the server has read it: streams whose
 * token is gone are closed by then. */
async function withTokens(t, ...lines) {
  const path = join(await folder(t), 'tokens');
  const write = (...lines) => writeFile(path, `writer publish *\n${lines.join('\n')}\n`, { mode: 0o600 });
  await write(...lines);
  const server = await Server.start(t, '--tokens', path, '--retry', '100ms');
  server.token = 'writer';
  const change = async (...lines) => {
    await write(...lines);
    server.signal('SIGHUP');
  };
  return { server, change };
}

test('an expired token is renewed at the next connection, and no event is missed', async (t) => {
  const { server, change } = await withTokens(t, 'first subscribe *');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await page.evaluate(() => (window.token = 'first'));
  await listen(page, `${server.origin}/events`, { ...quick, asks: true });
  await opened(page);
  await server.publish(1);
  await messages(page, 1);
  await page.evaluate(() => (window.token = 'second'));
  await change('second subscribe *');
  await until('the stream ends', async () => (await heard(page)).state.length > 2);
  await server.publish(2);
  assert.deepEqual(await messages(page, 2), [1, 2]);
  assert.equal(await page.evaluate(() => window.asked), 2);
  assert.deepEqual((await heard(page)).gap, []);

  // The function returns an old token: the client stays closed, reports it, and connects again with a new token.
  await change('third subscribe *');
  await until('it is closed', async () => (await state(page)) === 'CLOSED');
  const error = (await heard(page)).error.at(-1);
  assert.deepEqual([error.status, error.final, error.kind, error.retryIn], [401, true, 'status', undefined]);
  assert.match(error.message, /the server does not know the one in this request$/);
  await server.publish(3);
  await page.evaluate(() => {
    window.token = 'third';
    window.client.connect();
  });
  assert.deepEqual(await messages(page, 3), [1, 2, 3]);
  const urls = await page.evaluate(() => performance.getEntries().map(({ name }) => name).join());
  assert.ok(!/first|second|third/.test(urls), urls);
});

test('after 401 and 403 the client stays closed and has the reason', async (t) => {
  const { server } = await withTokens(t, 'reader subscribe news');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  for (const [token, status, reason] of [['', 401, /a token is needed/], ['nobody', 401, /does not know the one in this request$/], ['reader', 403, /does not include the right to subscribe to "chat"$/]]) {
    await listen(page, `${server.origin}/events/chat`, { ...quick, token });
    await until(`${token}: it is closed`, async () => (await state(page)) === 'CLOSED');
    const { error } = await heard(page);
    assert.deepEqual(error.map((each) => [each.status, each.final]), [[status, true]]);
    assert.match(error[0].message, reason);
  }
  await listen(page, `${server.origin}/events/news`, { ...quick, token: 'reader' });
  await opened(page);
});

test('only tabs with the same token share a connection, and no token is in the name of a lock', async (t) => {
  const { server } = await withTokens(t, 'anna subscribe *', 'boris subscribe *', 'clara subscribe chat');
  const { tab } = await browser(t);
  const origin = await site(t);
  const open = async (token, asks = false) => {
    const page = await tab(origin);
    await page.evaluate((token) => (window.token = token), token);
    await listen(page, `${server.origin}/events/news`, { ...quick, shared: true, token, asks });
    return page;
  };
  const annas = [await open('anna'), await open('anna', true), await open('anna')];
  const borises = [await open('boris', true), await open('boris')];
  for (const page of [...annas, ...borises]) await opened(page);
  await until('two connections', async () => (await server.active()) === 2);
  // A tab without the right gets no events from a tab with the right, and does not close that tab's stream.
  const clara = await open('clara');
  await until('she is refused', async () => (await state(clara)) === 'CLOSED');
  assert.equal((await heard(clara)).error[0].status, 403);
  await server.publish(1, '/events/news');
  for (const page of [...annas, ...borises]) assert.deepEqual(await messages(page, 1), [1]);
  assert.deepEqual((await heard(clara)).message, []);
  const kept = await annas[0].evaluate(async () => JSON.stringify([await navigator.locks.query(), { ...localStorage }, { ...sessionStorage }]));
  assert.ok(kept.includes('tiny-sse ') && !/anna|boris|clara/.test(kept), kept);
});
