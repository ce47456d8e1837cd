#!/bin/bash
# Retrieve images for every text of a corpus.
#   sbatch slurm/retrieve_corpus.sh --texts vectors/reddit --collection vectors/open-images --folder retrieved/reddit
#   sbatch --array=1-8 slurm/retrieve_corpus.sh --texts vectors/reddit --collection vectors/open-images --folder retrieved/reddit
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/retrieve_corpus.sh
#SBATCH --job-name=retrieve_corpus
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/retrieve_corpus.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
