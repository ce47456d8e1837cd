#!/bin/bash
# Region features of other programs into a corpus folder.
#   sbatch slurm/import_regions.sh --corpus data/coco --sources train2014_obj36.tsv val2014_obj36.tsv --extractor bottom-up
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/import_regions.sh
#SBATCH --job-name=import_regions
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
. slurm/run_job.sh jobs/import_regions.py "$@"
