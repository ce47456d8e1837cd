#!/bin/bash
# Re-rank the best items of a ranking file with a second model.
#   sbatch slurm/rerank.sh --corpus data/coco --ranking runs/guided_predict/de/ranking-test.h5 --checkpoint runs/guided_train/siam/checkpoints/best
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/rerank.sh
#SBATCH --job-name=rerank
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/rerank.py "$@"
