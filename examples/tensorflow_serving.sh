#!/usr/bin/env bash
# Serves the network of examples/serve.py with the official TensorFlow Serving image and checks it:
# answers, energies, samples, a second version, and bad requests. Needs Docker; the ports are bound
# to the loopback interface only.
#
#   bash examples/tensorflow_serving.sh [FOLDER]      # FOLDER keeps the exported versions
set -euo pipefail
image=${TF_SERVING_IMAGE:-tensorflow/serving:latest}
port=${TF_SERVING_PORT:-8501}
folder=$(realpath -m "${1:-$(mktemp -d)/digits}")  # before cd: it may be relative
mkdir -p "$folder"
cd "$(dirname "$0")"

container=$(docker run --detach --rm --publish "127.0.0.1:$port:8501" \
  --volume "$folder:/models/digits:ro" --env MODEL_NAME=digits "$image")
trap 'docker stop "$container" > /dev/null' EXIT

# Exports a version while the server runs, waits until it is served, asks, compares with Keras.
for _ in 1 2; do
  python serve.py --path "$folder" --url "http://127.0.0.1:$port" --epochs 10
done

# What must be refused with a status of 4xx, the server going on.
row=$(printf '0.5,%.0s' {1..63})0.5
for body in \
  "{\"instances\": [[1, 2]]}" \
  "{\"instances\": [[NaN,${row#0.5,}]]}" \
  "{\"instances\": [[\"a\",${row#0.5,}]]}" \
  "{\"instances\": [[$row]], \"signature_name\": \"unknown\"}" \
  "not JSON"; do
  status=$(curl --silent --output /dev/null --write-out '%{http_code}' --data "$body" \
    "http://127.0.0.1:$port/v1/models/digits:predict")
  echo "$status  ${body:0:60}"
  [[ $status == 4* ]]
done
curl --silent --fail --output /dev/null --data "{\"instances\": [[$row]]}" \
  "http://127.0.0.1:$port/v1/models/digits:predict"
echo "all checks passed"
