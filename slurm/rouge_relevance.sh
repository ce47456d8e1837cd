#!/bin/bash
# ROUGE-L of every caption of a split against every image.
#   sbatch slurm/rouge_relevance.sh --corpus data/coco --split test
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/rouge_relevance.sh
#SBATCH --job-name=rouge_relevance
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=1:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/rouge_relevance.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
