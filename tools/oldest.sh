#!/usr/bin/env bash
# Installs the oldest versions that setup.cfg allows, all together, into a new virtual environment,
# and runs the tests there:
#
#     bash tools/oldest.sh                            # the fast suite
#     bash tools/oldest.sh -m slow tests/test_x.py    # arguments of pytest
#
# With VENV=folder the environment is made in this folder and kept.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${VENV:-}" ]; then
  environment=$VENV
else
  environment=$(mktemp -d)
  trap 'rm -rf "$environment"' EXIT
fi
python3.11 -m venv "$environment"
constraints=$environment/oldest.txt
"$environment/bin/python" - >"$constraints" <<'PYTHON'
import configparser, re

config = configparser.ConfigParser()
config.read("setup.cfg")
groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
bounds = re.findall(r"^([\w-]+)(?:\[.*\])? *>= *([\d.]+)", "\n".join(groups), re.M)
print("\n".join(sorted({f"{name}=={version}" for name, version in bounds})))
PYTHON
cat "$constraints"
"$environment/bin/pip" install -q -c "$constraints" ".[test]"
TF_CPP_MIN_LOG_LEVEL=3 "$environment/bin/python" -m pytest "$@"
