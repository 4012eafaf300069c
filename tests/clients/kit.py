"""What the drivers share: each prints what its client dispatches, one JSON array a line."""

import json
import sys
import time

url = sys.argv[1]
# A client may print by itself.
_out, sys.stdout = sys.stdout, sys.stderr


def show(name, data, id):
    line = json.dumps([name, data, id], ensure_ascii=False, separators=(",", ":"))
    _out.buffer.write(line.encode() + b"\n")
    _out.buffer.flush()


def pause():
    """Before the next attempt to connect."""
    time.sleep(0.1)
