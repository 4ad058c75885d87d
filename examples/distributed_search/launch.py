"""Start the chief and the workers of a search, on one host or on several, and keep them running.

The chief process chooses the trials and gives them to the worker processes.

On one host:

    python launch.py --workers 4 -- python search.py --directory FOLDER

On several hosts with a shared folder, start the chief on the first host,

    python launch.py --chief --address 10.0.0.1:8000 -- python search.py --directory FOLDER

and workers on every host (also on the first); host names must differ:

    python launch.py --workers 4 --address 10.0.0.1:8000 -- python search.py --directory FOLDER

A process that dies is started again under the same name, up to `--restarts` times; a worker then
gets its unfinished trial again. If a whole host dies, other workers get its trials after the lease,
the time after which a silent worker counts as dead (see spinkeras.search.durability). The search
can be stopped and started again at any time.

keras-tuner does not encrypt or authenticate this traffic. Use an address that only your own hosts
can reach.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time


def main():
    own, command = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, command = own[:cut], own[cut + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--chief", action="store_true", help="start the chief")
    parser.add_argument("--address", help="IP:PORT of the chief; default: all on this host")
    parser.add_argument("--restarts", type=int, default=5, help="of every process")
    parser.add_argument("--logs", default=".", help="folder for the output of every process")
    args = parser.parse_args(own)
    if not command or not (args.workers or args.chief):
        parser.error("give --workers N or --chief, then -- and the command to run")
    with_chief = args.chief or args.address is None
    if args.address is None:
        with socket.socket() as probe:  # find a free port, which the chief will take
            probe.bind(("127.0.0.1", 0))
            args.address = f"127.0.0.1:{probe.getsockname()[1]}"
    ip, _, port = args.address.rpartition(":")
    # keras-tuner takes every process with "chief" in its name for the chief.
    host = socket.gethostname().split(".")[0].replace("chief", "host")
    names = ["chief"] * with_chief + [f"{host}-{k}" for k in range(args.workers)]
    os.makedirs(args.logs, exist_ok=True)

    def start(name):
        environment = dict(
            os.environ,
            KERASTUNER_TUNER_ID=name,
            KERASTUNER_ORACLE_IP=ip,
            KERASTUNER_ORACLE_PORT=port,
        )
        with open(os.path.join(args.logs, f"{name}.log"), "ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        print(f"{name}: process {process.pid}", flush=True)
        return process

    def stop(*_):
        raise SystemExit("stopped; start again with the same command to go on")

    signal.signal(signal.SIGTERM, stop)
    running = {name: start(name) for name in names}
    deaths = dict.fromkeys(names, 0)
    deadline = float("inf")
    try:
        while running and time.monotonic() < deadline:
            time.sleep(0.5)
            for name, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                if code == 0:
                    print(f"{name}: done", flush=True)
                    if name == "chief":
                        # The search is over; a worker that died at the end needs no restart.
                        deadline = time.monotonic() + 60
                elif deadline < float("inf"):
                    print(f"{name}: died after the search", flush=True)
                elif deaths[name] < args.restarts:
                    deaths[name] += 1
                    print(f"{name}: died with code {code}, started again", flush=True)
                    running[name] = start(name)
                else:
                    raise SystemExit(f"{name} died {deaths[name] + 1} times; see its log.")
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


if __name__ == "__main__":
    main()
