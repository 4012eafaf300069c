// SSEClient in a page of another origin, against the real server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server, browser, folder, goBack, goElsewhere, heard, listen, messages, numbers, opened, site, state, until } from './kit.mjs';

const quick = { maxDelay: 500 };

test('the client resumes exactly after a crash of the server', async (t) => {
  const server = await Server.start(t, '--journal', await folder(t), '--sync', 'always', '--retry', '200ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`, quick);
  await opened(page);
  await server.publishAll(1, 2, 3);
  await messages(page, 3);
  await server.kill();
  await until('the cut is noticed', async () => (await state(page)) === 'CONNECTING');
  await server.restart();
  await server.publishAll(4, 5, 6);
  await messages(page, 6);
  const { id } = await server.publish(7);
  assert.deepEqual(await messages(page, 7), numbers(1, 7));
  const { recovery, gap, ids, error } = await heard(page);
  assert.deepEqual([recovery.length, recovery[0].complete, gap], [1, true, []]);
  assert.equal(recovery[0].recovered_from, ids[2]);
  assert.equal(ids[6], id);
  assert.ok(error.every(({ kind, final }) => kind === 'network' && !final), JSON.stringify(error));
});

test('the client reconnects after a server has shut down cleanly and started again', async (t) => {
  const server = await Server.start(t, '--journal', await folder(t), '--retry', '200ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`, quick);
  await opened(page);
  await server.close();
  await until('the end is noticed', async () => (await heard(page)).error[0]?.kind === 'end');
  await server.restart();
  await server.publishAll(1, 2);
  assert.deepEqual(await messages(page, 2), [1, 2]);
});

test('the client reconnects after a 503, unlike an EventSource', async (t) => {
  const server = await Server.start(t, '--max-clients', '1', '--retry', '200ms', '--heartbeat', '500ms');
  const leave = await server.occupy();
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await page.evaluate((url) => void (window.native = new EventSource(url)), `${server.origin}/events`);
  await listen(page, `${server.origin}/events`, { ...quick, retry: 200 });
  await until('two refusals', async () => (await heard(page)).error.length >= 2);
  const { error } = await heard(page);
  assert.ok(error.every(({ kind, status, final }) => kind === 'status' && status === 503 && !final));
  assert.match(error[0].message, /Too many connections/);
  assert.equal(await page.evaluate(() => window.native.readyState), 2);
  leave();
  await opened(page);
  await server.publish(1);
  assert.deepEqual(await messages(page, 1), [1]);
  assert.equal(await page.evaluate(() => window.native.readyState), 2);
});

test('after a 404 the client sends no further request', async (t) => {
  const server = await Server.start(t);
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/nothing`, quick);
  await until('it is closed', async () => (await state(page)) === 'CLOSED');
  const { error } = await heard(page);
  assert.deepEqual(error.map(({ status, final }) => [status, final]), [[404, true]]);
});

test('the client notices a stopped server, and reconnects when it continues', async (t) => {
  const server = await Server.start(t, '--heartbeat', '400ms', '--retry', '200ms');
  t.after(() => server.signal('SIGCONT'));
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`, { ...quick, silence: 1000 });
  await opened(page);
  await server.publish(1);
  await messages(page, 1);
  server.signal('SIGSTOP');
  await until('the silence is noticed', async () => (await heard(page)).error[0]?.kind === 'silence');
  server.signal('SIGCONT');
  await server.publish(2);
  assert.deepEqual(await messages(page, 2), [1, 2]);
  await until('one is registered', async () => (await server.active()) === 1);
});

test('heartbeats end the silence', async (t) => {
  const server = await Server.start(t, '--heartbeat', '300ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`, { silence: 1500 });
  await opened(page);
  // This test has to wait for time: twice the time of silence, in which nothing must happen.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 3000)));
  assert.deepEqual((await heard(page)).error, []);
});

test('when the network is available again, the client reconnects before the end of its delay', async (t) => {
  const server = await Server.start(t, '--retry', '120s');
  const { tab, context } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`);
  await opened(page);
  await server.kill();
  await until('it waits', async () => (await heard(page)).error[0]?.retryIn >= 120_000);
  await server.restart();
  await context.setOffline(true);
  await context.setOffline(false);
  await opened(page);
});

test('the client reports a gap if the server has restarted without its history', async (t) => {
  const server = await Server.start(t, '--retry', '200ms');
  const { tab } = await browser(t);
  const page = await tab(await site(t));
  await listen(page, `${server.origin}/events`, quick);
  await opened(page);
  await server.publish(1);
  await messages(page, 1);
  await server.kill();
  await server.restart();
  await server.publish(2);
  await messages(page, 2);
  const { message, gap, ids } = await heard(page);
  assert.deepEqual([message, gap.length, gap[0].complete], [[1, 2], 1, false]);
  assert.equal(gap[0].recovered_from, ids[0]);
});

test('the client closes when its page enters the back-forward cache, and reconnects when the page returns', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const { tab } = await browser(t);
  const origin = await site(t);
  for (const options of [quick, { ...quick, shared: true }]) {
    const page = await tab(origin);
    await listen(page, `${server.origin}/events`, options);
    await opened(page);
    await goElsewhere(page);
    await until('nobody is registered', async () => (await server.active()) === 0);
    await server.publishAll(1, 2);
    await goBack(page);
    await server.publish(3);
    assert.deepEqual(await messages(page, 3), [1, 2, 3]);
    assert.deepEqual((await heard(page)).state, ['CONNECTING', 'OPEN', 'DISCONNECTED', 'CONNECTING', 'OPEN']);
    // A second pageshow opens no second stream.
    await page.evaluate(() => void dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })));
    assert.equal(await server.active(), 1);
    await page.close();
    await until('the next one is alone', async () => (await server.active()) === 0);
  }
});

test('after a tab is closed or leaves the page no client is registered', async (t) => {
  const server = await Server.start(t, '--heartbeat', '500ms');
  const { tab } = await browser(t);
  const origin = await site(t);
  const leaving = { closed: (page) => page.close(), elsewhere: goElsewhere };
  for (const [how, leave] of Object.entries(leaving)) {
    const page = await tab(origin);
    await listen(page, `${server.origin}/events`, quick);
    await until(`${how}: registered`, async () => (await server.active()) === 1);
    await leave(page);
    await until(`${how}: nobody`, async () => (await server.active()) === 0);
  }
});
