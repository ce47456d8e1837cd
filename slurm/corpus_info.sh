#!/bin/bash
# What is in a corpus folder, and whether it is whole.
#   sbatch slurm/corpus_info.sh --corpus data/coco --verify
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/corpus_info.sh
#SBATCH --job-name=corpus_info
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=2:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/corpus_info.py "$@"
