// The console of `tiny-sse demo`: the function of every tab, disconnecting and resuming, a crash of the server,
// hostile events, the numbers of the comparison, and whether the page can be read and used on a phone, in the light
// and the dark colour scheme, and with the keyboard. One test also opens the console of `tiny-sse serve`.
//
// The tests save a picture of each tab in $TINY_SSE_SHOTS, or else in target/screenshots.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { totalmem } from 'node:os';
import { test } from 'node:test';
import { SHOTS, Server, browser, compareAll, folder, isOpen, numbers, says, text, until, watch } from './kit.mjs';

const TABS = ['events', 'clients', 'compare', 'notifications', 'feed', 'monitoring', 'process', 'prices', 'chat'];
/** A click takes effect within this many milliseconds, whatever the page has to draw. Normal is a tenth of it. */
const PROMPT = 3000;

/**
 * Opens the console and waits until both of its streams are open. With the topics `*` it also gets the simulated
 * events of the demo. Any line in the browser's log fails the test. With `away` the log may have errors of the
 * network, for tests that stop the server.
 */
async function open(t, context, origin, { width = 1280, height = 900, scheme = 'light', motion = 'no-preference', topics = '*', away = false } = {}) {
  const page = await context.newPage();
  watch(t, page, away ? /net::ERR_|Failed to load resource/ : undefined);
  await page.addInitScript(() => addEventListener('securitypolicyviolation', (event) => {
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
  }));
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: motion });
  await page.goto(`${origin}/`);
  await isOpen(page);
  if (topics !== '*') {
    await page.fill('#subscribe-topics', topics);
    await page.click('#subscribe-send');
    await isOpen(page);
    await page.click('#events-clear');
  }
  return page;
}

const amount = (page, selector) => page.evaluate((selector) => document.querySelectorAll(selector).length, selector);

async function go(page, tab) {
  await page.click(`#tab-${tab}`);
  const shown = await page.$$eval('[role=tabpanel]', (panels) => panels.filter((panel) => panel.checkVisibility()).map(({ id }) => id));
  assert.deepEqual(shown, [`panel-${tab}`]);
  assert.equal(await page.getAttribute(`#tab-${tab}`, 'aria-selected'), 'true');
}

/** Returns the events of this name in the table, oldest first. */
const events = (page, name) => page.$$eval('#events-rows tr', (rows, name) => rows.reverse()
  .map((row) => ({ name: row.querySelector('.name').textContent, id: row.querySelector('.id').textContent, data: row.querySelector('.text').textContent }))
  .filter((event) => event.name === name), name);
const eventsAre = (page, name, data) => until(`${data.length} events ${name}`, async () => {
  const there = (await events(page, name)).map((event) => event.data);
  assert.ok(there.length <= data.length, `too many of ${name}: ${JSON.stringify(there)}`);
  return there.length === data.length && there;
}).then((there) => assert.deepEqual(there, data));

async function publishByForm(page, { data, event = '', topic = '', times = 1 }) {
  for (const [field, value] of Object.entries({ data, event, topic, times })) await page.fill(`#publish-${field}`, String(value));
  await page.click('#publish-send');
}

// ---- the function of each tab -------------------------------------------------------------------------

test('each of the nine tabs works', async (t) => {
  const { context } = await browser(t);
  // With short heartbeats the server soon notices clients that are gone.
  const demo = await Server.start(t, 'demo', '--heartbeat', '300ms');
  const page = await open(t, context, demo.origin);

  await t.test('events: the table shows the events that the form publishes', async () => {
    await publishByForm(page, { data: '{"n":{n},"text":"hello"}', event: 'greeting', topic: 'test/events', times: 3 });
    await eventsAre(page, 'greeting', [1, 2, 3].map((n) => `{"n":${n},"text":"hello"}`));
    const [, id] = await says(page, '#publish-answer', /^3 of 3: 200 · id (\S+) · 2 recipients/);
    assert.equal((await events(page, 'greeting')).at(-1).id, id);
    // The examples publish too, so the cursor may be at a later event already.
    const time = (cursor) => Number(/^(\d+)-\d+$/.exec(cursor)?.[1]);
    await until('the cursor moves', async () => time(await text(page, '#cursor')) >= time(id));
    await page.fill('#events-filter', '"n":2');
    await says(page, '#events-count', /^1 match/);
    await eventsAre(page, 'greeting', ['{"n":2,"text":"hello"}']);
    await page.fill('#events-filter', '');
    await eventsAre(page, 'greeting', [1, 2, 3].map((n) => `{"n":${n},"text":"hello"}`));
    await page.click('#events-pause');
    await demo.publish('meanwhile', '/events?event=paused');
    await says(page, '#events-count', /paused, [1-9]\d* new/);
    assert.deepEqual(await events(page, 'paused'), []);
    await page.click('#events-pause');
    await eventsAre(page, 'paused', ['meanwhile']);
    await page.click('#events-raw');
    await says(page, '#raw-bytes', /HTTP\/1\.1 200 .*event: system/s);
    const { id: rawId } = await demo.publish('one\ntwo', '/events?event=bytes');
    await until('the bytes', async () => (await text(page, '#raw-bytes')).includes(`id: ${rawId}\nevent: bytes\ndata: one\ndata: two\n\n`));
    await page.click('#events-raw');
    await until('the chart counts clients', async () => /^[2-9]/.test(await text(page, '#chart-clients-now')));
    await until('the chart has a latency', async () => /ms/.test(await text(page, '#chart-latency-now')));
  });

  await t.test('clients: clients are listed, and one is kicked', async () => {
    const visitor = await fetch(`${demo.origin}/events?client_id=visitor&topic=a/b`);
    await go(page, 'clients');
    const base = await page.inputValue('#subscribe-client');
    const ids = () => page.$$eval('#clients-rows tr td:first-child', (cells) => cells.map((cell) => cell.firstChild.data).sort());
    await until('three clients', async () => (await ids()).length === 3);
    assert.deepEqual(await ids(), [`${base}.client`, `${base}.native`, 'visitor']);
    assert.match(await text(page, '#stats-tiles'), /^Clients3/);
    await page.click('[aria-label="Kick visitor"]');
    await visitor.text(); // until the stream ends
    await says(page, '#clients-answer', 'The stream of visitor was closed.');
    await until('the client is gone from the list', async () => !(await ids()).includes('visitor'));
    await says(page, '#stats-tiles', /1 kicked/);
  });

  await t.test('compare: all three methods get events', async () => {
    await go(page, 'compare');
    await compareAll(page);
  });

  await t.test('notifications: a posted alert, simulated alerts and the badge', async () => {
    await go(page, 'notifications');
    await page.fill('#notifications-text', 'Чернила кончаются 🖨️');
    await page.selectOption('#notifications-level', 'warning');
    await page.click('#notifications-send');
    await until('the alert is in the inbox', () => page.$$eval('#notifications-list li[data-level=warning]', (items) => items.some((item) => item.querySelector('p:last-child').textContent === 'Чернила кончаются 🖨️')));
    await until('simulated alerts arrive too', async () => /simulated/.test(await text(page, '#notifications-list')));
    await until('the badge counts', async () => Number(await text(page, '#notifications-badge')) >= 2);
  });

  await t.test('feed: posts arrive', async () => {
    await go(page, 'feed');
    await says(page, '#feed-list', /#\d+.*simulated/);
  });

  await t.test('monitoring: the numbers of this machine', async () => {
    await go(page, 'monitoring');
    await says(page, '#monitoring-load-now', /^\d+\.\d\d · \d+\.\d\d · \d+\.\d\d, \d+ cpus$/);
    const gib = totalmem() / 2 ** 30;
    await says(page, '#monitoring-memory-now', new RegExp(` of ${gib < 1 ? '' : gib.toFixed(1)}`));
    await says(page, '#monitoring-network-now', /^↓ .*B\/s · ↑ .*B\/s$/);
    assert.equal(await text(page, '#monitoring-answer'), '');
  });

  await t.test('process: the SHA-256 of an uploaded file', async () => {
    await go(page, 'process');
    const buffer = randomBytes(700_001);
    await page.setInputFiles('#process-file', { name: '<b>файл.bin', mimeType: 'application/octet-stream', buffer });
    await page.click('#process-send');
    await says(page, '#process-label', 'Finished <b>файл.bin.');
    assert.equal(await text(page, '#process-result dd'), createHash('sha256').update(buffer).digest('hex'));
    assert.match(await text(page, '#process-result'), /700,001 bytes/);
    assert.equal(await page.$eval('#process-progress', ({ value }) => value), 100);
    await page.click('#process-sample');
    await says(page, '#process-label', 'Finished sample.bin.');
  });

  await t.test('prices: one row for each symbol, with changing prices', async () => {
    await go(page, 'prices');
    await until('prices', async () => (await amount(page, '#prices-rows tr')) >= 3);
    assert.notEqual(await page.$eval('#prices-rows canvas', (spark) => spark.height), 150, 'the first price is drawn too');
    const before = await text(page, '#prices-rows');
    assert.match(before, /TINY\d+\.\d\d/);
    await until('the prices change', async () => (await text(page, '#prices-rows')) !== before);
  });

  await t.test('chat: own messages and those of others', async () => {
    await go(page, 'chat');
    await page.fill('#chat-room', 'тест 1');
    await page.click('#chat-enter');
    await page.fill('#chat-text', 'Всем привет 👋');
    await page.click('#chat-send');
    await says(page, '#chat-list li.mine .text', 'Всем привет 👋');
    const answer = await fetch(`${demo.origin}/api/chat/room/${encodeURIComponent('тест 1')}/messages`, { method: 'POST', body: '{"user":"<i>eve</i>","text":"<b>hi</b>"}' });
    assert.equal(answer.status, 200);
    await says(page, '#chat-list li:not(.mine, .note) .text', '<b>hi</b>');
    assert.match(await text(page, '#chat-list'), /<i>eve<\/i>/);
  });

  await t.test('the tab is in the address, and leaving the page closes all streams', async () => {
    const are = (count) => until(`${count} streams`, async () => (await demo.active()) === count);
    assert.equal(new URL(page.url()).hash, '#chat');
    await page.reload();
    await isOpen(page);
    assert.ok(await page.isVisible('#panel-chat'));
    await are(3);
    await go(page, 'events');
    await are(2);
    await page.click('#events-raw');
    await are(3);
    await page.evaluate(() => (window.isOld = true));
    await page.goto('about:blank');
    await are(0);
    await page.goBack({ waitUntil: 'commit' });
    await until('the page is as it was left', () => page.evaluate(() => window.isOld));
    await isOpen(page);
    await are(3);
    await demo.publish('again', '/events?event=back');
    await page.click('#events-raw');
    await eventsAre(page, 'back', ['again']);
    await page.close();
    await are(0);
  });
});

// ---- the tabs -----------------------------------------------------------------------------------------

/** Returns the names of the visible tabs. */
const visibleTabs = (page) => page.$$eval('[role=tab]', (tabs) => tabs.filter((tab) => tab.checkVisibility()).map(({ id }) => id.slice(4)));

/** Opens a page. Returns how many tabs its frames have shown, without repetition, beginning with the first frame that has
 * the whole page. */
async function tabsOfEachFrame(page, url) {
  await page.goto(url);
  await isOpen(page);
  return page.evaluate(() => [...window.tabCounts]);
}

test('only the demo shows the tabs of the six uses, and shows them in its first frame', async (t) => {
  const { context } = await browser(t);
  const server = await Server.start(t);
  const page = await context.newPage();
  watch(t, page, /net::ERR_|status of 404/);
  await page.addInitScript(() => {
    window.tabCounts = new Set();
    const look = () => {
      const isParsed = document.querySelector('noscript');
      if (isParsed) window.tabCounts.add([...document.querySelectorAll('[role=tab]')].filter((tab) => tab.checkVisibility()).length);
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });

  // The tab in the address does not exist, so the first tab is shown.
  assert.deepEqual(await tabsOfEachFrame(page, `${server.origin}/#chat`), [3]);
  assert.deepEqual(await visibleTabs(page), TABS.slice(0, 3));
  assert.ok(await page.isVisible('#panel-events'));
  await page.focus('#tab-events');
  await page.keyboard.press('ArrowLeft');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'tab-compare', 'arrow keys skip the hidden tabs');

  // The browser has /demo.js of `serve` in its cache. The demo at the same address answers with a different script.
  await server.close();
  await server.restart('demo');
  assert.deepEqual(await tabsOfEachFrame(page, `${server.origin}/?demo#chat`), [9]);
  assert.deepEqual(await visibleTabs(page), TABS);
  assert.ok(await page.isVisible('#panel-chat'));

  // The page stays open while `serve` replaces the demo.
  await server.close();
  await server.restart('serve');
  await isOpen(page);
  await go(page, 'feed');
  await says(page, '#panel-feed .use-state', 'This server does not have the example uses. Start it with tiny-sse demo.Try again');
  await page.reload();
  await isOpen(page);
  assert.deepEqual(await visibleTabs(page), TABS.slice(0, 3));
});

// ---- the connections ---------------------------------------------------------------------------------------

test('after Disconnect and Resume the page says which events were replayed or lost', async (t) => {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo', '--history', '5', '--queue-bytes', '32KiB', '--heartbeat', '300ms');
  const page = await open(t, context, demo.origin, { topics: '' });
  await publishByForm(page, { data: '1', event: 'counted' });
  await eventsAre(page, 'counted', ['1']);
  const cursor = await text(page, '#cursor');

  await page.click('#cut');
  await says(page, '#native-state', 'CLOSED');
  await says(page, '#client-state', 'DISCONNECTED');
  await until('the server has no client', async () => (await demo.active()) === 0);
  await publishByForm(page, { data: '2', event: 'counted', times: 1 });
  await says(page, '#outcome', 'Disconnected. Events published and missed so far: 1. Press Resume to receive it.');
  await demo.publish('3', '/events?event=counted');
  assert.equal((await events(page, 'counted')).length, 1);
  await page.click('#resume');
  await says(page, '#outcome', `Resumed after ${cursor}: 2 events replayed, and none is missing.`);
  await isOpen(page);
  await eventsAre(page, 'counted', ['1', '2', '3']);

  await page.click('#cut');
  // The history is as large as three queues. These events are more than that, so the first four are evicted.
  for (const n of numbers(4, 7)) await demo.publish(n, '/events?event=counted');
  for (let n = 0; n < 8; n += 1) await demo.publish('x'.repeat(16 << 10), '/events?event=filler');
  for (const n of numbers(8, 12)) await demo.publish(n, '/events?event=counted');
  await page.click('#resume');
  await says(page, '#outcome', /^Resumed with a gap: the cursor is older than the history of the server\. The server replayed its whole history: \d+ events\.$/);
  assert.equal(await page.getAttribute('#outcome', 'data-kind'), 'bad');
  await eventsAre(page, 'counted', ['1', '2', '3', ...numbers(8, 12).map(String)]);

  await page.fill('#subscribe-cursor', '1-0');
  await page.click('#subscribe-send');
  await says(page, '#outcome', /^Resumed with a gap: /);
});

test('after a crash of the server the page reconnects and has every event once', async (t) => {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo', '--journal', await folder(t), '--sync', 'always', '--retry', '200ms');
  const page = await open(t, context, demo.origin, { away: true, topics: 'lives' });
  for (const n of numbers(1, 3)) await demo.publish(n, '/events/lives?event=life');
  await eventsAre(page, 'life', ['1', '2', '3']);

  await demo.kill();
  await says(page, '#client-state', 'CONNECTING');
  await says(page, '#native-state', 'CONNECTING');
  await says(page, '#outcome', /^The server cannot be reached\. Next attempt in /);
  const moving = () => page.evaluate(() => document.getAnimations().length);
  await until('the lamp turns', moving);
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await until('the lamp does not turn with reduced motion', async () => !(await moving()));
  await says(page, '#server-line', 'the server does not answer');

  await demo.restart();
  for (const n of numbers(4, 6)) await demo.publish(n, '/events/lives?event=life');
  await isOpen(page);
  await eventsAre(page, 'life', numbers(1, 6).map(String));
  await says(page, '#outcome', /^Resumed after \S+: [1-3] events? replayed, and none is missing\.$|^Resumed after \S+: no event was missed\.$/);
  await says(page, '#server-line', /· up \d+ s · 2 of 1,000 clients/);
  const ids = (await events(page, 'life')).map(({ id }) => id);
  assert.equal(new Set(ids).size, 6);
});

// ---- events that are hard to show ------------------------------------------------------------------------------

const HOSTILE = '<script>window.owned = 1</script><img src="x" onerror="window.owned = 2"><a href="javascript:owned()">&lt;\t\u0000\u0007\u001b[31mred\u007f\u0085\u202egnirts\u202c\u2066\ufeff';
const HARMLESS = '<script>window.owned = 1</script><img src="x" onerror="window.owned = 2"><a href="javascript:owned()">&lt;␉␀␇␛[31mred␡⟨U+0085⟩⟨U+202E⟩gnirts⟨U+202C⟩⟨U+2066⟩⟨U+FEFF⟩';

test('Russian, emoji and a mebibyte are shown correctly, and hostile data is shown as text', async (t) => {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo');
  const page = await open(t, context, demo.origin);
  const foreign = () => page.evaluate(() => [
    window.owned ?? 'mine',
    document.querySelectorAll('script, img, iframe, object, embed, style, a, base, meta').length,
    [...new Set([...document.querySelectorAll('#events-rows *')].map(({ tagName }) => tagName))].sort().join(),
  ]);
  const prompt = async (what, act) => {
    const begun = Date.now();
    await act();
    const ms = Date.now() - begun;
    t.diagnostic(`${what}: answered in ${ms} ms`);
    assert.ok(ms < PROMPT, `${what} was answered in ${ms} ms`);
  };
  const [, elements] = await foreign();

  await demo.publish('Съешь ещё этих мягких французских булок, да выпей чаю. Ёлки!', '/events?event=русский');
  await eventsAre(page, 'русский', ['Съешь ещё этих мягких французских булок, да выпей чаю. Ёлки!']);
  // Emoji joined by U+200D, with a skin tone, and a flag of two letters; and a second line.
  await demo.publish('👩‍👩‍👧‍👦 👍🏽 🇫🇮 é\nשלום', '/events?event=👋');
  await eventsAre(page, '👋', ['👩‍👩‍👧‍👦 👍🏽 🇫🇮 é\nשלום']);

  await demo.publish(HOSTILE, `/events?event=${encodeURIComponent('<img src=x onerror=owned=3>')}`);
  await eventsAre(page, '<img src=x onerror=owned=3>', [HARMLESS]);
  await demo.publish('', '/events?event=nothing');
  await eventsAre(page, 'nothing', ['empty']);
  await demo.publish('x'.repeat(5000), '/events?event=long');
  await eventsAre(page, 'long', ['x'.repeat(280)]);
  await page.click('#events-rows tr button');
  await eventsAre(page, 'long', ['x'.repeat(5000)]);
  const wider = await page.$eval('#events-table', (box) => box.scrollWidth - box.clientWidth);
  assert.equal(wider, 0, 'a long line does not widen the table');
  await page.click('#events-raw');
  await says(page, '#raw-bytes', /event: system/);
  await demo.publish(HOSTILE, '/events?event=raw');
  await until('the raw bytes are harmless too', async () => (await text(page, '#raw-bytes')).includes(`data: ${HARMLESS}\n`));
  await page.click('#events-raw');
  assert.deepEqual(await foreign(), ['mine', elements, 'BUTTON,SPAN,TD,TR']);

  // 1 MiB, the maximum that the server accepts, of two-byte letters and four-byte emoji.
  const whole = `${'Ж😀'.repeat(174_762)}конец!!`.slice(0, -5);
  const big = whole + 'x'.repeat((1 << 20) - Buffer.byteLength(whole));
  assert.equal(Buffer.byteLength(big), 1 << 20);
  await demo.publish(big, '/events?event=big');
  await until('the event is there', async () => (await events(page, 'big')).length === 1);
  assert.equal((await events(page, 'big'))[0].data, 'Ж😀'.repeat(94).slice(0, -3) + 'Ж');
  await isOpen(page);
  await prompt('Pause, with it', () => page.click('#events-pause'));
  await page.click('#events-pause');
  assert.equal(await text(page, '#events-rows tr button'), 'show all, 1.0 MiB');
  await prompt('Show all', async () => {
    await page.click('#events-rows tr button');
    assert.equal(await text(page, '#events-rows tr button'), 'show less');
  });
  assert.ok((await events(page, 'big'))[0].data === big, 'the whole data is shown');
  await prompt('Pause, with all of it', () => page.click('#events-pause'));
  await page.click('#events-pause');
  await prompt('another tab', () => go(page, 'clients'));
});

// ---- the comparison and the numbers of a relay ---------------------------------------------------

/**
 * Starts a relay between the page and the server. It counts the requests of each kind and the bytes of the answers.
 */
async function relay(t, origin) {
  const kinds = Object.fromEntries(['sse', 'long', 'poll', 'publish', 'other'].map((kind) => [kind, { requests: 0, answers: 0, down: 0, open: 0 }]));
  const kindOf = (method, target) => {
    const { pathname, searchParams } = new URL(target, origin);
    const topic = searchParams.get('topic') === 'console/compare';
    if (topic && method === 'POST') return kinds.publish;
    const compared = topic && method === 'GET';
    if (compared && pathname === '/events') return kinds.sse;
    // The first poll has no cursor and only requests one, so it counts for no method.
    if (!compared || pathname !== '/poll' || !searchParams.has('last_event_id')) return kinds.other;
    return searchParams.get('wait') === '0' ? kinds.poll : kinds.long;
  };
  const { hostname, port } = new URL(origin);
  const sockets = new Set();
  const server = createServer((page) => {
    const upstream = connect(Number(port), hostname);
    let [kind, answered] = [kinds.other, true];
    kind.open += 1;
    for (const socket of [page, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true).on('error', () => {});
    }
    page.on('data', (bytes) => {
      const head = /^([A-Z]+) (\S+) HTTP\/1\.1\r\n/.exec(bytes.toString('latin1'));
      if (head) {
        kind.open -= 1;
        [kind, answered] = [kindOf(head[1], head[2]), false];
        kind.requests += 1;
        kind.open += 1;
      }
      upstream.write(bytes);
    });
    upstream.on('data', (bytes) => {
      if (!answered) kind.answers += 1;
      answered = true;
      kind.down += bytes.length;
      page.write(bytes);
    });
    upstream.on('close', () => page.end());
    page.on('close', () => {
      kind.open -= 1;
      upstream.destroy();
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { kinds, origin: `http://127.0.0.1:${server.address().port}` };
}

test('the numbers of the comparison agree with those of a relay', async (t) => {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo');
  const { kinds, origin } = await relay(t, demo.origin);
  const page = await open(t, context, origin);
  await go(page, 'compare');
  const [rate, interval] = [4.7, 1000]; // no multiples of each other, so events are published at any time between two polls
  await page.fill('#compare-rate', String(rate));
  await page.selectOption('#compare-interval', String(interval));
  await page.click('#compare-start');

  const milliseconds = (said) => parseFloat(said) * (/ m?s$/.exec(said)[0] === ' s' ? 1000 : 1);
  const read = async () => Object.fromEntries(await page.$$eval('#compare-rows tr', (rows) => rows.map(({ id, cells }) => [id.slice(8), [...cells].slice(1).map((cell) => cell.textContent)])));
  const row = ([events, median, worst, requests, perEvent, down]) => {
    const number = (said) => Number(said.replaceAll(',', ''));
    return { events: number(events), median: milliseconds(median), worst: milliseconds(worst), requests: number(requests), perEvent: number(perEvent), down: number(down) };
  };
  const polls = async () => Number((await read()).poll[3]);
  await until('eight polls', async () => (await polls()) >= 8);
  const relayed = kinds.poll.answers;
  await until('one more poll, so that the next one is not due soon', () => kinds.poll.answers > relayed);
  await until('the page has the answer', async () => (await polls()) >= kinds.poll.answers);
  await page.click('#compare-stop');
  const published = Number((await says(page, '#compare-answer', /^Stopped after (\d+) events\.$/))[1]);
  const counted = structuredClone(kinds);
  const shown = Object.fromEntries(Object.entries(await read()).map(([way, cells]) => [way, row(cells)]));

  for (const [way, { events, median, worst, requests, perEvent, down }] of Object.entries(shown)) {
    const { answers, down: bytes } = counted[way];
    const what = `${way}: the page says ${events} of ${published} events, median ${median} ms, worst ${worst} ms, ${requests} requests, ${down} bytes an event; the relay ${answers} answers, ${bytes} bytes, ${(bytes / events).toFixed(1)} an event`;
    t.diagnostic(what);
    // The last long poll may have been answered with an event that was published while the comparison stopped.
    const late = way === 'long' ? counted.publish.requests - published : 0;
    assert.ok(answers >= requests && answers - requests <= Math.min(late, 1), what);
    assert.ok(Math.abs(down / (bytes / events) - 1) < 0.05, what);
    assert.ok(Math.abs(perEvent - requests / events) < 0.006, what);
    assert.ok(worst >= median && events <= published + 3, what);
    assert.ok(published - events <= (way === 'poll' ? Math.ceil(rate) + 1 : 3), what);
  }
  assert.equal(shown.sse.requests, 1);
  assert.ok(Math.abs(shown.long.requests - shown.long.events) <= 3, 'about one long poll for each event');
  assert.ok(shown.poll.median > 0.25 * interval && shown.poll.median < 1.0 * interval + 200, 'the median of polling is about half of the interval');
  assert.ok(shown.sse.median < shown.poll.median / 4, 'the stream is much faster than polling');
  assert.ok(shown.long.median < shown.poll.median / 2, 'long polling is faster than polling');
  assert.ok(shown.sse.down < shown.long.down && shown.sse.down < shown.poll.down, 'the stream needs the fewest bytes');
  const after = kinds.poll.requests + kinds.long.requests;
  await go(page, 'events');
  await until('the stream and the long poll are closed', () => kinds.sse.open === 0 && kinds.long.open === 0);
  assert.equal(kinds.poll.requests + kinds.long.requests, after, 'no further request is sent');
});

// ---- readability and keyboard ----------------------------------------------------------------------------------------

/** Fills a tab with content. */
const fill = {
  async events(page, demo) {
    await publishByForm(page, { data: '{"text":"Привет 👋","n":{n}}', times: 3 });
    await demo.publish(HOSTILE, '/events/a?event=hostile');
    await demo.publish('длинная строка без конца '.repeat(60), `/events?event=${'long-name-'.repeat(9)}`);
    await demo.publish('y'.repeat(3000), '/events?event=word');
    await until('the last event is there', async () => (await events(page, 'word')).length);
    await until('a latency', async () => /ms/.test(await text(page, '#chart-latency-now')));
  },
  clients: (page) => until('clients', async () => (await amount(page, '#clients-rows tr')) >= 2),
  async compare(page) {
    await page.fill('#compare-rate', '12');
    await page.selectOption('#compare-interval', '500');
    await page.click('#compare-start');
    for (const way of ['sse', 'long', 'poll']) await until(`events by ${way}`, async () => Number(await text(page, `#compare-${way} td`)) >= 3);
  },
  async notifications(page) {
    for (const level of ['info', 'success', 'warning', 'error']) {
      await page.fill('#notifications-text', `${level}: ${'a long text, without an end, '.repeat(4)}${'z'.repeat(80)}`);
      await page.selectOption('#notifications-level', level);
      await page.click('#notifications-send');
      await until('the alert is there', () => amount(page, `#notifications-list li[data-level=${level}]`));
    }
  },
  feed: (page) => says(page, '#feed-list', /#\d+/),
  monitoring: (page) => says(page, '#monitoring-load-now', /cpus$/),
  async process(page) {
    await page.click('#process-sample');
    await says(page, '#process-label', 'Finished sample.bin.');
  },
  prices: (page) => until('prices', async () => (await amount(page, '#prices-rows tr')) >= 3),
  async chat(page, demo) {
    await fetch(`${demo.origin}/api/chat/room/lobby/messages`, { method: 'POST', body: JSON.stringify({ user: 'Анна', text: `Привет! ${'w'.repeat(300)}` }) });
    await page.fill('#chat-text', 'Hello <b>everybody</b> 👋');
    await page.click('#chat-send');
    await until('both messages are there', async () => (await amount(page, '#chat-list li')) >= 3 && amount(page, '#chat-list li.mine'));
  },
};

/** Returns the texts whose contrast to their background is lower than WCAG 2.2, 1.4.3 requires, with the contrast. */
const faint = (page) => page.evaluate(() => {
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const known = new Map();
  // A canvas converts every syntax of a colour.
  const rgba = (colour) => {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ancestors = (node) => (node ? [node, ...ancestors(node.parentElement)] : []);
  const behind = (node) => ancestors(node).reverse().reduce((ground, each) => over(rgba(getComputedStyle(each).backgroundColor), ground), rgba('Canvas'));
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [];
  for (const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walk.nextNode();) {
    if (walk.currentNode.data.trim()) texts.push([walk.currentNode.parentElement, getComputedStyle(walk.currentNode.parentElement), walk.currentNode.data]);
  }
  for (const field of document.querySelectorAll('input, textarea, select')) {
    texts.push([field, getComputedStyle(field), field.value || field.type]);
    if (field.placeholder) texts.push([field, getComputedStyle(field, '::placeholder'), field.placeholder]);
  }
  let seen = 0;
  const found = [];
  for (const [node, style, said] of texts) {
    const { width, height } = node.getBoundingClientRect();
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || width <= 1 || height <= 1) continue;
    if (ancestors(node).some((each) => getComputedStyle(each).clipPath !== 'none')) continue; // for screen readers
    seen += 1;
    const ground = behind(node);
    const [r, g, b, a] = rgba(style.color);
    const opacity = ancestors(node).reduce((all, each) => all * Number(getComputedStyle(each).opacity), a);
    const [dark, light] = [luminance(over([r, g, b, opacity], ground)), luminance(ground)].sort((x, y) => x - y);
    const contrast = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < least) found.push(`${contrast.toFixed(2)} ${node.tagName}#${node.id}.${node.className} ${said.trim().slice(0, 30)}`);
  }
  return { seen, found };
});

/** Returns the controls without an accessible name. */
const nameless = (page) => page.evaluate(() => {
  const nameOf = (node) => [
    node.ariaLabel,
    ...(node.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => id && document.getElementById(id)?.textContent),
    ...[...(node.labels ?? [])].map((label) => label.textContent),
    ['BUTTON', 'A', 'SUMMARY'].includes(node.tagName) ? node.textContent : '',
  ].join('').trim();
  const controls = document.querySelectorAll('input, textarea, select, button, progress, canvas[role=img], a[href], summary, [tabindex="0"], [role=tabpanel], [role=tablist], [role=log]');
  return [...controls].filter((node) => !nameOf(node)).map((node) => node.outerHTML.slice(0, 120));
});

const frames = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const pictures = (page) => page.$$eval('canvas', (all) => all.filter((canvas) => canvas.checkVisibility() && canvas.width).map((canvas) => canvas.toDataURL()));

for (const [size, width, height, motion] of [['desktop', 1280, 900, 'no-preference'], ['phone', 360, 740, 'reduce']]) {
  test(`on a ${size}, in both colour schemes, nothing is too wide, too faint or without a name`, async (t) => {
    const { context } = await browser(t);
    const demo = await Server.start(t, 'demo');
    const page = await open(t, context, demo.origin, { width, height, motion });
    await mkdir(SHOTS, { recursive: true });
    let texts = 0;
    for (const tab of TABS) {
      await page.emulateMedia({ colorScheme: 'light' });
      await go(page, tab);
      await fill[tab](page, demo);
      let byDay = [];
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme });
        await frames(page);
        const where = `${size}-${scheme}-${tab}`;
        const drawn = await pictures(page);
        if (scheme === 'light') byDay = drawn;
        else assert.deepEqual(drawn.filter((picture) => byDay.includes(picture)).length, 0, `${where}: a chart has the colours of the light scheme`);
        await page.screenshot({ path: `${SHOTS}/${where}.png`, fullPage: size === 'phone', caret: 'initial' });
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, `${where}: overflows by so many pixels`);
        const { seen, found } = await faint(page);
        assert.deepEqual(found, [], `${where}: too faint`);
        assert.deepEqual(await nameless(page), [], `${where}: without a name`);
        texts += seen;
      }
    }
    assert.ok(texts > 18 * 40, `${texts} texts were looked at`);
    t.diagnostic(`${texts} texts were looked at; pictures are in ${SHOTS}`);
  });
}

test('the keyboard reaches every control in the visible order', async (t) => {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo');
  const page = await open(t, context, demo.origin);
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.textContent.trim());
  const press = async (key) => {
    await page.keyboard.press(key);
    return focused();
  };
  const tour = ['skip', 'access-open', 'cut', 'tab-events', 'publish-data', 'publish-topic', 'publish-event', 'publish-id', 'publish-times', 'publish-send', 'Subscribe',
    'subscribe-topics', 'subscribe-cursor', 'subscribe-client', 'subscribe-shared', 'subscribe-send',
    'events-filter', 'events-pause', 'events-clear', 'events-raw', 'events-table'];
  for (const stop of tour) {
    assert.equal(await press('Tab'), stop);
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(ring, 'none', `the focus on ${stop} is seen`);
  }
  for (const stop of [...tour].reverse().slice(1)) assert.equal(await press('Shift+Tab'), stop);
  await press('Enter');
  assert.equal(await focused(), 'panels', 'the link skips to the panel');
  assert.equal(await press('Tab'), 'publish-data');

  // The tabs are one tab stop. Arrow keys move between the tabs, from the last to the first too.
  await page.focus('#tab-events');
  for (const tab of [...TABS.slice(1), 'events']) assert.equal(await press('ArrowRight'), `tab-${tab}`);
  for (const tab of [...TABS].reverse()) assert.equal(await press('ArrowLeft'), `tab-${tab}`);
  assert.equal(await press('End'), 'tab-chat');
  assert.equal(await press('Home'), 'tab-events');
  for (const tab of TABS) {
    while ((await focused()) !== `tab-${tab}`) await press('ArrowRight');
    await press('Enter');
    assert.ok(await page.isVisible(`#panel-${tab}`), tab);
    assert.deepEqual(await page.$$eval('[role=tab]', (all) => all.filter(({ tabIndex }) => tabIndex === 0).map(({ id }) => id)), [`tab-${tab}`]);
  }
  await page.keyboard.press('Tab');
  assert.equal(await focused(), 'chat-room', 'the panel follows its tab');

  // Disconnect and resume with the keyboard.
  await page.focus('#cut');
  await press('Space');
  await says(page, '#client-state', 'DISCONNECTED');
  await page.focus('#resume');
  await press('Space');
  await isOpen(page);
});
