#!/bin/bash
# A folder of blobs from or to Azure.
#   sbatch slurm/blob_sync.sh --remote https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH --credential env:AZURE_SAS --folder downloads
# Options of sbatch go before the script's name and win over these lines: sbatch --partition p --time 8:00:00 slurm/blob_sync.sh
#SBATCH --job-name=blob_sync
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
cd "${MISRANK_ROOT:-$SLURM_SUBMIT_DIR}" && [ -f slurm/run_job.sh ] || { echo "submit from the checkout, or set MISRANK_ROOT to it" >&2; exit 2; }
. slurm/run_job.sh jobs/blob_sync.py "$@"
