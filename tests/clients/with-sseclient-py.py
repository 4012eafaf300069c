"""PyPI `sseclient-py`: reads one response, here of `requests`. Reconnecting is left to its user."""

import requests
import sseclient

from kit import pause, show, url

last_event_id = None
while True:
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    try:
        response = requests.get(url, stream=True, headers=headers)
        for event in sseclient.SSEClient(response).events():
            last_event_id = event.id or last_event_id
            show(event.event, event.data, event.id)
    except requests.RequestException:
        pass
    pause()
