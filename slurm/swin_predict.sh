#!/bin/bash
# Search the images of a split by its own images: vectors, metrics.json, table.
#   sbatch slurm/swin_predict.sh --corpus data/products --checkpoint runs/swin_metric_learning/default/checkpoints/best
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/swin_predict.sh
#SBATCH --job-name=swin_predict
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=1:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/swin_predict.py "$@"
