#!/bin/bash
# Write a corpus as the original suite's uniform JSON: <split>_image_captions.json and the image files.
#   sbatch slurm/export_json.sh --corpus data/coco --folder datasets/coco
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/export_json.sh
#SBATCH --job-name=export_json
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
. slurm/run_job.sh jobs/export_json.py "$@"
