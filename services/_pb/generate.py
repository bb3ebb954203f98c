"""Regenerate the Python code of the .proto files: `python -m services._pb.generate [OUTPUT]`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def generate(output: Path) -> None:
    """Write the generated modules to `output`, their import made relative to this package."""
    from grpc_tools import protoc

    proto = ROOT / "proto" / "thex" / "v1"
    arguments = ["protoc", f"-I{proto}", f"--python_out={output}", f"--pyi_out={output}", f"--grpc_python_out={output}", "inference.proto"]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    stub = output / "inference_pb2_grpc.py"
    stub.write_text(stub.read_text().replace("import inference_pb2 as", "from services._pb import inference_pb2 as"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
