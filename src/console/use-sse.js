/**
 * A stream of Server-Sent Events as a React hook, over `sse-client.js` beside it.
 *
 *     const { data, error, isConnected } = useSSE('/events/prices', { event: 'price_update' });
 *
 * It imports React by its bare name, as everything in a React project does; a page without a bundler
 * says in an import map where that is. React 18 or newer.
 *
 * A render shows the latest state, and React joins what happens in one go: of ten events in one
 * packet, a component may see the last. Who needs each one gives `onEvent`.
 *
 * @module
 */

import { useCallback, useEffect, useRef, useState } from 'react';
import { SSEClient } from './sse-client.js';

/** @typedef {import('./sse-client.js').Options} Options */
/** @typedef {import('./sse-client.js').Problem} Problem */
/** @typedef {import('./sse-client.js').Handler} Handler */

/**
 * @typedef {object} HookOptions
 * @property {string} [event] the type of the events to show; `*` is all [message]
 * @property {Handler} [onEvent] called for each of them; may be another function at each render
 * @property {boolean} [manual] wait for `connect()` [false]
 */

/**
 * @typedef {object} View
 * @property {any} data of the latest event; `null` before the first
 * @property {Problem | null} error why there is no stream; `null` while there is one
 * @property {boolean} isConnected
 * @property {string} lastEventId
 */

/** @type {View} */
const NOTHING = Object.freeze({ data: null, error: null, isConnected: false, lastEventId: '' });

/**
 * Connects when the component is there, and disconnects when it goes. Another URL, or an option
 * with another value, is another stream, which begins with nothing; that the object of the options,
 * or the function that gives the token, is another one does not matter.
 *
 * Under StrictMode, React sets everything up twice: the first connection is given up at once.
 *
 * @param {string | URL | null} url `null`: none for the time being
 * @param {Options & HookOptions} [options]
 * @returns {View & { connect: () => void, disconnect: () => void }}
 */
export function useSSE(url, options = {}) {
  const { onEvent, event = 'message', manual = false, ...rest } = options;
  const { token } = rest;
  // A function is not in it: what it gives may change while the stream lasts.
  const key = JSON.stringify([url, event, manual, typeof token, rest]);
  const [shown, setShown] = useState({ key, view: NOTHING });
  const client = useRef(/** @type {SSEClient | null} */ (null));
  const latestOnEvent = useRef(onEvent);
  const latestToken = useRef(token);
  useEffect(() => {
    latestOnEvent.current = onEvent;
    latestToken.current = token;
  });

  useEffect(() => {
    // Back to an earlier stream, its old view must not come up again.
    setShown((before) => {
      const isBlank = before.key === key && before.view === NOTHING;
      return isBlank ? before : { key, view: NOTHING };
    });
    if (url === null) return undefined;
    const asked = () => Object(latestToken.current)();
    const own = new SSEClient(url, { ...rest, token: typeof token === 'function' ? asked : token });
    client.current = own;
    const stopWatching = watch(own, event, (change) => {
      setShown((before) => {
        const view = before.key === key ? before.view : NOTHING;
        return { key, view: { ...view, lastEventId: own.lastEventId, ...change } };
      });
    });
    own.on(event, (data, sseEvent) => latestOnEvent.current?.(data, sseEvent));
    if (!manual) own.connect();
    return () => {
      // ORDER: first deaf, then gone. To disconnect changes the state, which nobody is to show.
      stopWatching();
      own.disconnect();
      client.current = null;
    };
    // The key stands for all that the stream depends on.
  }, [key]);

  const connect = useCallback(() => void client.current?.connect(), []);
  const disconnect = useCallback(() => void client.current?.disconnect(), []);
  // What is shown of another stream is not of this one: not even for one render.
  const view = shown.key === key ? shown.view : NOTHING;
  return { ...view, connect, disconnect };
}

/**
 * Tells what changes, until the function that it answers is called.
 * @param {SSEClient} client
 * @param {string} type
 * @param {(change: Partial<View>) => void} tell
 */
function watch(client, type, tell) {
  /** @type {[string, Handler][]} */
  const handlers = [
    [type, (data) => tell({ data })],
    ['state', (state) => tell({ isConnected: state === 'OPEN' })],
    ['open', () => tell({ error: null })],
    ['error', (error) => tell({ error })],
  ];
  for (const [name, handler] of handlers) client.on(name, handler);
  return () => {
    for (const [name, handler] of handlers) client.off(name, handler);
  };
}
