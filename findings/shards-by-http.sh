#!/usr/bin/env bash
# A whole, sharded OME-Zarr looks damaged, or is refused, on web servers that serve an unsharded one without complaint.
#
# Guess:   what reads over http with zarr and fsspec reads sharded, too, as long as the server gives the files; one that
#          cannot give parts of files would be told so.
# Seen:    for a part of a shard its index is asked for first, the file's last bytes ("bytes=-260"). A server that
#          ignores ranges (Python's own) sends the whole file and 200, fsspec hands that on, and zarr takes it for the
#          index: "Stored and computed checksum do not match". RangeHTTPServer, which knows ranges from the beginning
#          only, answers 400. The same part of an array with a chunk a file is read from both, and so is a whole shard.
# Since:   seen with zarr 3.1.6, fsspec 2026.9.0 and aiohttp 3.14.5; rangehttpserver 1.4.0, which ome-zarr 0.18 depends on.
# Matters: OME-Zarr 0.5 is sharded so that a slide is not a million files. Those who put one on a web server to look at it
#          are told that their file is damaged, and copy or convert it again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check zarr==3.1.6 fsspec==2026.9.0 aiohttp==3.14.5 rangehttpserver==1.4.0
venv/bin/python - <<'PYTHON'
import functools
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import zarr
from RangeHTTPServer import RangeRequestHandler

image = np.random.default_rng(0).integers(1, 256, (512, 512), dtype=np.uint8)
zarr.create_array("chunks.zarr", data=image, chunks=(128, 128))
zarr.create_array("shards.zarr", data=image, chunks=(128, 128), shards=(512, 512))
print("zarr", zarr.__version__, "fsspec", fsspec.__version__)


def quiet(handler):
    return type("Quiet", (handler,), {"log_message": lambda *_: None})


answers = {}
for handler in (SimpleHTTPRequestHandler, RangeRequestHandler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet(handler), directory="."))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("chunks", "shards"):
        try:
            read = zarr.open_array(f"http://127.0.0.1:{server.server_port}/{name}.zarr", mode="r")[:100, :100]
            answer = "read" if (read == image[:100, :100]).all() else "read wrongly"
        except Exception as exc:
            answer = f"{type(exc).__name__}: {str(exc)[:60]}"
        print(f"{handler.__name__}, {name}: {answer}")
        answers[handler, name] = answer
wanted = [
    answers[SimpleHTTPRequestHandler, "chunks"] == answers[RangeRequestHandler, "chunks"] == "read",
    "checksum do not match" in answers[SimpleHTTPRequestHandler, "shards"],
    "400" in answers[RangeRequestHandler, "shards"],
]
sys.exit(not all(wanted))
PYTHON
