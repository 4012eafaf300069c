"""PyPI `sseclient`: reconnects by itself, with the header Last-Event-ID, but raises an exception if the
server is not back by then. It decodes what `requests` makes of the Content-Type."""

import requests
from sseclient import SSEClient

from kit import pause, show, url

last_event_id = None
while True:
    try:
        for event in SSEClient(url, last_id=last_event_id):
            last_event_id = event.id or last_event_id
            show(event.event, event.data, event.id)
    except requests.RequestException:
        pass
    pause()
