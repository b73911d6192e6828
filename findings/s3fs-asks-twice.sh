#!/usr/bin/env bash
# s3fs asks S3 how large an object is before it gets it: each chunk of a zarr array costs two requests.
#
# Guess:   cat_file(path) of a whole object is one GET, as that of a part of it is; a chunk that zarr reads is one, too.
# Seen:    a HEAD, then a GET, for every object, however small: the size decides whether it is fetched in parts side by
#          side, and parts are of 50 MB. With max_concurrency=1 it is the GET alone; of a part it is so anyhow.
# Since:   s3fs 2026.6.0 (2026.4.0 asks once); 2026.9.0 still; on moto 5.2.5 as the server of S3.
# Matters: a slide as OME-Zarr 0.4 is a chunk an object. Reading its patches takes twice the round trips, which are what
#          a small chunk's time consists of, and stores bill requests. Sharded arrays ask for parts and pay once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check s3fs==2026.9.0 "moto[server]==5.2.5" "boto3<1.43.118" zarr==3.1.6
venv/bin/python - <<'PYTHON'
import logging
import os
import sys
import threading
from collections import Counter

import numpy as np
import s3fs
import zarr
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
asked = Counter()
app = DomainDispatcherApplication(create_backend_app)


def counted(environ, start):
    if "/c/" in environ["PATH_INFO"]:  # a chunk
        asked[environ["REQUEST_METHOD"]] += 1
    return app(environ, start)


server = make_server("127.0.0.1", 0, counted, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
options = {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}
s3fs.S3FileSystem(**options).mkdir("slides")
image = np.random.default_rng(0).integers(1, 256, (1024, 1024), dtype=np.uint8)
zarr.create_array("s3://slides/level", data=image, chunks=(256, 256), storage_options=options)
print("s3fs", s3fs.__version__, "zarr", zarr.__version__)
found = []
for more in ({}, {"max_concurrency": 1}):
    asked.clear()
    array = zarr.open_array("s3://slides/level", mode="r", storage_options=options | more)
    assert (array[:] == image).all()
    print(f"16 chunks, {more or 'as it comes'}: {dict(asked)}")
    found.append(dict(asked))
sys.exit(found != [{"HEAD": 16, "GET": 16}, {"GET": 16}])
PYTHON
