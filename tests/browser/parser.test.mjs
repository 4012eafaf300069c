// The format: which events a page gets from the bytes of a stream, however the network splits them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventStreamParser } from '../../src/console/sse-client.js';

const bytes = (text) => (typeof text === 'string' ? new TextEncoder().encode(text) : Uint8Array.from(text));

/** Returns what a parser reports for these parts: events, cursors and retry values, in one list. */
function parse(parts, lastEventId) {
  const told = [];
  const sink = {
    event: ({ type, data, id, hasOwnId }) => told.push([type, data, id, hasOwnId]),
    cursor: (id) => told.push(['cursor', id]),
    retry: (milliseconds) => told.push(['retry', milliseconds]),
  };
  const parser = new EventStreamParser(sink, lastEventId);
  for (const part of parts) parser.feed(part);
  return told;
}

const message = (data, id = '', hasOwnId = id !== '') => ['message', data, id, hasOwnId];

// Bytes and the expected events: the examples of HTML, 9.2.6, the cases `format-*` and `event-data` of the Web
// Platform Tests, and further cases.
const TABLE = [
  ['the first example of the standard', 'data: YHOO\ndata: +2\ndata: 10\n\n', [message('YHOO\n+2\n10')]],
  [
    'the second: a comment, an id, an id taken back, a space kept',
    ': test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n',
    [message('first event', '1'), message('second event', '', true), message(' third event')],
  ],
  ['the third: empty data twice, and an event that is cut off', 'data\n\ndata\ndata\n\ndata:', [message(''), message('\n')]],
  ['the fourth: the space is one only if it is there', 'data:test\n\ndata: test\n\n', [message('test'), message('test')]],
  ['all three ends of a line', 'data:a\rdata:b\r\ndata:c\n\r\n', [message('a\nb\nc')]],
  ['CR CR is an empty line', 'data:a\r\rdata:b\r\r', [message('a'), message('b')]],
  ['CRLF CRLF is one', 'data:a\r\n\r\ndata:b\r\n\r\n', [message('a'), message('b')]],
  ['LF CR is two ends', 'data:a\n\rdata:b\n\r', [message('a'), message('b')]],
  ['one BOM is dropped', '\uFEFFdata:a\n\n', [message('a')]],
  ['a second is part of the name', '\uFEFF\uFEFFdata:a\n\ndata:b\n\n', [message('b')]],
  ['a BOM within is kept', 'data:\uFEFFa\n\n', [message('\uFEFFa')]],
  ['a BOM before a later line is part of its name', 'data:a\n\uFEFFdata:b\n\n', [message('a')]],
  ['comments', ':\n:data:a\n: heartbeat\n\ndata:b\n:\n\n', [message('b')]],
  ['a name alone has an empty value', 'data\ndata:\ndata: \n\n', [message('\n\n')]],
  ['one space goes, a tab stays', 'data:  a\ndata:\tb\n\n', [message(' a\n\tb')]],
  ['names are exact', ' data:a\nData:b\ndata :c\nxdata:d\ndata:e\n\n', [message('e')]],
  ['a colon in the value', 'data:a:b: c\n\n', [message('a:b: c')]],
  ['no data, no event, and its type is forgotten', 'event:x\n\ndata:a\n\n', [message('a')]],
  ['a type', 'event:greeting\ndata:a\n\ndata:b\n\n', [['greeting', 'a', '', false], message('b')]],
  ['the last type counts, an empty one is none', 'event:x\nevent:\ndata:a\n\nevent: x\nevent:y\ndata:a\n\n', [message('a'), ['y', 'a', '', false]]],
  ['an id stays', 'id: 7\ndata:a\n\ndata:b\n\n', [message('a', '7'), message('b', '7', false)]],
  ['an id without data moves the cursor', 'id: 7\n\ndata:a\n\n', [['cursor', '7'], message('a', '7', false)]],
  ['an id with a NUL is ignored', 'id: 7\ndata:a\n\nid: 8\0\ndata:b\n\n', [message('a', '7'), message('b', '7', false)]],
  ['an id that is no ASCII', 'id: ключ…\ndata:a\n\n', [message('a', 'ключ…')]],
  ['an id that is cut off does not count', 'id: 7\ndata:a\n\nid: 8\ndata:b\n', [message('a', '7')]],
  ['NUL in data is data', 'data:a\0b\n\n', [message('a\0b')]],
  ['retry', 'retry: 1500\n\n', [['retry', 1500]]],
  ['retry counts at once, without an event', 'retry:3\ndata:a', [['retry', 3]]],
  ['retry is digits and nothing else', 'retry:1a\nretry:-1\nretry:1.5\nretry: 1 \nretry:\nretry\nretry:+1\nretry:1e3\nretry:٣\ndata:a\n\n', [message('a')]],
  ['UTF-8 of two, three and four bytes', 'data:ж…😀\n\n', [message('ж…😀')]],
  ['what is no UTF-8', [...bytes('data:a'), 0xff, 0xc3, ...bytes('b'), 0xf0, 0x9f, ...bytes('\n\n')], [message('a\uFFFD\uFFFDb\uFFFD')]],
  ['other ends of a line are none', 'data:a\u2028b\u0085c\vd\fe\n\n', [message('a\u2028b\u0085c\vd\fe')]],
  ['nothing at all', '', []],
];

test('each row of the table in one part', () => {
  for (const [name, stream, expected] of TABLE) {
    assert.deepEqual(parse([bytes(stream)]), expected, name);
  }
});

test('each row of the table, split at every byte and at every two bytes', () => {
  for (const [name, stream, expected] of TABLE) {
    const all = bytes(stream);
    for (let one = 0; one <= all.length; one += 1) {
      for (let two = one; two <= all.length; two += 1) {
        const parts = [all.subarray(0, one), all.subarray(one, two), all.subarray(two)];
        assert.deepEqual(parse(parts), expected, `${name}, cut at ${one} and ${two}`);
      }
    }
  }
});

test('each row of the table, byte by byte', () => {
  for (const [name, stream, expected] of TABLE) {
    const parts = Array.from(bytes(stream), (byte) => Uint8Array.of(byte));
    assert.deepEqual(parse(parts), expected, name);
  }
});

test('an event is reported at the CR that ends it, not at the next byte', () => {
  assert.deepEqual(parse([bytes('data:a\r\r')]), [message('a')]);
  assert.deepEqual(parse([bytes('data:a\r\n\r')]), [message('a')]);
});

test('the cursor of an earlier stream is kept if the new stream sends no id', () => {
  assert.deepEqual(parse([bytes('data:a\n\n')], '7'), [message('a', '7', false)]);
});

test('the time for a mebibyte in small parts is proportional to its length', () => {
  const long = 'ж'.repeat(1 << 19);
  const all = bytes(`data:${long}\n\n`);
  const parts = [];
  for (let at = 0; at < all.length; at += 1021) parts.push(all.subarray(at, at + 1021));
  assert.deepEqual(parse(parts), [message(long)]);
});
