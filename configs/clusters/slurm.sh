#!/bin/bash
# A whole run as one SLURM job, with nothing but dask, which Saccade brings: a scheduler, a worker for each task, and
# `saccade run`, which takes what this script is given. Begun again with the same --out, it goes on where it stopped.
#
#     sbatch --ntasks=32 slurm.sh SLIDES --model M --out OUT
#
#SBATCH --job-name=saccade
#SBATCH --ntasks=8
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=12:00:00
set -euo pipefail

# tasks are workers, one slide at a time each; on nodes with GPUs add --gpus-per-task=1 above, and here
# worker_options=(--resources GPU=1), and give the script --device cuda
worker_options=()

file=$PWD/.scheduler-${SLURM_JOB_ID:?start it with sbatch}.json
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$file"' EXIT
dask scheduler --port 0 --no-dashboard --scheduler-file "$file" &
while [ ! -s "$file" ]; do sleep 1; done

cores=${SLURM_CPUS_PER_TASK:-1}
export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS=$cores
# what a slide may take; dask sees the node's memory, not the job's
memory=${SLURM_MEM_PER_CPU:+$((SLURM_MEM_PER_CPU * cores))MiB}
srun --cpus-per-task="$cores" dask worker --scheduler-file "$file" --nthreads 1 --no-dashboard --death-timeout 120 \
    --memory-limit "${memory:-auto}" "${worker_options[@]}" &

saccade run "$@" --scheduler "$file" --wait 600
