#!/bin/bash
# Turn LXMERT's sentence files (mscoco_train.json, ..., vgnococo.json) and their images into a corpus folder.
#   sbatch slurm/preprocess_lxmert.sh --train mscoco_train.json mscoco_nominival.json --val mscoco_minival.json --images downloads/coco --folder data/lxmert
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/preprocess_lxmert.sh
#SBATCH --job-name=preprocess_lxmert
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
. slurm/run_job.sh jobs/preprocess_lxmert.py "$@" ${SLURM_ARRAY_TASK_COUNT:+--part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT}
