#!/bin/bash
# Train Swin V2, or any backbone, for image-to-image search.
#   sbatch slurm/swin_metric_learning.sh --corpus data/products --precision bf16
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/swin_metric_learning.sh
#SBATCH --job-name=swin_metric_learning
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
. slurm/run_job.sh jobs/swin_metric_learning.py "$@"
