#!/bin/bash
# Turn any folder of images, such as Open Images, into a corpus folder; with classes or captions if there are any.
#   sbatch slurm/preprocess_image_folder.sh --images downloads/open-images --collection open-images --folder data/open-images
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/preprocess_image_folder.sh
#SBATCH --job-name=preprocess_image_folder
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
. slurm/run_job.sh jobs/preprocess_image_folder.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
