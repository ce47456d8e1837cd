#!/bin/bash
# Region features of every image of a corpus.
#   sbatch --array=1-8 slurm/extract_regions.sh --corpus data/coco --extractor bottom-up-800 --precision bf16
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/extract_regions.sh
#SBATCH --job-name=extract_regions
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
[ -d .venv-detector ] && venv=.venv-detector    # of bash setup.sh detector: the one with torchvision
. slurm/run_job.sh jobs/extract_regions.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
