#!/bin/sh
# Writes edge_mil/v1 from proto/edge_mil/v1 with the oldest grpcio-tools that we support, since generated code refuses
# a runtime older than its maker: grpcio-tools 1.66.2 and mypy-protobuf 3.6.0.
# Usage, from the repository root: proto/generate.sh PYTHON [OUT]
#   PYTHON has grpcio-tools, and protoc-gen-mypy beside it; OUT is the folder that edge_mil/v1 is written under, "." by
#   default.
set -eu
python=$1
out=${2:-.}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out/edge_mil/v1"
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I"$root/proto" \
    --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
    "$root/proto/edge_mil/v1/edge_mil.proto"

digest=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$root/proto/edge_mil/v1/edge_mil.proto")
cat > "$out/edge_mil/v1/__init__.py" <<END
"""The wire as Python: generated from proto/ by \`make proto\`, never edited."""

SOURCE_SHA256 = "$digest"
"""Of the .proto that this was generated from; a test compares it."""
END
