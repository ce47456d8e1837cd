#!/bin/bash
# Encode the images or the texts of a split once, by a dual encoder.
#   sbatch slurm/encode.sh --corpus data/reddit --kind texts --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/reddit
#   sbatch --array=1-8 slurm/encode.sh --corpus data/reddit --kind texts --checkpoint runs/guided_train/de/checkpoints/best --folder vectors/reddit
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/encode.sh
#SBATCH --job-name=encode
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
. slurm/run_job.sh jobs/encode.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
