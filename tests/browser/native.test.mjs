// The browser's own EventSource against the server, from another origin. The guarantees of the server hold for pages
// that do not use sse-client.js.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server, browser, folder, heard, listenNatively, messages, numbers, opened, site, state, until } from './kit.mjs';

const CLOSED = 2;

test('an EventSource resumes exactly after a crash of the server', async (t) => {
  const server = await Server.start(t, '--journal', await folder(t), '--sync', 'always', '--retry', '200ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listenNatively(page, `${server.origin}/events`);
  await opened(page);
  await server.publishAll(1, 2, 3);
  await messages(page, 3);
  await server.kill();
  await until('the cut is noticed', async () => (await state(page)) === 0);
  await server.restart();
  await server.publishAll(4, 5, 6);
  await messages(page, 6);
  await server.publish(7);
  assert.deepEqual(await messages(page, 7), numbers(1, 7));
});

test('two pages with the same client id do not replace each other again and again', async (t) => {
  // A page of another site may choose a client id only if its origin is listed.
  const origin = await site(t);
  const server = await Server.start(t, '--retry', '100ms', '--cors-origin', origin);
  const { tab } = await browser(t);
  const [first, second, witness] = [await tab(origin), await tab(origin), await tab(origin)];
  await listenNatively(first, `${server.origin}/events?client_id=me`);
  await opened(first);
  await first.evaluate(() => {
    window.told = [];
    window.source.addEventListener('system', ({ data, lastEventId }) => window.told.push([JSON.parse(data), lastEventId]));
  });
  const { id } = await server.publish(1);
  await messages(first, 1);
  await listenNatively(second, `${server.origin}/events?client_id=me`);
  await until('the first is told', () => first.evaluate(() => window.told.length === 1 && window.source.readyState === 0));
  assert.deepEqual(await first.evaluate(() => window.told), [[{ type: 'closed', reason: 'replaced' }, id]]);
  // A stream that only breaks reconnects several times, after the usual delay, before the replaced one does.
  await listenNatively(witness, `${server.origin}/events?client_id=witness`);
  for (let cuts = 1; cuts <= 5; cuts += 1) {
    await until('the witness is there', () => server.stats().then(({ active_connections: active }) => active === 2));
    await server.kill();
    await server.restart();
    await until('it has noticed', async () => (await heard(witness)).error >= cuts);
    await opened(witness);
  }
  await opened(second);
  assert.equal(await state(first), 0);
  assert.equal((await heard(first)).open, 1);
});

test('a 503 ends an EventSource for ever, but with --overload retry it reconnects', async (t) => {
  for (const [overload, comesBack] of [['refuse', false], ['retry', true]]) {
    const server = await Server.start(t, '--max-clients', '1', '--overload', overload, '--retry', '200ms', '--heartbeat', '500ms');
    const leave = await server.occupy();
    const { tab } = await browser(t);
    const page = await tab(await site(t));
    await listenNatively(page, `${server.origin}/events`);
    await until(`${overload}: it was not let in`, async () => (await heard(page)).error > 0);
    leave();
    await until(`${overload}: the place is free, or taken`, async () => (await server.active()) === Number(comesBack) && (comesBack || (await state(page)) === CLOSED));
    await server.publish(1);
    if (comesBack) {
      // The slot may still belong to the other client.
      await until('it is in', async () => (await server.publish(2)).recipients === 1 && (await heard(page)).message.length);
    }
    assert.equal(await state(page), comesBack ? 1 : CLOSED, overload);
  }
});

test('after a tab is closed no client is registered', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listenNatively(page, `${server.origin}/events`);
  await until('it is registered', async () => (await server.active()) === 1);
  await page.close();
  await until('nobody is', async () => (await server.active()) === 0);
});
