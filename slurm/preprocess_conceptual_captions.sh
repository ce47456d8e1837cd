#!/bin/bash
# Fetch the images of Conceptual Captions from the web and turn them into a corpus folder.
#   sbatch slurm/preprocess_conceptual_captions.sh --train Train_GCC-training.tsv --val Validation_GCC-1.1.0-Validation.tsv --folder data/conceptual-captions
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/preprocess_conceptual_captions.sh
#SBATCH --job-name=preprocess_conceptual_captions
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/preprocess_conceptual_captions.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
