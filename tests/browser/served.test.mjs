// The files that the program serves to pages of any origin, the client and the hook, and heartbeats as events.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Server, browser, opened, site, state, until } from './kit.mjs';

test('a page of another origin can import the client from the server', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await page.evaluate(async (origin) => {
    const { SSEClient } = await import(`${origin}/sse-client.js`);
    window.heard = { message: [] };
    window.client = new SSEClient(`${origin}/events`).on('message', (data) => window.heard.message.push(data)).connect();
  }, server.origin);
  await opened(page);
  await server.publish('{"n":1}');
  await until('it hears', async () => (await page.evaluate(() => window.heard.message[0]?.n)) === 1);
});

test('both files are served as they are in src/console', async (t) => {
  const server = await Server.start(t);
  for (const file of ['sse-client.js', 'use-sse.js']) {
    const response = await fetch(`${server.origin}/${file}`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get('Content-Type'), /^text\/javascript/);
    assert.equal(response.headers.get('Access-Control-Allow-Origin'), '*');
    const there = await readFile(new URL(`../../src/console/${file}`, import.meta.url), 'utf8');
    assert.equal(await response.text(), there);
  }
});

test('heartbeats are events if the client requests it, in the leader and in the other tabs', async (t) => {
  const server = await Server.start(t, '--heartbeat', '300ms');
  const { tab } = await browser(t);
  const origin = await site(t);
  const pages = await Promise.all([tab(origin), tab(origin)]);
  for (const page of pages) {
    await page.evaluate(async (url) => {
      const { SSEClient } = await import('/sse-client.js');
      window.beats = [];
      window.client = new SSEClient(url, { shared: true }).on('heartbeat', (data, event) => window.beats.push([data, event.data, event.hasOwnId]));
      window.client.connect();
    }, `${server.origin}/events`);
  }
  for (const page of pages) {
    await until('three beats', async () => (await page.evaluate(() => window.beats.length)) >= 3);
    assert.deepEqual(await page.evaluate(() => window.beats[2]), [{}, '{}', false]);
    assert.equal(await state(page), 'OPEN');
  }
});

test('a client in a sandboxed frame, which has no locks, has a connection of its own', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await page.evaluate((origin) => {
    window.heard = [];
    addEventListener('message', ({ data }) => window.heard.push(data));
    const frame = document.createElement('iframe');
    frame.sandbox = 'allow-scripts';
    frame.srcdoc = `<script type="module">
      import { SSEClient } from '${origin}/sse-client.js';
      const tell = (data) => parent.postMessage(data, '*');
      new SSEClient('${origin}/events', { shared: true }).on('message', tell).on('open', () => tell('open')).connect();
    </script>`;
    document.body.append(frame);
  }, server.origin);
  const heard = (count) => until(`${count} words`, async () => (await page.evaluate(() => window.heard.length)) >= count);
  await heard(1);
  await server.publish(1);
  await heard(2);
  assert.deepEqual(await page.evaluate(() => window.heard), ['open', 1]);
});
