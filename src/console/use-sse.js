/**
 * A React hook that turns a stream of Server-Sent Events into the state of a component. It uses `sse-client.js` from
 * the same folder.
 *
 *     const { data, error, isConnected } = useSSE('/events/prices', { event: 'price_update' });
 *
 * It imports `react`, version 18 or newer. A page without a bundler needs an import map that says where React is.
 *
 * A render shows the latest event. React combines state changes that happen together, so if ten events arrive in one
 * packet, a component may see only the last of them. For a call with every event use `onEvent`.
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
 * @property {string} [event] the type of the events to show; `*` shows all [message]
 * @property {Handler} [onEvent] called for each of these events; may be a different function at each render
 * @property {boolean} [manual] whether to connect only when `connect()` is called [false]
 */

/**
 * @typedef {object} View
 * @property {any} data the data of the latest event; `null` before the first
 * @property {Problem | null} error why there is no stream; `null` while there is one
 * @property {boolean} isConnected
 * @property {string} lastEventId
 */

/** @type {View} */
const NOTHING = Object.freeze({ data: null, error: null, isConnected: false, lastEventId: '' });

/**
 * Connects when the component is mounted, and disconnects when it is unmounted. If the URL or the value of an option
 * changes, the hook opens a new stream and begins without data. A new options object with the same values changes
 * nothing, and neither does a new `token` function.
 *
 * In StrictMode React mounts a component twice during development, so the first connection is closed at once.
 *
 * @param {string | URL | null} url `null`: no stream for now
 * @param {Options & HookOptions} [options]
 * @returns {View & { connect: () => void, disconnect: () => void }}
 */
export function useSSE(url, options = {}) {
  const { onEvent, event = 'message', manual = false, ...rest } = options;
  const { token } = rest;
  // The key changes when a different stream is needed. JSON leaves out functions, so a new `token` function is no
  // change.
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
    // If the key returns to an earlier value, the old data must not appear again.
    setShown((before) => {
      const isBlank = before.key === key && before.view === NOTHING;
      return isBlank ? before : { key, view: NOTHING };
    });
    if (url === null) return undefined;
    const callLatestToken = () => Object(latestToken.current)();
    const own = new SSEClient(url, { ...rest, token: typeof token === 'function' ? callLatestToken : token });
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
      // ORDER: the handlers are removed first, because `disconnect` changes the state, and this component is
      // unmounted.
      stopWatching();
      own.disconnect();
      client.current = null;
    };
    // The key contains everything that the stream depends on.
  }, [key]);

  const connect = useCallback(() => void client.current?.connect(), []);
  const disconnect = useCallback(() => void client.current?.disconnect(), []);
  // The data of the previous stream is not shown for this one, not even in one render.
  const view = shown.key === key ? shown.view : NOTHING;
  return { ...view, connect, disconnect };
}

/**
 * Calls `onChange` with each change, until the returned function is called.
 * @param {SSEClient} client
 * @param {string} type
 * @param {(change: Partial<View>) => void} onChange
 */
function watch(client, type, onChange) {
  /** @type {[string, Handler][]} */
  const handlers = [
    [type, (data) => onChange({ data })],
    ['state', (state) => onChange({ isConnected: state === 'OPEN' })],
    ['open', () => onChange({ error: null })],
    ['error', (error) => onChange({ error })],
  ];
  for (const [name, handler] of handlers) client.on(name, handler);
  return () => {
    for (const [name, handler] of handlers) client.off(name, handler);
  };
}
