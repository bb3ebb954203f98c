"""Regenerate the Python code of the .proto files: `python -m services._pb.generate [OUTPUT]`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def generate(output: Path) -> None:
    """Write the generated modules to `output`, their import made relative to this package."""
    proto = ROOT / "proto" / "thex" / "v1"
    outputs = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
    # In a process of its own: protoc and TenSEAL each bring a protobuf library, and loaded after protoc TenSEAL crashes.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", *outputs, "inference.proto"]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("protoc failed")
    stub = output / "inference_pb2_grpc.py"
    stub.write_text(stub.read_text().replace("import inference_pb2 as", "from services._pb import inference_pb2 as"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
