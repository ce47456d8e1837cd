#!/bin/bash
# Change an index without building it again.
#   sbatch slurm/change_index.sh --index indexes/products --merge
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/change_index.sh
#SBATCH --job-name=change_index
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/change_index.py "$@"
