"""Fuzz targets: `python -m tests.hostile.fuzz TARGET --seconds 60`. Needs the extra `fuzz` (Atheris).

Invariants, whatever the bytes:

1. A reader of a peer's bytes returns a value or raises WireError (the client's plan: ParameterError; tokens: no principal). No
   other exception, no hang, no growth of memory.
2. A value that was read is as planned: its level, scale, Galois element and shape, and its residues are below their primes.
3. A key that was read is written again with the same length; a plan with the same meaning.
4. A reason is one of the table in services/server/refusals.py.
5. The key store holds, after any sequence of chunks, deletions and restarts, only whole keys with right frames, and says of a
   key that it is there exactly if its file is.
"""

import argparse
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["he_runtime.wire"]):
    from he_runtime.wire.ciphertext_frames import check_fresh_frame
    from he_runtime.wire.message import peek

import he_runtime.wire.bits  # noqa: F401  (compiled by numba, which cannot compile instrumented code)

with atheris.instrument_imports(
    include=["he_runtime.wire", "he_runtime.client_plan", "he_runtime.parameters", "services.server"]
):
    from he_runtime.client_plan import ClientPlan
    from he_runtime.errors import ParameterError, WireError
    from he_runtime.wire.evaluation_keys import write_evaluation_key
    from services.server.identity import Authenticator, TokenFile
    from services.server.key_store import KeyStore
    from services.server.limits import Limits
    from services.server.model import ServedModel
    from services.server.refusals import REASONS, Refusal

from tests.hostile.generate_corpus import CORPUS, resealed
from tests.hostile.messages import LEVEL, READERS, right_messages
from tests.services.served import ALICE, BINDING, BOB, KEYS, PARAMETERS, key_message, served_model

Target = Callable[[bytes], None]


def _read(kind: str, content: bytes) -> None:
    """Invariants 1 to 4 for one reader; also on the bytes with a digest that agrees, which gets the fuzzer past the seal."""
    for candidate in (content, resealed(content) if len(content) > 32 else content):
        try:
            value = READERS[kind](candidate)
        except WireError as error:
            assert error.reason in REASONS, error.reason
            Refusal(error.reason, str(error), "0").trailer()
            continue
        if kind == "key":
            assert value.level == KEYS[value.galois_element]
            again = write_evaluation_key(value, BINDING)
            assert len(again) == len(candidate)
            primes = PARAMETERS.primes[: value.level + 1] + PARAMETERS.special_primes
            for _, rows in value.digits:
                assert rows.shape == (len(primes), PARAMETERS.ring_degree)
                assert all(int(row.max()) < prime for row, prime in zip(rows, primes, strict=True))
        elif kind == "fresh":
            assert len(value.rows) == LEVEL + 1
            assert abs(value.scale / PARAMETERS.scale - 1) < 1e-6
        else:
            assert (value.reshape(2, -1).max(axis=1) < PARAMETERS.primes[0]).all()


def frames(content: bytes) -> None:
    """What the front reads before anyone else."""
    for read in (peek, lambda data: check_fresh_frame(data, BINDING, LEVEL)):
        try:
            read(content)
        except WireError as error:
            assert error.reason in REASONS


def plan(content: bytes) -> None:
    """The client's reader of the server's plan."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, dict):
        return
    try:
        read = ClientPlan.from_json(value, allow_insecure_test=True)
    except ParameterError:
        return
    assert ClientPlan.from_json(json.loads(json.dumps(read.to_json())), allow_insecure_test=True) == read


def tokens(content: bytes) -> None:
    """The header that says who calls."""
    header = content.decode("latin-1")
    server = Authenticator("token", _TOKENS)
    for metadata in (
        [("authorization", header)],
        [("authorization", f"Bearer {header}")],
        [("authorization", content)],
    ):
        try:
            server.principal(metadata, {})
        except WireError as error:
            assert error.reason == "unauthenticated"
        else:
            raise AssertionError("a token was guessed")


@functools.cache
def _model() -> ServedModel:
    return served_model(_SCRATCH)


@functools.cache
def _right_keys() -> dict[int, bytes]:
    return {element: key_message(element) for element in KEYS}


def store(content: bytes) -> None:
    """Invariant 5: the bytes choose what is done to the store."""
    choices = atheris.FuzzedDataProvider(content)
    directory = _SCRATCH / "store"
    shutil.rmtree(directory, ignore_errors=True)
    model, limits, right = _model(), Limits(disk_reserve_bytes=0), _right_keys()
    here = KeyStore(directory, model, limits)
    names = ["f" * 32]
    for _ in range(choices.ConsumeIntInRange(0, 12)):
        tenant = choices.PickValueInList([ALICE, BOB])
        name = choices.PickValueInList(names)
        element = choices.PickValueInList([*KEYS, 5])
        try:
            match choices.ConsumeIntInRange(0, 5):
                case 0:
                    names.append(here.create(tenant))
                case 1:
                    here.delete(name, tenant)
                case 2:
                    here.close()
                    here = KeyStore(directory, model, limits)
                case 3:
                    here.append(name, tenant, element, choices.ConsumeIntInRange(0, 2000), choices.ConsumeBytes(300))
                case _:
                    data = right.get(element, b"")
                    offset = choices.PickValueInList([0, 0, 500])
                    here.append(
                        name, tenant, element, offset, data[offset : offset + choices.PickValueInList([500, 5000])]
                    )
        except WireError as error:
            assert error.reason in REASONS
    for name in here.index.names():
        owner = here.index.tenant_of(name)
        for element, path in here.files(name, str(owner)).items():
            assert Path(path).read_bytes() == right[element]
    files = {path.name for path in (directory / "objects").rglob("*") if path.is_file()}
    assert files == {digest for _, digest in here.index.files()}
    here.close()


TARGETS: dict[str, Target] = {
    "key": lambda content: _read("key", content),
    "fresh": lambda content: _read("fresh", content),
    "result": lambda content: _read("result", content),
    "answer": lambda content: _read("answer", content),
    "frames": frames,
    "plan": plan,
    "tokens": tokens,
    "store": store,
}
_MEMORY = Path("/dev/shm")  # the store syncs every key: on a disk that is all it would do
_SCRATCH = Path(tempfile.mkdtemp(prefix="thex-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
_TOKENS = TokenFile(_SCRATCH / "tokens.json")


def _seeds(target: str) -> Path:
    """Where the fuzzer begins: the corpus, and right messages."""
    directory = _SCRATCH / "seeds"
    directory.mkdir()
    for path in CORPUS.glob(f"{target}.*"):
        shutil.copy(path, directory)
    for kind, right in right_messages().items():
        if target in (kind, "frames"):
            (directory / kind).write_bytes(right)
    if target == "plan":
        (directory / "plan").write_text(
            json.dumps({"format": "thex-client-plan", "format_version": 1, "parameters": {}})
        )
    return directory


def main() -> None:
    """Run one target; exit code 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    _TOKENS.add("alice", 1)
    options = [
        sys.argv[0],
        str(_seeds(arguments.target)),
        f"-max_total_time={arguments.seconds}",
        "-max_len=4096",
        "-timeout=5",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={_SCRATCH}/",
    ]
    atheris.Setup(options, TARGETS[arguments.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
