"""Workers for Saccade on SLURM or PBS by dask-jobqueue: start it on a login node, leave it running, and in another
shell give `saccade run` the file that it writes. Ctrl-C ends the workers and their jobs.

    pip install dask-jobqueue
    python jobqueue.py slurm --jobs 20 --memory 4GiB --walltime 08:00:00 --queue normal
    saccade run SLIDES --model M --out OUT --scheduler scheduler.json --wait 7200
"""

import argparse
import signal
import threading

from dask_jobqueue import PBSCluster, SLURMCluster

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("system", choices=("slurm", "pbs"))
options.add_argument("--jobs", type=int, default=1, help="workers, each a job of the queue and one slide at a time")
options.add_argument("--cores", type=int, default=1, help="of a worker")
options.add_argument("--memory", default="4GiB", help="of a worker; for what a slide takes see `saccade check`")
options.add_argument("--walltime", default="08:00:00", help="of a job; workers that reach it are started anew")
options.add_argument("--queue", help="partition or queue; default: the site's")
options.add_argument("--account", help="that pays")
options.add_argument("--gpu", action="store_true", help="a GPU for each worker; then run saccade with --device cuda")
options.add_argument("--directive", action="append", default=[], help="another line of the job's head")
options.add_argument("--interface", help="network interface of the nodes, such as ib0; default: the host's first")
options.add_argument("--scheduler-file", default="scheduler.json", help="written for saccade, where it can read it")
options.add_argument("--tls", action="store_true", help="encrypt, as dask is configured to")
options.add_argument("--show", action="store_true", help="print the job's script and start nothing")
asked = options.parse_args()

directives = {"slurm": ["--gres=gpu:1"], "pbs": []}[asked.system] if asked.gpu else []
how = {
    "cores": asked.cores,
    "processes": 1,
    "memory": asked.memory,
    "walltime": asked.walltime,
    "queue": asked.queue,
    "account": asked.account,
    "interface": asked.interface,
    "job_extra_directives": [*directives, *asked.directive],
    # one slide a worker, whatever its cores: what ends a worker costs one slide, and memory is reckoned by the slide
    "worker_extra_args": ["--nthreads", "1", *(["--resources", "GPU=1"] if asked.gpu else [])],
    # a nanny gives its worker one core
    "job_script_prologue": [f"export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS={asked.cores}"],
    # any free port: others' schedulers run on the same login node
    "scheduler_options": {"port": 0, "dashboard_address": ":0", "scheduler_file": asked.scheduler_file},
}
if asked.system == "pbs" and asked.gpu:
    how["resource_spec"] = f"select=1:ncpus={asked.cores}:mem={asked.memory.replace('iB', 'b').lower()}:ngpus=1"
if asked.tls:
    from distributed.security import Security

    how |= {"protocol": "tls://", "security": Security()}

cluster = {"slurm": SLURMCluster, "pbs": PBSCluster}[asked.system](**how)
if asked.show:
    print(cluster.job_script())
    cluster.close()
    raise SystemExit
# so many all the time: saccade gives slides to workers that are there, so that one which waits for work would not come
cluster.adapt(minimum_jobs=asked.jobs, maximum_jobs=asked.jobs)
print(f"saccade run ... --scheduler {asked.scheduler_file}    # {cluster.scheduler_address}", flush=True)

ended = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: ended.set())
ended.wait()
cluster.close()
