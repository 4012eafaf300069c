// npm `eventsource`: reconnects by itself, with the header Last-Event-ID.
import { EventSource } from 'eventsource';
import { names, print, url } from './kit.mjs';

const source = new EventSource(url);
for (const name of names) {
  source.addEventListener(name, event => print(event.type, event.data, event.lastEventId));
}
