#!/bin/bash
# A SLURM array: each task does a hundredth of the CTs under $CTS, into the one folder $LIVERS.
#
#   CTS=/data/cts LIVERS=/data/livers sbatch slurm.sh               # all
#   CTS=/data/cts LIVERS=/data/livers sbatch --array=3,17 slurm.sh  # two shards once more; SHARDS stays
#
# A task that was preempted, or whose node failed, is queued again, and --resume keeps what it had done.
#SBATCH --job-name=ravnet
#SBATCH --array=0-99
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=24:00:00
#SBATCH --requeue
SHARDS=${SHARDS:-100}  # as many as the whole array has tasks

exec ravnet segment "$CTS" -o "$LIVERS" --resume --threads "$SLURM_CPUS_PER_TASK" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
