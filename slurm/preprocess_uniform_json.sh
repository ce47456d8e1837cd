#!/bin/bash
# Turn the original suite's uniform JSON ({train,val,test}_image_captions.json) and its images into a corpus folder.
#   sbatch slurm/preprocess_uniform_json.sh --captions datasets/coco --images . --folder data/coco-uniform
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/preprocess_uniform_json.sh
#SBATCH --job-name=preprocess_uniform_json
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
. slurm/run_job.sh jobs/preprocess_uniform_json.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
