#!/bin/bash
# A run as a job array: every task is given the same command, and takes the slides that no other has taken. Tasks start
# whenever the queue lets them; the table and the report are whole once the last one has ended.
#
#     sbatch --array=1-8 slurm-array.sh SLIDES --model M --out OUT
#
# Expects SLIDES, M and OUT on a file system that all nodes share and that knows locks (flock). Each task tries a slide
# that fails once, ends with code 1, and is FAILED for SLURM: let what comes next wait for --dependency=afterany:JOB,
# not afterok. The same command goes on where an array stopped.
#
#SBATCH --job-name=saccade
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=4G
#SBATCH --time=12:00:00
# on GPUs: --gpus-per-task=1 here, and --device cuda --workers 1 for the script

memory=${SLURM_MEM_PER_CPU:+--memory=${SLURM_MEM_PER_CPU}MB} # of each worker, which has one core and one slide
# in the place of the shell, so that SLURM's SIGTERM reaches it, and it finishes what is in flight
exec saccade run --workers "${SLURM_CPUS_PER_TASK:-1}" ${memory:+"$memory"} "$@"
