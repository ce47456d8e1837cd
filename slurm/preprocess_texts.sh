#!/bin/bash
# Turn a file of texts, one a line or JSONL, into a corpus of texts without images.
#   sbatch slurm/preprocess_texts.sh --texts downloads/texts.txt --folder data/texts
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/preprocess_texts.sh
#SBATCH --job-name=preprocess_texts
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
. slurm/run_job.sh jobs/preprocess_texts.py "$@"
