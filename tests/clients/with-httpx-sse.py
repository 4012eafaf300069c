"""PyPI `httpx-sse`: reads one response. Its documentation shows how to reconnect with Last-Event-ID."""

import httpx
from httpx_sse import connect_sse

from kit import pause, show, url

last_event_id = ""
with httpx.Client(timeout=None) as client:
    while True:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    last_event_id = event.id
                    show(event.event, event.data, event.id)
        except httpx.TransportError:
            pass
        pause()
