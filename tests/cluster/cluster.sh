#!/usr/bin/env bash
# A throw-away Slurm of two nodes on one Debian machine: as root, on loopback, without systemd or cgroups.
#   bash tests/cluster/cluster.sh start [STATE_DIR]        install what is missing, start what is not running
#   . STATE_DIR/env.sh                                     sbatch, squeue, sacct of this shell speak to it
#   bash tests/cluster/cluster.sh status [STATE_DIR]       exit code 0 if everything runs
#   bash tests/cluster/cluster.sh lose NODE [STATE_DIR]    as if the node's power was cut; start brings it back
#   bash tests/cluster/cluster.sh cut NODE [STATE_DIR]     as if its network was cut: its processes go on, unknown to Slurm
#   bash tests/cluster/cluster.sh clear [STATE_DIR]        cancel every job, and kill what is left of it
#   bash tests/cluster/cluster.sh stop [STATE_DIR]         clear, stop, keep state and logs
#   bash tests/cluster/cluster.sh purge [STATE_DIR]        stop at once and delete STATE_DIR
#   bash tests/cluster/cluster.sh install                  only the packages
# Nodes n1 and n2 have 4 GPUs (which do nothing), 16 CPUs and 200 GB each, whatever the machine has.
# Partitions: gpu (default); spot, whose jobs the others' of urgent preempt and requeue; urgent.
# Knobs, read from the environment at start; a cluster that runs takes on changed ones, but port and accounting:
#   CLUSTER_PORT=17000        first of 4 TCP ports
#   CLUSTER_ACCOUNTING=yes    no: sacct has no data base and fails
#   CLUSTER_GRACE=20          least seconds from the preemption of a job of spot to its end; Slurm looks every KILL_WAIT + 10 s
#   CLUSTER_KILL_WAIT=5       seconds from SIGTERM to SIGKILL; Slurm takes 5 at least
#   CLUSTER_USER_SIGNAL=yes   preemption sends a job the signal it asked for (sbatch --signal); no: only SIGTERM
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
NODES=(n1 n2)
PACKAGES=(munge slurm-client slurmctld slurmd slurmdbd mariadb-server-core mariadb-client-core)
KNOBS=(CLUSTER_PORT CLUSTER_ACCOUNTING CLUSTER_GRACE CLUSTER_KILL_WAIT CLUSTER_USER_SIGNAL)

say() { echo "cluster.sh: $*"; }
fail() { say "$*" >&2; exit 1; }

# alive NAME: the process of run/NAME.pid lives and still is that daemon (n1 and n2 are slurmd's); that of a zombie has no command line
alive() {
    local pid process=$1
    case $1 in n?) process=slurmd ;; esac
    pid=$(cat "$STATE/run/$1.pid" 2>/dev/null) && grep -qa "$process" "/proc/$pid/cmdline" 2>/dev/null
}
wait_for() {
    local seconds=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { tail -qn 5 "$STATE"/log/*.log >&2; fail "waited $seconds s for $what in vain; logs: $STATE/log"; }
        sleep 0.1
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(comm -23 <(printf '%s\n' "${PACKAGES[@]}" | sort) <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p' | sort))
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "no apt-get here; needed: ${PACKAGES[*]}"
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

write_configuration() {
    local gpu port=$CLUSTER_PORT
    printf '%s\n' "export SLURM_CONF=$SLURM_CONF" >"$STATE/env.sh"
    # A GPU has to be a device
    for gpu in 0 1 2 3; do ln -sfn /dev/null "$STATE/gpu$gpu"; done
    echo "NodeName=n[1-2] Name=gpu File=$STATE/gpu[0-3]" >"$STATE/gres.conf"
    # Where no cgroups are mounted, looking for their version fails
    echo "CgroupPlugin=cgroup/v1" >"$STATE/cgroup.conf"
    # cred_expire: a requeued job starts again after 5 s, not 120
    # config_overrides: the nodes have the CPUs and the memory named here
    # OverMemoryKill counts resident memory only: mapping a lot is no offence
    cat >"$STATE/slurm.conf.new" <<END
ClusterName=misrank
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$STATE/run/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/%n
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmdPidFile=$STATE/run/%n.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmdLogFile=$STATE/log/%n.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=4000
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
BatchStartTimeout=30
KillWait=$CLUSTER_KILL_WAIT
MinJobAge=7200
NodeName=n[1-2] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((port + 1))-$((port + 2)) CPUs=16 RealMemory=200000 Gres=gpu:4
PartitionName=DEFAULT Nodes=n[1-2] DefaultTime=60 MaxTime=7-0
PartitionName=gpu PriorityTier=10 PreemptMode=OFF Default=YES
PartitionName=spot PriorityTier=1 PreemptMode=REQUEUE GraceTime=$CLUSTER_GRACE
PartitionName=urgent PriorityTier=100 PreemptMode=OFF
END
    [ "$CLUSTER_USER_SIGNAL" = no ] || echo "SlurmctldParameters=preempt_send_user_signal" >>"$STATE/slurm.conf.new"
    [ "$CLUSTER_ACCOUNTING" = no ] || write_accounting "$((port + 3))" >>"$STATE/slurm.conf.new"
    mv "$STATE/slurm.conf.new" "$SLURM_CONF"
}
# The socket of munge has to be named three times: once in each AuthInfo, and as the "password"
write_accounting() {
    cat <<END
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$1
AccountingStoragePass=$STATE/run/munge.sock
AccountingStorageTRES=gres/gpu
END
    (umask 077 && cat >"$STATE/slurmdbd.conf") <<END
AuthType=auth/munge
AuthInfo=socket=$STATE/run/munge.sock
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$1
SlurmUser=root
PidFile=$STATE/run/slurmdbd.pid
LogFile=$STATE/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
END
}

start_munge() {
    [ -s "$STATE/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$STATE/munge.key")
    munged --force --key-file="$STATE/munge.key" --seed-file="$STATE/munge.seed" --socket="$STATE/run/munge.sock" \
        --pid-file="$STATE/run/munged.pid" --log-file="$STATE/log/munged.log" 2>>"$STATE/log/munged.log"
    wait_for 10 munged munge -n -S "$STATE/run/munge.sock"
}
start_mariadb() {
    if [ ! -d "$STATE/mariadb/mysql" ]; then
        mariadb-install-db --no-defaults --user=root --datadir="$STATE/mariadb" --skip-test-db --skip-name-resolve \
            --auth-root-authentication-method=socket --auth-root-socket-user=root >"$STATE/log/mariadb.log" 2>&1 || fail "no data base; log: $STATE/log/mariadb.log"
    fi
    setsid mariadbd --no-defaults --user=root --datadir="$STATE/mariadb" --skip-networking --socket="$STATE/run/mariadb.sock" \
        --pid-file="$STATE/run/mariadbd.pid" --log-error="$STATE/log/mariadb.log" --innodb-flush-log-at-trx-commit=0 </dev/null >/dev/null 2>&1 &
    wait_for 60 mariadbd mariadb --no-defaults --socket="$STATE/run/mariadb.sock" -e "select 1"
}
start_node() {
    mkdir -p "$STATE/$1"
    slurmd -N "$1" || fail "no slurmd; why: SLURM_CONF=$SLURM_CONF slurmd -D -N $1"
    # A node that was lost, or down when the cluster was stopped
    case $(sinfo -h -N -n "$1" -p gpu -o %T) in down* | drain* | fail*) scontrol update nodename="$1" state=resume 2>/dev/null || true ;; esac
}
nodes_ready() { [ "$(sinfo -h -N -p gpu -t idle,mixed,allocated,completing -o '%N %T' | grep -vc '\*')" = ${#NODES[@]} ]; }

start() {
    local node knob begun=$SECONDS
    mkdir -p "$STATE"/{log,run,slurmctld}
    touch "$STATE/knobs.sh"
    for knob in "${KNOBS[@]}"; do echo ": \"\${$knob:=${!knob}}\""; done >"$STATE/knobs.new"
    grep -E "PORT|ACCOUNTING" "$STATE/knobs.sh" | grep -vqxFf "$STATE/knobs.new" && fail "$STATE has another port or accounting; purge it, or use another folder"
    mv "$STATE/knobs.new" "$STATE/knobs.sh"
    name_nodes
    write_configuration
    alive munged || start_munge
    if [ "$CLUSTER_ACCOUNTING" != no ]; then
        alive mariadbd || start_mariadb
        # Its library reads where the data base listens from the environment
        alive slurmdbd || MYSQL_UNIX_PORT=$STATE/run/mariadb.sock slurmdbd
        wait_for 60 slurmdbd sacctmgr -n show cluster
    fi
    if alive slurmctld; then scontrol reconfigure; else slurmctld; fi
    wait_for 30 slurmctld scontrol ping
    for node in "${NODES[@]}"; do alive "$node" || start_node "$node"; done
    wait_for 60 "the nodes" nodes_ready
    [ "$CLUSTER_ACCOUNTING" = no ] || wait_for 30 sacct sacct -n
    say "up after $((SECONDS - begun)) s; now: . $STATE/env.sh"
}

# Jobs resolve the names of their nodes. The file is written in place: in a container it cannot be replaced.
name_nodes() (
    flock 9
    grep -qF "# misrank cluster $STATE;" /etc/hosts && return
    getent hosts "$HOST" >/dev/null || NODES+=("$HOST")
    echo "127.0.0.1 ${NODES[*]} # misrank cluster $STATE;" >&9
) 9>>/etc/hosts
forget_nodes() (
    flock 9
    rest=$(grep -vF "# misrank cluster $STATE;" /etc/hosts)
    printf '%s\n' "$rest" >/etc/hosts
) 9>>/etc/hosts

# Of a node's processes, slurmd and its steps write its log, and tasks know where they are
node_daemons() { find /proc/[0-9]*/fd -lname "$STATE/log/$1.log" 2>/dev/null | awk -F/ '{ print $3 }' | sort -u; }
node_tasks() {
    grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null | xargs -r grep -lzxF "SLURMD_NODENAME=$1" 2>/dev/null | awk -F/ '{ print $3 }'
}
# Daemons first, or they would still report how their tasks ended
kill_node() {
    node_daemons "$1" | xargs -r kill -KILL 2>/dev/null || true
    node_tasks "$1" | xargs -r kill -KILL 2>/dev/null || true
}
lose() {
    kill_node "$1"
    scontrol update nodename="$1" state=down reason=lost
}
cut() {
    kill -KILL "$(cat "$STATE/run/$1.pid")"
    scontrol update nodename="$1" state=down reason=cut
}
stop_daemon() {
    if alive "$1"; then
        kill "-$2" "$(cat "$STATE/run/$1.pid")"
        wait_for 30 "the end of $1" eval "! alive $1"
    fi
    rm -f "$STATE/run/$1.pid"
}
# srun ends with its tasks; without it slurmd would try for seconds to tell it of them
no_job_runs() {
    local node pid
    for node in "${NODES[@]}"; do
        for pid in $(node_tasks "$node"); do [ "$(cat "/proc/$pid/comm")" = srun ] || kill -KILL "$pid" || true; done
    done
    [ -z "$(squeue -h)" ]
}
clear_jobs() {
    squeue -h -o %A | xargs -r scancel
    wait_for 60 "the jobs to end" no_job_runs
}
# stop SIGNAL
stop() {
    local node daemon
    for daemon in slurmctld "${NODES[@]}"; do stop_daemon "$daemon" "$1"; done
    for node in "${NODES[@]}"; do kill_node "$node"; done
    for daemon in slurmdbd mariadbd munged; do stop_daemon "$daemon" "$1"; done
    forget_nodes
}
status() {
    local daemon code=0 daemons=(munged slurmctld "${NODES[@]}")
    [ "$CLUSTER_ACCOUNTING" = no ] || daemons+=(mariadbd slurmdbd)
    for daemon in "${daemons[@]}"; do
        if alive "$daemon"; then echo "$daemon runs"; else echo "$daemon does not run" && code=1; fi
    done
    if [ $code = 0 ]; then sinfo && nodes_ready; else return 1; fi
}

action=${1:-}
node=""
case $action in
    install | start | status | clear | stop | purge) ;;
    lose | cut) node=${2:?NODE is missing} && shift ;;
    *) sed -n '2,/^set /s/^# \?//p' "$0" && exit 2 ;;
esac
[ "$(id -u)" = 0 ] || fail "takes root"
STATE=$(realpath -m -- "${2:-/tmp/misrank-cluster}")
[ ${#STATE} -lt 80 ] || fail "$STATE: too long for the sockets inside it"
HOST=$(hostname -s)
export SLURM_CONF=$STATE/slurm.conf
[ ! -f "$STATE/knobs.sh" ] || . "$STATE/knobs.sh"
: "${CLUSTER_PORT:=17000}" "${CLUSTER_ACCOUNTING:=yes}" "${CLUSTER_GRACE:=20}" "${CLUSTER_KILL_WAIT:=5}" "${CLUSTER_USER_SIGNAL:=yes}"
case $action in
    install) install_packages ;;
    start)
        install_packages
        start
        ;;
    status) status ;;
    lose | cut) "$action" "$node" ;;
    clear) clear_jobs ;;
    stop)
        ! alive slurmctld || clear_jobs
        stop TERM
        ;;
    purge)
        stop KILL
        rm -rf --one-file-system "$STATE"
        ;;
esac
