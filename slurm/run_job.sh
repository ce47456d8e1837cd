# Sourced by the batch scripts beside it: runs a job file as the tasks of this allocation.
# $1 is the job file; further arguments are passed on to it.
venv=${venv:-.venv}; [ -f $venv/bin/activate ] && . $venv/bin/activate
unset SLURM_EXPORT_ENV                            # sbatch --export=... would leave srun without a PATH
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK    # srun of Slurm 22 and later does not read the latter
job=$1 && shift
srun --kill-on-bad-exit=1 --wait=0 python "$job" --cluster allocation "$@"
code=$?
[ $code -eq 0 ] || exec python -m launch.aftermath $code   # queues it again where that helps
