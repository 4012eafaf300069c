// The console of a server with tokens: what the page shows without a token, with a wrong one and with the right one,
// and that no token is shown or stored where it should not be.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { test } from 'node:test';
import { SHOTS, Server, browser, compareAll, isOpen, says, text, until, watch } from './kit.mjs';

const [SUBSCRIBE, PUBLISH, WRONG] = ['c3Vic2NyaWJlcg==', 'cHVibGlzaGVy-_.~+/', 'bm9ib2R5J3M='];
const TOKENS = ['--subscribe-token', SUBSCRIBE, '--publish-token', PUBLISH];

/** Starts a demo with both tokens and opens its console. `page.asked` is the list of the page's requests. */
async function start(t, { options = TOKENS, width = 1280, height = 900, scheme = 'light' } = {}) {
  const { context } = await browser(t);
  const demo = await Server.start(t, 'demo', ...options);
  demo.token = PUBLISH;
  const page = await tab(t, context, demo.origin, { width, height, scheme });
  return { context, demo, page };
}

async function tab(t, context, url, { width = 1280, height = 900, scheme = 'light' } = {}) {
  const page = await context.newPage();
  watch(t, page, /^Failed to load resource: the server responded with a status of 40[13] /);
  page.asked = [];
  page.on('request', (request) => page.asked.push({ method: request.method(), url: request.url(), kind: request.resourceType(), headers: request.headers() }));
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: scheme });
  await page.goto(url);
  return page;
}

async function use(page, { subscribe = '', publish = '' }) {
  if (!(await page.isVisible('#access-subscribe'))) await page.click('#access-open');
  await page.fill('#access-subscribe', subscribe);
  await page.fill('#access-publish', publish);
  await page.click('#access-use');
}

const count = (page, path) => page.asked.filter(({ url }) => new URL(url).pathname + new URL(url).search === path).length;
/** Waits for three seconds. The page reads /stats each second, unless it is refused. */
const threeTurns = (page) => page.evaluate(() => new Promise((resolve) => {
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
    if (turns < 3) return;
    clearInterval(timer);
    resolve();
  }, 1000);
}));

/** Checks that no token is shown, stored, or in an address, apart from the address of the EventSource. */
async function isNowhere(page, ...secrets) {
  const found = await page.evaluate(() => ({
    page: document.documentElement.outerHTML,
    text: document.body.innerText,
    address: location.href,
    history: JSON.stringify(history.state),
    local: JSON.stringify({ ...localStorage }),
    cookies: document.cookie,
    entries: performance.getEntries().map(({ name }) => name).join('\n'),
  }));
  const frames = page.asked.map(({ url, kind }) => `${kind} ${url}`);
  const native = /\?(?:\S*&)?token=[^&\s]+/;
  const isNative = (entry) => new URL(entry.split(' ').at(-1), page.url()).pathname === '/events' && /client_id=[^&]*\.native/.test(entry);
  for (const secret of secrets) {
    for (const written of [secret, encodeURIComponent(secret)]) {
      for (const [where, what] of Object.entries(found)) {
        const lines = what.split('\n').filter((entry) => entry.includes(written));
        const wrong = where === 'entries' ? lines.filter((entry) => !isNative(entry)) : lines;
        assert.deepEqual(wrong, [], `a token in ${where}`);
      }
      for (const frame of frames.filter((frame) => frame.includes(written))) {
        assert.match(frame, /^eventsource /);
        assert.match(frame, native);
        assert.ok(isNative(frame), frame);
      }
    }
  }
  for (const { url } of page.asked) assert.ok(url.startsWith(new URL('/', page.url()).href) || url.startsWith('data:'), `another origin: ${url}`);
}

test('without a token the page says which token is required and where to enter it, and sends no further requests', async (t) => {
  const { page } = await start(t);
  await says(page, '#outcome', /^A token is required to subscribe\. Enter it under “Tokens” at the top\. Enter a token$/);
  await says(page, '#client-state', 'CLOSED');
  await says(page, '#native-state', 'CLOSED');
  await says(page, '#server-line', /^127\.0\.0\.1:\d+ · the statistics require a token to subscribe to \* \(all topics\)$/);
  assert.ok(await page.isVisible('#access-subscribe'));
  await page.click('#outcome button');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'access-subscribe');
  for (const field of ['#access-subscribe', '#access-publish']) {
    assert.deepEqual([await page.getAttribute(field, 'type'), await page.getAttribute(field, 'autocomplete')], ['password', 'off']);
  }
  await until('the chart says that a token is needed', async () => (await text(page, '#chart-clients-now')) === 'needs a token');
  await threeTurns(page);
  assert.equal(count(page, '/stats'), 1);
  await page.click('#tab-clients');
  await says(page, '#clients-answer', /^A token is required to see the list of clients\. .*Enter a token$/);
  await threeTurns(page);
  // One more request of each kind, because opening the panel sends one.
  assert.ok(count(page, '/stats') <= 2 && count(page, '/stats?clients=1') === 1, JSON.stringify(page.asked.map(({ url }) => url)));
  await page.click('#clients-answer button');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'access-publish');

  const published = page.asked.length;
  await page.click('#tab-events');
  await page.click('#publish-send');
  await says(page, '#publish-answer', /^A token is required to publish\./);
  await page.click('#tab-compare');
  await page.click('#compare-start');
  await says(page, '#compare-answer', /^A token is required to subscribe\./);
  assert.ok(await page.isEnabled('#compare-start'));
  await page.click('#tab-feed');
  await says(page, '#panel-feed .use-state', /CLOSEDGET \/api\/feed\/liveA token is required to subscribe\./);
  await page.click('#tab-process');
  await says(page, '#panel-process .use-state', /^A token is required to subscribe\./);
  await page.click('#process-sample');
  await says(page, '#process-label', /^A token is required to publish\./);
  assert.ok(page.asked.length > published);
  assert.ok(page.asked.every(({ url, headers }) => !url.includes('token=') && !headers.authorization));
});

test('each token gives its rights, and the page says if a token is wrong', async (t) => {
  const { context, demo, page } = await start(t);
  await says(page, '#outcome', /^A token is required/);

  await t.test('a wrong token', async () => {
    await use(page, { subscribe: WRONG });
    await says(page, '#outcome', /^The server does not accept this token\. A different token is required to subscribe\. Change the token$/);
    assert.ok(await page.isVisible('#access-subscribe'), 'the field is visible again');
    await page.click('#publish-send');
    await says(page, '#publish-answer', /^The server does not accept this token\. A different token is required to publish/);
  });

  await t.test('a text that cannot be a token is not sent', async () => {
    const before = page.asked.length;
    await use(page, { subscribe: 'три слова' });
    assert.equal(await page.$eval('#access-subscribe', (field) => field.validity.patternMismatch), true);
    assert.ok(!page.asked.slice(before).some(({ headers }) => headers.authorization?.includes('%')));
  });

  await t.test('the token to subscribe, which is also used to publish', async () => {
    await use(page, { subscribe: ` ${SUBSCRIBE} ` });
    await isOpen(page);
    await says(page, '#outcome', /^The stream is open\.$/);
    await says(page, '#server-line', /· up .* clients · /);
    assert.equal(await page.isVisible('#access-subscribe'), false);
    await says(page, '#access-now', 'one');
    await page.fill('#publish-event', 'mine');
    await page.click('#publish-send');
    await says(page, '#publish-answer', /^403 the token in this request does not include the right to publish .*Change the token$/);
    await page.click('#tab-clients');
    await says(page, '#clients-answer', /^403 the token in this request does not include the right to see the clients.* Change the token$/);
    await says(page, '#stats-tiles', /^Clients2/);
    await page.click('#tab-compare');
    await page.click('#compare-start');
    await says(page, '#compare-answer', /^403 the token in this request does not include the right to publish to "console\/compare" Change the token$/);
    assert.ok(await page.isEnabled('#compare-start'), 'the comparison has stopped');
    await page.click('#tab-events');
    await page.click('#publish-answer button');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'access-publish');
  });

  await t.test('with both tokens everything works', async () => {
    await use(page, { subscribe: SUBSCRIBE, publish: PUBLISH });
    await isOpen(page);
    await says(page, '#access-now', 'two');
    await page.click('#publish-send');
    await says(page, '#publish-answer', /^200 · id \S+ · [1-9]\d* recipients/);
    await until('the event', () => page.$$eval('#events-rows .name', (names) => names.some(({ textContent }) => textContent === 'mine')));
    await until('the EventSource has events', async () => /^[1-9]/.test(await text(page, '#native-count')));
    await says(page, '#events-curl', `curl -d hello -H "Authorization: Bearer $TOKEN" ${demo.origin}/events`);
    await page.click('#events-raw');
    await says(page, '#raw-bytes', /^GET \/events\S+ HTTP\/1\.1\nAuthorization: Bearer …\n\nHTTP\/1\.1 200 .*event: system/s);
    await isNowhere(page, SUBSCRIBE, PUBLISH, WRONG);
    await page.click('#events-raw');
    await page.click('#tab-clients');
    const visitor = await fetch(`${demo.origin}/events?client_id=visitor`, { headers: { Authorization: `Bearer ${SUBSCRIBE}` } });
    await page.click('[aria-label="Kick visitor"]');
    await visitor.text(); // to its end
    await says(page, '#clients-answer', 'The stream of visitor was closed.');
    await page.click('#tab-compare');
    await compareAll(page);
    await page.click('#tab-chat');
    await page.fill('#chat-text', 'hello');
    await page.click('#chat-send');
    await says(page, '#chat-list li.mine .text', 'hello');
    await page.click('#tab-process');
    await page.click('#process-sample');
    await says(page, '#process-label', 'Finished sample.bin.');
    await isNowhere(page, SUBSCRIBE, PUBLISH, WRONG);
  });

  await t.test('the tokens survive a reload, are not in another tab, and are gone after Forget', async () => {
    await page.reload();
    await isOpen(page);
    await page.click('#tab-events');
    await page.click('#publish-send');
    await says(page, '#publish-answer', /^200 · /);
    const other = await tab(t, context, demo.origin);
    await says(other, '#outcome', /^A token is required/);
    await other.close();
    // A disconnected page stays disconnected. Resume uses the current tokens.
    await page.click('#cut');
    await page.click('#access-open');
    await page.click('#access-forget');
    await says(page, '#client-state', 'DISCONNECTED');
    assert.equal(await page.evaluate(() => JSON.stringify({ ...sessionStorage })), '{}');
    await page.click('#resume');
    await says(page, '#outcome', /^A token is required to subscribe\./);
    await use(page, { subscribe: SUBSCRIBE });
    await isOpen(page);
    await says(page, '#outcome', /^Resumed after \S+: /);
    await isNowhere(page, SUBSCRIBE, PUBLISH, WRONG);
  });
});

test('with only a token to publish the clients are listed, and the statistics are public', async (t) => {
  const { page } = await start(t, { options: ['--publish-token', PUBLISH] });
  await isOpen(page);
  await says(page, '#server-line', /· up /);
  await page.click('#tab-clients');
  await says(page, '#clients-answer', /^A token is required to see the list of clients/);
  await says(page, '#stats-tiles', /^Clients2/);
  await use(page, { publish: PUBLISH });
  await until('the clients are listed', () => page.$$eval('#clients-rows tr', (rows) => rows.length === 2));
  assert.equal(await text(page, '#clients-answer'), '');
  await isOpen(page);
  assert.ok(page.asked.every(({ url }) => !url.includes('token=')), 'no token is needed to subscribe');
  await isNowhere(page, PUBLISH);
});

test('only tabs with the same token share a connection', async (t) => {
  const { context, demo, page } = await start(t);
  const pages = [page, await tab(t, context, demo.origin)];
  const connections = () => demo.stats().then(({ clients }) => clients.filter(({ client_id: id }) => !id.endsWith('.native')).length);
  for (const each of pages) {
    await use(each, { subscribe: SUBSCRIBE });
    await says(each, '#client-state', 'OPEN');
    await each.check('#subscribe-shared');
    await each.click('#subscribe-send');
    await says(each, '#client-state', 'OPEN');
  }
  await until('one connection', async () => (await connections()) === 1);
  await use(pages[1], { subscribe: PUBLISH });
  // The server knows this token, but it grants only publishing. The tab must not get the events of the other tab.
  await says(pages[1], '#outcome', /^403 the token in this request does not include the right to subscribe to "\*"\. You can change the topics under “Subscribe”\. Change the token$/);
  await says(pages[1], '#client-state', 'CLOSED');
  await says(pages[0], '#client-state', 'OPEN');
  await isNowhere(pages[0], SUBSCRIBE, PUBLISH);
  const names = await pages[0].evaluate(async () => JSON.stringify(await navigator.locks.query()));
  assert.ok(/tiny-sse [0-9a-f]{64}/.test(names) && !names.includes(SUBSCRIBE), names);
});

for (const [size, width, height, scheme] of [['desktop', 1280, 900, 'light'], ['phone', 360, 740, 'dark']]) {
  test(`on a ${size} the fields for tokens fit`, async (t) => {
    const { page } = await start(t, { width, height, scheme });
    await says(page, '#outcome', /^A token is required/);
    await mkdir(SHOTS, { recursive: true });
    await page.screenshot({ path: `${SHOTS}/${size}-${scheme}-no-token.png` });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
    await use(page, { subscribe: SUBSCRIBE });
    await isOpen(page);
    await page.click('#tab-clients');
    await says(page, '#clients-answer', /^403/);
    await page.screenshot({ path: `${SHOTS}/${size}-${scheme}-half-a-token.png` });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
  });
}
