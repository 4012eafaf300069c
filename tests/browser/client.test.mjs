// The client against a server whose answers the tests choose: statuses, types, broken connections, silence. The tests
// need no browser, because Node has fetch too.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { SSEClient } from '../../src/console/sse-client.js';
import { numbers, until } from './kit.mjs';

const STREAM = { 'Content-Type': 'text/event-stream' };

/**
 * Starts a server that answers the first request with the first function, and so on; the last function answers all
 * further requests. Returns the URL and the list of requests.
 */
async function script(t, ...answers) {
  const requests = [];
  const server = createServer((request, response) => {
    const answer = answers[Math.min(requests.length, answers.length - 1)];
    requests.push({ url: request.url, headers: request.headers, at: performance.now() });
    answer(response, request);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}/events`, requests };
}

const status = (code, body = '', headers = {}) => (response) => response.writeHead(code, headers).end(body);
const ends = (text) => (response) => response.writeHead(200, STREAM).end(text);
const stays = (text) => (response) => response.writeHead(200, STREAM).write(text);
const cut = (text) => (response) => {
  response.writeHead(200, STREAM);
  response.write(text, () => response.destroy());
};

/**
 * Starts a client with short delays. Returns it with its events by type. It is disconnected at the end of the test.
 */
function client(t, url, options = {}) {
  const client = new SSEClient(url, { retry: 100, jitter: 0, ...options });
  const heard = { all: [], state: [], error: [], open: [], gap: [] };
  client.on('*', (data, event) => heard.all.push([event.type, data, event.id]));
  for (const type of ['state', 'error', 'open', 'gap']) client.on(type, (data) => heard[type].push(data));
  t.after(() => client.disconnect());
  return { client, heard };
}

test('the client has four states and reports each change once', async (t) => {
  const { url } = await script(t, stays('data:1\n\n'));
  const { client: own, heard } = client(t, url);
  assert.equal(own.state, 'DISCONNECTED');
  assert.equal(own.connect(), own);
  assert.equal(own.connect().state, 'CONNECTING');
  await until('an event', () => heard.all.length);
  assert.equal(own.state, 'OPEN');
  assert.equal(own.disconnect().disconnect().state, 'DISCONNECTED');
  assert.deepEqual(heard.state, ['CONNECTING', 'OPEN', 'DISCONNECTED']);
  assert.deepEqual([heard.open.length, heard.error.length], [1, 0]);
});

test('data is parsed if it is JSON, and else it is the text', async (t) => {
  const rows = ['{"a":[1,"ж"]}', '1', 'null', '"x"', 'x', '', '{', '01', 'a\ndata:b'];
  const { url } = await script(t, stays(rows.map((row) => `data:${row}\n\n`).join('')));
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('all rows', () => heard.all.length === rows.length);
  const data = heard.all.map(([, data]) => data);
  assert.deepEqual(data, [{ a: [1, 'ж'] }, 1, null, 'x', 'x', '', '{', '01', 'a\nb']);
});

test('handlers can be chained, added before and after connect, called once, and removed', async (t) => {
  let stream;
  const { url } = await script(t, (response) => {
    stream = response;
    stays('event:ready\ndata:\n\n')(response);
  });
  const { client: own, heard } = client(t, url);
  const calls = [];
  const note = (name) => (data) => calls.push(`${name}${data}`);
  const [twice, gone, all, onceGone] = [note('twice'), note('gone'), note('all'), note('onceGone')];
  own.on('message', twice).on('message', twice).once('message', note('once')).on('message', gone);
  own.once('message', onceGone).off('message', onceGone).off('nobody', gone).off('nothing').connect();
  await until('the stream', () => heard.all.length === 1);
  own.off('message', gone).on('message', note('late')).on('other', all).on('other', note('x')).off('other');
  stream.write('data:1\n\ndata:2\n\nevent:other\ndata:3\n\n');
  await until('all', () => heard.all.length === 4);
  assert.deepEqual(calls, ['twice1', 'once1', 'late1', 'twice2', 'late2']);
});

test('a handler that is removed before its turn is not called, and one that is added is called from the next event on', async (t) => {
  const { url } = await script(t, stays('data:1\n\ndata:2\n\n'));
  const { client: own, heard } = client(t, url);
  const calls = [];
  const [gone, added] = [() => calls.push('gone'), (data) => calls.push(`added${data}`)];
  own.once('message', () => own.off('message', gone).on('message', added)).on('message', gone).connect();
  await until('both', () => heard.all.length === 2);
  assert.deepEqual(calls, ['added2']);
});

test("an exception in a handler stops neither the other handlers nor the stream, and is reported", async (t) => {
  const { url } = await script(t, stays('data:1\n\ndata:2\n\n'));
  const { client: own, heard } = client(t, url);
  const reported = t.mock.method(console, 'error', () => {});
  const calls = [];
  own.on('message', () => {
    throw new Error('a bug of the page');
  });
  own.on('message', (data) => calls.push(data)).connect();
  await until('both', () => heard.all.length === 2);
  assert.deepEqual([calls, heard.error, own.state], [[1, 2], [], 'OPEN']);
  assert.deepEqual(
    reported.mock.calls.map(({ arguments: [error] }) => error.message),
    ['a bug of the page', 'a bug of the page'],
  );
});

test('after disconnect in a handler no further event is delivered, and the cursor is kept', async (t) => {
  const { url, requests } = await script(t, stays('id:1\ndata:1\n\nid:2\ndata:2\n\n'), stays('id:2\ndata:2\n\n'));
  const { client: own, heard } = client(t, url);
  own.once('message', () => own.disconnect()).connect();
  await until('one', () => own.state === 'DISCONNECTED');
  assert.equal(own.lastEventId, '1');
  own.connect();
  await until('the other', () => heard.all.length === 2);
  assert.deepEqual(heard.all, [['message', 1, '1'], ['message', 2, '2']]);
  assert.equal(requests[1].headers['last-event-id'], '1');
});

test('the client does not reconnect after the statuses of giveUpOn', async (t) => {
  for (const code of [204, 401, 403, 404, 410]) {
    const { url, requests } = await script(t, status(code, code === 204 ? '' : '{"error":"the reason"}', { 'Content-Type': 'application/json' }));
    const { client: own, heard } = client(t, url);
    own.connect();
    await until(`${code}: the end`, () => own.state === 'CLOSED');
    const [error] = heard.error;
    assert.deepEqual([error.kind, error.status, error.final, error.retryIn], ['status', code, true, undefined]);
    if (code !== 204) assert.match(error.message, /the reason$/);
    assert.deepEqual(heard.state, ['CONNECTING', 'CLOSED']);
    own.connect();
    await until(`${code}: connect() tries again`, () => requests.length === 2);
  }
});

const closed = (reason) => `event:system\nretry:100\ndata:{"type":"closed","reason":"${reason}"}\n\n`;

test('a client that is replaced or kicked stays closed and has the reason', async (t) => {
  for (const [reason, answer] of [
    ['replaced', ends],
    ['kicked', cut],
    ['kicked', stays], // a proxy in between keeps the stream open
  ]) {
    const { url, requests } = await script(t, answer(`id:7\ndata:1\n\n${closed(reason)}`), stays('data:2\n\n'));
    const { client: own, heard } = client(t, url, { silence: 0 });
    own.connect();
    await until(`${reason}: the end`, () => own.state === 'CLOSED');
    const [error] = heard.error;
    assert.deepEqual([error.kind, error.reason, error.final, error.retryIn], ['end', reason, true, undefined]);
    assert.match(error.message, reason === 'replaced' ? /same client_id$/ : /closed on request$/);
    assert.deepEqual([heard.error.length, heard.state], [1, ['CONNECTING', 'OPEN', 'CLOSED']]);
    assert.deepEqual(heard.all.at(-1), ['system', { type: 'closed', reason }, '7']);
    assert.equal(requests.length, 1);
    own.connect();
    await until(`${reason}: connect() tries again`, () => heard.all.length === 3);
    assert.equal(requests[1].headers['last-event-id'], '7');
  }
});

test('after any other end the client reconnects and has the reason', async (t) => {
  for (const reason of ['closing', 'expired', 'ended', 'something new']) {
    const { url } = await script(t, ends(closed(reason)), stays('data:2\n\n'));
    const { client: own, heard } = client(t, url);
    own.connect();
    await until(`${reason}: the return`, () => heard.all.length === 2);
    const [error] = heard.error;
    assert.deepEqual([error.kind, error.reason, error.final, error.retryIn], ['end', reason, false, 100]);
  }
  // Events that only resemble a close event.
  const feigned = 'event:closed\ndata:{"type":"closed","reason":"kicked"}\n\nevent:system\ndata:null\n\nevent:system\ndata:{"type":"connected"}\n\n';
  const { url } = await script(t, ends(feigned), stays('data:2\n\n'));
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('the return', () => heard.all.length === 4);
  assert.deepEqual([heard.error[0].kind, heard.error[0].reason, heard.error[0].final], ['end', undefined, false]);
});

test('the client reconnects after answers that end an EventSource', async (t) => {
  const rows = [
    ...[400, 408, 409, 429, 431, 500, 501, 502, 503, 504].map((code) => [status(code), 'status']),
    [status(200, '<!doctype html>', { 'Content-Type': 'text/html' }), 'type'],
    [status(200, 'data:0\n\n', {}), 'type'],
    [status(200, 'data:0\n\n', { 'Content-Type': 'text/event-streams' }), 'type'],
    [(response) => response.destroy(), 'network'],
    [ends(''), 'end'],
    [cut(':\n'), 'network'],
  ];
  await Promise.all(
    rows.map(async ([answer, kind], number) => {
      const { url } = await script(t, answer, stays('data:1\n\n'));
      const { client: own, heard } = client(t, url);
      own.connect();
      await until(`row ${number}`, () => heard.all.length === 1);
      assert.deepEqual(heard.all, [['message', 1, '']], `row ${number}`);
      const [error] = heard.error;
      assert.deepEqual([error.kind, error.final, error.retryIn], [kind, false, 100], `row ${number}`);
    }),
  );
});

test('a content type with parameters is accepted', async (t) => {
  const { url } = await script(t, status(200, 'data:1\n\n', { 'Content-Type': 'Text/Event-Stream ; charset=utf-8' }));
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('an event', () => heard.all.length);
});

test('each reconnect resumes after the last complete event, not after the last id line', async (t) => {
  const { url, requests } = await script(
    t,
    cut('id:a\ndata:1\n\nid:b\ndata:lost'),
    ends('id:b\ndata:2\n\ndata:3\n\nid:c\n\n'),
    ends('data:4\n\nid:ключ\ndata:5\n\n'),
    stays('id\ndata:6\n\n'),
  );
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('all', () => heard.all.length === 6);
  assert.deepEqual(heard.all.map(([, data, id]) => [data, id]), [[1, 'a'], [2, 'b'], [3, 'b'], [4, 'c'], [5, 'ключ'], [6, '']]);
  const cursors = requests.map(({ headers }) => headers['last-event-id']);
  const asUtf8 = Buffer.from('ключ').toString('latin1');
  assert.deepEqual(cursors, [undefined, 'a', 'c', asUtf8]);
  assert.equal(own.lastEventId, '');
});

test('the request has the first cursor, the headers and the parameter for heartbeats', async (t) => {
  const { url, requests } = await script(t, stays(''));
  const headers = { Authorization: 'Bearer x' };
  const rows = [
    [url, { lastEventId: '7', headers }, '/events?heartbeat=event', '7', 'Bearer x'],
    [`${url}?topic=a/*&topic=b+c`, {}, '/events?topic=a/*&topic=b+c&heartbeat=event', undefined, undefined],
    [`${url}?heartbeat=comment`, { headers: undefined }, '/events?heartbeat=comment', undefined, undefined],
    [url, { heartbeat: false }, '/events', undefined, undefined],
  ];
  for (const [number, [target, options, path, cursor, authorization]] of rows.entries()) {
    client(t, target, options).client.connect();
    await until('the request', () => requests.length === number + 1);
    const { url: got, headers } = requests[number];
    assert.deepEqual([got, headers['last-event-id'], headers.authorization], [path, cursor, authorization]);
    assert.equal(headers.accept, 'text/event-stream');
  }
});

test('the token function is called before each connection, and its token replaces an Authorization header', async (t) => {
  const { url, requests } = await script(t, ends(''), ends(''), stays('data:1\n\n'));
  let asked = 0;
  const token = async () => `token-${(asked += 1)}`;
  client(t, url, { token, headers: { authorization: 'Basic x', 'X-Own': 'y' } }).client.connect();
  await until('three requests', () => requests.length === 3);
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ['Bearer token-1', 'Bearer token-2', 'Bearer token-3']);
  assert.ok(requests.every(({ url, headers }) => !url.includes('token') && headers['x-own'] === 'y'));
  for (const [token, sent] of [['a.b~c/d==', 'Bearer a.b~c/d=='], ['', undefined], [() => 'now', 'Bearer now'], [() => undefined, undefined], [undefined, undefined], [null, undefined]]) {
    const { url, requests } = await script(t, stays('data:1\n\n'));
    client(t, url, { token }).client.connect();
    await until('the request', () => requests.length === 1);
    assert.equal(requests[0].headers.authorization, sent);
  }
});

test('if the token function fails it is called again later, and no request is sent without a token', async (t) => {
  const { url, requests } = await script(t, stays('data:1\n\n'));
  const answers = [
    () => { throw new Error('not logged in'); },
    () => Promise.reject(new Error('offline')),
    () => 'line\r\nbreak',
    () => 'секрет',
    () => new Promise(() => {}),
    () => 'good',
  ];
  const { client: own, heard } = client(t, url, { token: () => answers.shift()(), silence: 300, maxDelay: 100 });
  own.connect();
  await until('an event', () => heard.all.length);
  assert.deepEqual(heard.error.map(({ kind, final, message }) => [kind, final, message]), [
    ['token', false, 'the function for the token failed: Error: not logged in'],
    ['token', false, 'the function for the token failed: Error: offline'],
    ['token', false, 'the token has characters that a header field cannot contain'],
    ['token', false, 'the token has characters that a header field cannot contain'],
    ['silence', false, 'no byte arrived for 300 ms'],
  ]);
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ['Bearer good']);
});

test('a client that is disconnected while it waits for a token sends no request', async (t) => {
  const { url, requests } = await script(t, stays('data:1\n\n'));
  let give;
  const { client: own, heard } = client(t, url, { token: () => new Promise((resolve) => (give = resolve)) });
  own.connect();
  await until('it is asked for', () => give);
  own.disconnect();
  give('late');
  const other = client(t, url);
  other.client.connect();
  await until('the other', () => other.heard.all.length);
  assert.deepEqual([requests.length, heard.state, heard.error], [1, ['CONNECTING', 'DISCONNECTED'], []]);
});

test('delays double from the value of the server up to a limit, and start again after an event', async (t) => {
  const no = status(500);
  const { url } = await script(t, ends('retry:150\ndata:1\n\n'), no, no, no, ends('data:2\n\n'), stays('data:3\n\n'));
  const { client: own, heard } = client(t, url, { maxDelay: 500 });
  own.connect();
  await until('all', () => heard.all.length === 3);
  assert.deepEqual(heard.error.map(({ retryIn }) => retryIn), [150, 300, 500, 500, 150]);
});

test('a delay is never shorter than retryIn, jitter only adds to it, and Retry-After and retry may exceed the limit', async (t) => {
  const rows = [
    [ends('retry:700\n\n'), { maxDelay: 200, jitter: 0 }, 700, 700],
    [status(503, '', { 'Retry-After': '1' }), { maxDelay: 200, jitter: 0 }, 1000, 1000],
    [ends('retry:400\n\n'), { jitter: 0.5 }, 400, 600],
    [ends('retry:0\n\n'), { jitter: 0 }, 100, 100],
    [ends('retry:99999999999999999999\n\n'), { jitter: 0 }, 2 ** 31 - 1, 2 ** 31 - 1],
  ];
  await Promise.all(
    rows.map(async ([answer, options, least, most]) => {
      const { url, requests } = await script(t, answer, stays('data:1\n\n'));
      const { client: own, heard } = client(t, url, options);
      own.connect();
      await until('an error', () => heard.error.length);
      const { retryIn } = heard.error[0];
      assert.ok(retryIn >= least && retryIn <= most, `${retryIn} is not of ${least} to ${most}`);
      if (most > 2000) return;
      await until('the return', () => requests.length === 2);
      // A timer may fire a millisecond early.
      assert.ok(requests[1].at - requests[0].at > retryIn - 2);
    }),
  );
});

test('silence in a stream, in a head and in a body is noticed, and any byte ends the silence', async (t) => {
  const silent = () => {};
  const chatty = (response) => {
    response.writeHead(200, STREAM);
    const beat = setInterval(() => response.write(':\n'), 50);
    response.on('close', () => clearInterval(beat));
    setTimeout(() => response.write('data:1\n\n'), 1500);
  };
  const { url, requests } = await script(t, stays('data:0\n\n'), silent, chatty);
  const { client: own, heard } = client(t, url, { silence: 500 });
  own.connect();
  await until('the last event', () => heard.all.length === 2);
  assert.deepEqual(heard.error.map(({ kind }) => kind), ['silence', 'silence']);
  assert.equal(requests.length, 3);
});

test('with silence 0 the client waits for ever', async (t) => {
  const late = (response) => setTimeout(() => stays('data:1\n\n')(response), 700);
  const { url } = await script(t, late);
  const { client: own, heard } = client(t, url, { silence: 0 });
  own.connect();
  await until('an event', () => heard.all.length);
  assert.deepEqual(heard.error, []);
});

test('a gap is reported, a complete recovery is no gap, and server events with names of the client go only to *', async (t) => {
  const { url } = await script(
    t,
    stays(
      'event:recovery\ndata:{"replayed":2,"complete":true}\n\n' +
        'event:recovery\ndata:{"complete":false,"reason":"evicted"}\n\n' +
        'event:recovery\ndata:null\n\n' +
        ['gap', 'error', 'state', 'open'].map((type) => `event:${type}\ndata:feigned\n\n`).join(''),
    ),
  );
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('all', () => heard.all.length === 7);
  assert.deepEqual(heard.gap, [{ complete: false, reason: 'evicted' }]);
  assert.deepEqual([heard.error, heard.open, heard.state], [[], [undefined], ['CONNECTING', 'OPEN']]);
});

test('many events in one chunk, and one event of a mebibyte, are delivered', async (t) => {
  const big = '😀'.repeat(1 << 18);
  const { url } = await script(t, stays(numbers(1, 5000).map((n) => `data:${n}\n\n`).join('') + `data:${big}\n\n`));
  const { client: own, heard } = client(t, url);
  own.connect();
  await until('all', () => heard.all.length === 5001);
  assert.deepEqual(heard.all.map(([, data]) => data), [...numbers(1, 5000), big]);
});

test('a token is renewed before its end, without an error, and the stream resumes', async (t) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const tokenOf = (life) => `${encode({ alg: 'HS256' })}.${encode({ exp: Date.now() / 1000 + life, sub: 'ж' })}.c2ln`;
  const { url, requests } = await script(t, stays('id:1\ndata:1\n\n'), stays('id:2\ndata:2\n\n'));
  const tokens = [];
  const token = async () => {
    // The first token ends soon, the second one does not.
    tokens.push(tokenOf(tokens.length === 0 ? 2 : 3600));
    return tokens.at(-1);
  };
  const { client: own, heard } = client(t, url, { token });
  own.connect();
  await until('the second stream', () => heard.all.length === 2);
  assert.deepEqual(heard.all.map(([, data]) => data), [1, 2]);
  assert.deepEqual(heard.error, []);
  assert.deepEqual(heard.state, ['CONNECTING', 'OPEN', 'CONNECTING', 'OPEN']);
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), tokens.map((text) => `Bearer ${text}`));
  assert.equal(requests[1].headers['last-event-id'], '1');
  // At nine tenths of the life of 2 s.
  const pause = requests[1].at - requests[0].at;
  assert.ok(pause > 1000 && pause < 2000, `${pause} ms`);
});

test('a token without an end, or of another kind, is not renewed', async (t) => {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const connect = async (token) => {
    const { url, requests } = await script(t, stays('data:1\n\n'));
    client(t, url, { token: () => token }).client.connect();
    return requests;
  };
  const payloads = [{ exp: 'soon' }, null, {}, { exp: Date.now() / 1000 + 10_000_000 }];
  const tokens = ['secret', 'a.b.c', ...payloads.map((payload) => `a.${encode(payload)}.c`)];
  const others = await Promise.all(tokens.map(connect));
  // A token that has ended is renewed after the shortest time, which is then over for the others too.
  const ended = await connect(`a.${encode({ exp: 0 })}.c`);
  await until('the second request', () => ended.length === 2);
  assert.deepEqual(others.map((requests) => requests.length), others.map(() => 1));
});
