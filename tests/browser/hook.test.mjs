// The React hook in a page with real React, in its development build and under StrictMode.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { Server, browser, folder, numbers, site, until } from './kit.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Bundles the page and all that it imports into one script. */
async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [here('react-app.js')],
    bundle: true,
    write: false,
    format: 'iife',
    target: 'es2022',
    define: { 'process.env.NODE_ENV': '"development"' },
    // The hook is outside of this folder, and React is inside.
    nodePaths: [here('node_modules')],
  });
  return outputFiles[0].text;
}

const PAGE = '<!doctype html><title>React</title><link rel="icon" href="data:,"><div id="root"></div><script src="/app.js"></script>';

async function app(t) {
  const { tab } = await browser(t);
  const page = await tab(`${await site(t, { '/react': PAGE, '/app.js': await bundle() })}/react`);
  await page.waitForFunction(() => window.show);
  return page;
}

const show = (page, url, options = {}) =>
  page.evaluate(([url, options]) => window.show(url === undefined ? null : { url, options }), [url, { maxDelay: 500, ...options }]);
const hide = (page) => page.evaluate(() => window.show(null));
const view = (page) => page.evaluate(() => window.view);
const seen = (page) => page.evaluate(() => window.seen);
const connected = (page) => until('it is connected', async () => (await view(page))?.isConnected);
const shows = (page, data) => until(`it shows ${data}`, async () => (await page.textContent('output')).includes(`"data":${data},`));

test('the hook shows the stream with one connection in StrictMode, and renders open no other', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const page = await app(t);
  await show(page, `${server.origin}/events`);
  await connected(page);
  await until('one is registered', async () => (await server.active()) === 1);
  const { total_connections: before } = await server.stats();
  const { id } = await server.publish('{"n":1}');
  await shows(page, '{"n":1}');
  assert.deepEqual(await view(page), { data: { n: 1 }, error: null, isConnected: true, lastEventId: id });
  for (let n = 0; n < 5; n += 1) await show(page, `${server.origin}/events`);
  await server.publish(2);
  await shows(page, '2');
  assert.equal((await server.stats()).total_connections, before);
  // StrictMode renders twice. Each event must be delivered once.
  assert.deepEqual((await seen(page)).events, [{ n: 1 }, 2]);
});

test('after a crash of the server the hook resumes exactly, and shows the error until then', async (t) => {
  const server = await Server.start(t, '--journal', await folder(t), '--sync', 'always', '--retry', '200ms');
  const page = await app(t);
  await show(page, `${server.origin}/events`);
  await connected(page);
  await server.publishAll(1, 2, 3);
  await shows(page, '3');
  await server.kill();
  await until('the error is shown', async () => (await view(page)).error?.kind === 'network');
  assert.deepEqual([(await view(page)).isConnected, (await view(page)).data], [false, 3]);
  await server.restart();
  await server.publishAll(4, 5, 6);
  await shows(page, '6');
  assert.deepEqual((await seen(page)).events, numbers(1, 6));
  assert.deepEqual([(await view(page)).isConnected, (await view(page)).error], [true, null]);
});

test('the hook reconnects after a 503', async (t) => {
  const server = await Server.start(t, '--max-clients', '1', '--retry', '200ms', '--heartbeat', '500ms');
  const leave = await server.occupy();
  const page = await app(t);
  await show(page, `${server.origin}/events`, { retry: 200 });
  await until('the error is shown', async () => (await view(page)).error?.status === 503);
  leave();
  await connected(page);
  await server.publish(1);
  await shows(page, '1');
});

test('a new URL opens a new stream, and no data of the old stream is shown for it', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const page = await app(t);
  const [a, b] = [`${server.origin}/events/a`, `${server.origin}/events/b`];
  for (const [url, topic] of [[a, 'a'], [b, 'b'], [a, 'a']]) {
    const before = (await seen(page)).renders.length;
    await show(page, url);
    await connected(page);
    await until(`only ${topic} is registered`, async () => {
      const { clients } = await server.stats();
      return clients.length === 1 && clients[0].topics[0] === topic;
    });
    await server.publish(`"${topic}"`, `/events/${topic}`);
    await shows(page, `"${topic}"`);
    const { renders } = await seen(page);
    for (const render of renders.slice(before)) {
      assert.ok(render.url === url && [null, topic].includes(render.data), JSON.stringify(render));
    }
    assert.equal(renders[before].isConnected, false);
    assert.equal(renders[before].data, null);
  }
  await show(page, null);
  await until('none is registered', async () => (await server.active()) === 0);
  const nothing = { data: null, error: null, isConnected: false, lastEventId: '' };
  assert.deepEqual(await view(page), nothing);
  const before = (await seen(page)).renders.length;
  await show(page, a);
  await connected(page);
  assert.deepEqual((await seen(page)).renders[before], { url: a, ...nothing });
});

test('after unmounting there is no connection, no handler and no state update', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const page = await app(t);
  await show(page, `${server.origin}/events`);
  await connected(page);
  await server.publish(1);
  await shows(page, '1');
  const { settings, renders, events } = await seen(page);
  await hide(page);
  await until('nobody is registered', async () => (await server.active()) === 0);
  await page.evaluate(() => {
    window.connect();
    window.disconnect();
  });
  await server.publish(2);
  const after = await seen(page);
  // The test itself causes one state update: the one that hides the component.
  assert.deepEqual([after.settings, after.renders.length, after.events.length], [settings + 1, renders.length, events.length]);
  assert.equal(await server.active(), 0);
});

test('a page can call connect and disconnect, and gets the events that it missed in between', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const page = await app(t);
  await show(page, `${server.origin}/events`, { manual: true, event: '*' });
  assert.equal((await view(page)).isConnected, false);
  assert.equal((await server.stats()).total_connections, 0);
  await page.evaluate(() => window.connect());
  await connected(page);
  await server.publish(1);
  await shows(page, '1');
  await page.evaluate(() => window.disconnect());
  await until('it shows that', async () => !(await view(page)).isConnected);
  await until('nobody is registered', async () => (await server.active()) === 0);
  await server.publish(2);
  await page.evaluate(() => window.connect());
  await shows(page, '2');
  const { events } = await seen(page);
  assert.deepEqual(events.filter((data) => typeof data === 'number'), [1, 2]);
});

test('a new token function opens no new stream and is the one that is called; a new token opens a new stream', async (t) => {
  const server = await Server.start(t, '--subscribe-token', 'reader', '--publish-token', 'writer', '--heartbeat', '500ms', '--retry', '200ms');
  server.token = 'writer';
  const page = await app(t);
  const showFunction = (token) => page.evaluate(([url, token]) => window.show({ url, options: { maxDelay: 500, token: async () => token } }), [`${server.origin}/events`, token]);
  await showFunction('reader');
  await connected(page);
  await until('one is registered', async () => (await server.active()) === 1);
  const { total_connections: before } = await server.stats();
  for (let n = 0; n < 5; n += 1) await showFunction('nobody');
  await server.publish(1);
  await shows(page, '1');
  assert.equal((await server.stats()).total_connections, before);
  await page.evaluate(() => window.disconnect());
  await page.evaluate(() => window.connect());
  await until('the latest was asked', async () => (await view(page)).error?.status === 401);
  await show(page, `${server.origin}/events`, { token: 'nobody' });
  await until('it is refused', async () => (await view(page)).error?.status === 401);
  await show(page, `${server.origin}/events`, { token: 'reader' });
  await connected(page);
});
