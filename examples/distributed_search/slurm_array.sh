#!/bin/bash
# Runs a search as a SLURM job array: task 0 is the chief, every other task is a worker.
#
#     sbatch slurm_array.sh FOLDER          FOLDER: on a file system that all nodes mount
#
# After the time limit, submit it again to continue; finished trials are kept. A requeued task keeps
# its number, so it gets its unfinished trial again. Workers that start early wait for the chief.
#SBATCH --job-name=spin-search
#SBATCH --array=0-8
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
set -euo pipefail
directory=${1:?give the shared folder}
task=${SLURM_ARRAY_TASK_ID:?submit this file with sbatch}
job=${SLURM_ARRAY_JOB_ID}
mkdir -p "$directory"
address="$directory/chief_$job.txt"
done="$directory/done_$job.txt"

if [ "$task" -eq 0 ]; then
    # Set CHIEF_IP to choose the cluster's private network if a node has several addresses.
    ip=${CHIEF_IP:-$(hostname -I | cut -d' ' -f1)}
    port=$((20000 + job % 20000))
    printf '%s %s\n' "$ip" "$port" > "$address.tmp"
    mv "$address.tmp" "$address"
    name=chief
else
    for _ in $(seq 720); do             # an hour: the chief's task may still be in the queue
        [ -s "$address" ] && break
        sleep 5
    done
    name="tuner$task"
fi

# This restarts a process that dies under the same name; SLURM restarts a lost node (--requeue).
for _ in 1 2 3 4 5; do
    [ -e "$done" ] && exit 0            # a task that starts after the search has ended
    read -r ip port < "$address"        # the chief may have moved
    export KERASTUNER_TUNER_ID=$name KERASTUNER_ORACLE_IP=$ip KERASTUNER_ORACLE_PORT=$port
    python "${SEARCH:-search.py}" --directory "$directory" "${@:2}" &
    process=$!
    while kill -0 "$process" 2> /dev/null; do
        sleep 2
        if [ "$task" -ne 0 ] && [ -e "$done" ]; then
            # The chief leaves last; who is still here waits for one that will not come back.
            sleep 30
            kill "$process" 2> /dev/null || true
            exit 0
        fi
    done
    if wait "$process"; then
        [ "$task" -eq 0 ] && touch "$done"
        exit 0
    fi
    echo "$name died, started again" >&2
done
exit 1
