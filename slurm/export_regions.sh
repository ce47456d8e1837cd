#!/bin/bash
# Region features of a corpus in a format other programs read.
#   sbatch slurm/export_regions.sh --corpus data/coco --extractor bottom-up --output coco_obj36.tsv
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/export_regions.sh
#SBATCH --job-name=export_regions
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
. slurm/run_job.sh jobs/export_regions.py "$@"
