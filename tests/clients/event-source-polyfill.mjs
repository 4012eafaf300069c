// npm `event-source-polyfill`: reconnects by itself, with the query parameter lastEventId.
import polyfill from 'event-source-polyfill';
import { names, print, url } from './kit.mjs';

const source = new polyfill.EventSourcePolyfill(url);
for (const name of names) {
  source.addEventListener(name, event => print(event.type, event.data, event.lastEventId));
}
