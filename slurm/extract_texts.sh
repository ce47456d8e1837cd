#!/bin/bash
# A frozen text tower's states of all captions.
#   sbatch slurm/extract_texts.sh --corpus data/flickr30k --text distilbert-base-uncased --folder data/flickr30k/texts-distilbert
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/extract_texts.sh
#SBATCH --job-name=extract_texts
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/extract_texts.py "$@"
