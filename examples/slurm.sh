#!/bin/bash
# Training on several machines with SLURM. NOT TESTED, for lack of a cluster. Check it, set
# partition, time and the activation of Python on your cluster, and test it with --epochs 1.
#
#   sbatch examples/slurm.sh DATA RUN [options of keras-unet train]
#
# DATA and RUN must be on a shared file system. After an interruption, submit the job again to
# resume the run.
#SBATCH --job-name=keras-unet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch $0 DATA RUN [options]" >&2
    exit 2
fi
export DATA=$1 RUN=$2
shift 2

# One address a machine, the first is the chief; the port is derived from the job.
export PORT=$((20000 + SLURM_JOB_ID % 10000))
WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste -sd,)
export WORKERS

# Options are passed as arguments, so that one with a blank is not split.
srun --kill-on-bad-exit=1 bash -c '
    task="{\"type\": \"worker\", \"index\": $SLURM_PROCID}"
    export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \"task\": $task}"
    if [ -f "$RUN/checkpoint.npz" ]; then
        exec keras-unet train "$DATA" --run "$RUN" --distribute multiworker --resume
    fi
    exec keras-unet train "$DATA" --run "$RUN" --distribute multiworker "$@"
' keras-unet "$@"
