// A page with real React in StrictMode that shows one stream. The tests control it through `window`: `show(props)`
// renders, `show(null)` unmounts, and the tests read the other variables.

import React, { StrictMode, createElement, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { useSSE } from '../../src/console/use-sse.js';

const seen = { renders: [], events: [], settings: 0 };

// Counts the state updates. Current versions of React do not warn about an update after unmounting.
const original = React.useState;
React.useState = (initial) => {
  const [value, set] = original(initial);
  const counted = React.useCallback((next) => {
    seen.settings += 1;
    set(next);
  }, [set]);
  return [value, counted];
};

function Stream({ url, options }) {
  const { connect, disconnect, ...view } = useSSE(url, { ...options, onEvent: (data) => seen.events.push(data) });
  seen.renders.push({ url, ...view });
  Object.assign(window, { connect, disconnect, view });
  return createElement('output', null, JSON.stringify(view));
}

function App() {
  const [props, setProps] = useState(null);
  window.show = setProps;
  return props && createElement(Stream, props);
}

window.seen = seen;
createRoot(document.getElementById('root')).render(createElement(StrictMode, null, createElement(App)));
