// npm `@microsoft/fetch-event-source`: reconnects by itself, with the header last-event-id. It is made for
// pages, and asks the window for `fetch` and timers.
globalThis.window = globalThis;
const { fetchEventSource } = await import('@microsoft/fetch-event-source');
const { print, url } = await import('./kit.mjs');

await fetchEventSource(url, {
  openWhenHidden: true,
  // It hands over everything that an empty line ends, with or without data.
  onmessage: message => print(message.event || 'message', message.data, message.id),
  // By default only what is not an error of the network is final.
  onerror() {},
});
