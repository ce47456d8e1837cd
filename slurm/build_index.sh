#!/bin/bash
# Build an index folder over a vectors folder.
#   sbatch slurm/build_index.sh --vectors vectors/open-images --index indexes/open-images --type IVF4096,PQ64
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/build_index.sh
#SBATCH --job-name=build_index
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/build_index.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
