// One connection for several tabs: which tab is the leader, what the others get, and what happens when the leader
// leaves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Server, browser, folder, goBack, goElsewhere, heard, listen, messages, numbers, opened, site, state, until } from './kit.mjs';

const TABS = 8;
const shared = { shared: true, maxDelay: 500 };

/** Opens tabs that share one stream, and waits until all are open. */
async function tabs(t, server, count, { path = '/events', options = shared, from } = {}) {
  const { tab } = await browser(t);
  const origin = from ?? (await site(t));
  const open = async () => {
    const page = await tab(origin);
    await listen(page, server.origin + path, options);
    return page;
  };
  const pages = await Promise.all(Array.from({ length: count }, open));
  await Promise.all(pages.map(opened));
  return { pages, open };
}

const leads = (page) => page.evaluate(() => window.client.isLeader);

/** Waits until one of the tabs is the leader, and removes it from the list. */
function takeLeader(pages) {
  return until('a leader', async () => {
    const leading = await Promise.all(pages.map(leads));
    return leading.filter(Boolean).length === 1 && pages.splice(leading.indexOf(true), 1)[0];
  });
}

/** Blocks a page for half a second, so that messages for it accumulate. */
const hang = (page) =>
  page.evaluate(() => {
    for (const end = performance.now() + 500; performance.now() < end; );
  });

/** Publishes 1, 2, 3, … almost without a pause. Returns a function that stops it and returns the last number. */
function publishWithoutEnd(server) {
  let isOver = false;
  const last = (async () => {
    for (let n = 1; ; n += 1) {
      await server.publish(n);
      if (isOver) return n;
      await sleep(2);
    }
  })();
  return () => {
    isOver = true;
    return last;
  };
}

test('eight tabs have one connection, and each tab gets every event once', async (t) => {
  const server = await Server.start(t);
  const { pages } = await tabs(t, server, TABS);
  assert.equal(await server.active(), 1);
  await server.publishAll(...numbers(1, 50));
  for (const page of pages) assert.deepEqual(await messages(page, 50), numbers(1, 50));
  const leading = await Promise.all(pages.map(leads));
  assert.equal(leading.filter(Boolean).length, 1);
  const { total_connections: total } = await server.stats();
  assert.equal(total, 1);
  const cursors = await Promise.all(pages.map((page) => page.evaluate(() => window.client.lastEventId)));
  assert.equal(new Set(cursors).size, 1);
});

test('each tab gets every event once while leaders close, leave, disconnect and crash', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms', '--retry', '200ms');
  const { pages } = await tabs(t, server, TABS);
  const stop = publishWithoutEnd(server);
  const leaving = [
    (page) => page.close(),
    goElsewhere,
    (page) => page.evaluate(() => void window.client.disconnect()),
    (page) => page.goto('chrome://crash').catch(() => {}),
  ];
  for (const leave of leaving) {
    const seen = (await heard(pages[0])).message.length;
    await until('events flow', async () => (await heard(pages[0])).message.length > seen + 20);
    const leader = await takeLeader(pages);
    // The next leader gets the lock before it has received the last messages of this leader.
    const hanging = pages.map(hang);
    await leave(leader);
    await Promise.all(hanging);
  }
  pages.push(await takeLeader(pages));
  const last = await stop();
  assert.equal(pages.length, TABS - leaving.length);
  for (const page of pages) {
    assert.deepEqual(await messages(page, last), numbers(1, last));
    assert.deepEqual((await heard(page)).gap, []);
  }
  await until('one is registered', async () => (await server.active()) === 1);
});

test('an event from two leaders is delivered once, and twice if one leader sends it twice', async (t) => {
  const server = await Server.start(t);
  const { pages } = await tabs(t, server, 2);
  const { id } = await server.publish(1);
  for (const page of pages) await messages(page, 1);
  // Late messages of an earlier leader: a known event, a new event, and the new event again.
  await pages[0].evaluate(
    async (known) => {
      // The channel has the name of the lock.
      const [{ name }] = (await navigator.locks.query()).held;
      const channel = new BroadcastChannel(name);
      for (const [data, id] of [['1', known], ['2', 'new'], ['3', 'new']]) {
        const event = { type: 'message', data, id, hasOwnId: true };
        channel.postMessage({ kind: 'event', event, from: 'a ghost', cursor: known });
      }
    },
    id,
  );
  for (const page of pages) await messages(page, 3);
  await server.publish(4);
  for (const page of pages) assert.deepEqual(await messages(page, 4), numbers(1, 4));
});

test('after a crash of the server every tab resumes exactly', async (t) => {
  const server = await Server.start(t, '--journal', await folder(t), '--sync', 'always', '--retry', '200ms');
  const { pages } = await tabs(t, server, 3);
  await server.publishAll(1, 2, 3);
  for (const page of pages) await messages(page, 3);
  await server.kill();
  for (const page of pages) await until('the cut is noticed', async () => (await state(page)) === 'CONNECTING');
  await server.restart();
  await server.publishAll(4, 5, 6);
  for (const page of pages) {
    assert.deepEqual(await messages(page, 6), numbers(1, 6));
    await opened(page);
    const { recovery, error } = await heard(page);
    assert.deepEqual(recovery.map(({ complete }) => complete), [true]);
    assert.ok(error.length > 0);
  }
  assert.equal(await server.active(), 1);
});

test('a tab that joins gets the events from then on', async (t) => {
  const server = await Server.start(t);
  const { pages, open } = await tabs(t, server, 1);
  await server.publishAll(1, 2);
  await messages(pages[0], 2);
  const late = await open();
  await opened(late);
  await server.publish(3);
  assert.deepEqual(await messages(late, 1), [3]);
  assert.deepEqual((await heard(late)).gap, []);
  await messages(pages[0], 3);
  // As the leader it resumes after the event at which it joined.
  await pages[0].close();
  await until('it leads', () => leads(late));
  await server.publish(4);
  assert.deepEqual(await messages(late, 2), [3, 4]);
});

test('a tab that returns to a leader with a newer cursor gets a gap, and only then', async (t) => {
  const server = await Server.start(t);
  const { pages } = await tabs(t, server, 2);
  await server.publish(1);
  for (const page of pages) await messages(page, 1);
  const leader = await takeLeader(pages);
  const [page] = pages;
  await goElsewhere(page);
  await goBack(page);
  await opened(page);
  assert.deepEqual((await heard(page)).gap, []);
  await goElsewhere(page);
  await server.publish(2);
  await messages(leader, 2);
  await goBack(page);
  await opened(page);
  await server.publish(3);
  assert.deepEqual(await messages(page, 2), [1, 3]);
  const { gap, ids } = await heard(page);
  assert.deepEqual(gap.map(({ reason, recovered_from: from }) => [reason, from]), [['shared', ids[0]]]);
});

test('after a final problem all tabs stay closed', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const origin = await site(t);
  const pages = await Promise.all([tab(origin), tab(origin), tab(origin)]);
  await Promise.all(pages.map((page) => listen(page, `${server.origin}/nothing`, shared)));
  for (const page of pages) {
    await until('it is closed', async () => (await state(page)) === 'CLOSED');
    assert.equal((await heard(page)).error.at(-1).status, 404);
  }
});

test('after replaced or kicked all tabs that share the stream stay closed', async (t) => {
  // A page of another site may choose a client id only if its origin is listed.
  const from = await site(t);
  const server = await Server.start(t, '--retry', '200ms', '--cors-origin', from);
  const { pages } = await tabs(t, server, 3, { path: '/events?client_id=me', from });
  const [other] = (await tabs(t, server, 1, { path: '/events?client_id=me', from })).pages;
  for (const page of pages) {
    await until('it is closed', async () => (await state(page)) === 'CLOSED');
    assert.equal((await heard(page)).error.at(-1).reason, 'replaced');
  }
  assert.equal(await state(other), 'OPEN');
  const { total_connections: total } = await server.stats();
  assert.equal(total, 2);
  await fetch(`${server.origin}/clients/me`, { method: 'DELETE' });
  await until('it is closed', async () => (await state(other)) === 'CLOSED');
  assert.equal((await heard(other)).error.at(-1).reason, 'kicked');
});

test('without Web Locks each tab has a connection of its own', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const origin = await site(t);
  const pages = await Promise.all([tab(origin), tab(origin)]);
  for (const page of pages) {
    await page.evaluate(() => void Object.defineProperty(navigator, 'locks', { value: undefined }));
    await listen(page, `${server.origin}/events`, shared);
    await opened(page);
  }
  assert.equal(await server.active(), 2);
  await server.publishAll(1, 2);
  for (const page of pages) assert.deepEqual(await messages(page, 2), [1, 2]);
});

test('different streams have different connections, and after the last tab no client is registered', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const { pages } = await tabs(t, server, 2);
  await pages[0].evaluate(async (url) => {
    const { SSEClient } = await import('/sse-client.js');
    window.other = new SSEClient(url, { shared: true }).connect();
  }, `${server.origin}/events/chat`);
  await until('two connections', async () => (await server.active()) === 2);
  for (const page of pages) await page.close();
  await until('none', async () => (await server.active()) === 0);
});
