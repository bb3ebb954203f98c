"""A teacher's hidden states over a corpus, computed once and kept on disk, so that every student and epoch reads them.

The input of one layer is kept (float16); that layer's queries, keys and values follow from it by three matrix products,
which is cheaper than three more files of the same size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thex.atomic import write_text
from thex.data import Encoded, pad
from thex.encoder import Encoder, Layer
from thex.precision import mixed
from thex.progress import Progress, silent
from thex.recorder import Recorder
from thex.relations import Vectors

BATCH = 64
KEPT_EVERY = 40  # batches between two marks in progress.json


class TeacherStates:
    """The input of layer `layer` (from 0) for every token of `texts`; complete when constructed.

    Files in directory: states.npy float16 [tokens, hidden], progress.json. A stopped computation resumes.
    Raises ValueError when the directory holds states of other texts or another layer.
    """

    def __init__(
        self, directory: Path, teacher: Encoder, texts: Encoded, layer: int, progress: Progress = silent
    ) -> None:
        if not 0 < layer < teacher.config.layers:
            raise ValueError(f"layer {layer} of the teacher: expected 1 to {teacher.config.layers - 1}, counted from 0")
        self.teacher, self.texts, self.layer = teacher.eval(), texts, layer
        lengths = [len(ids) for ids in texts.ids]
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
        directory.mkdir(parents=True, exist_ok=True)
        self._mark = directory / "progress.json"
        self._identity = self._identify()
        shape = (int(self.offsets[-1]), teacher.config.hidden)
        path = directory / "states.npy"
        done = self._done()
        if done == 0:
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
        self.states = np.lib.format.open_memmap(path, mode="r+")
        self._compute(done, progress)

    def _identify(self) -> str:
        digest = hashlib.sha256(f"{self.layer}".encode())
        for ids in self.texts.ids:
            digest.update(np.array([len(ids), *ids], np.int32).tobytes())
        digest.update(self.teacher.word.weight.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _done(self) -> int:
        if not self._mark.exists():
            return 0
        mark = json.loads(self._mark.read_text())
        if mark["identity"] != self._identity:
            raise ValueError(
                f"{self._mark.parent} holds states of other texts or another teacher; choose another directory"
            )
        return int(mark["batches"])

    @torch.no_grad()
    def _compute(self, done: int, progress: Progress) -> None:
        device = next(self.teacher.parameters()).device
        order = sorted(range(len(self.texts)), key=lambda index: len(self.texts.ids[index]))
        starts = range(0, len(order), BATCH)
        for number, start in enumerate(starts):
            if number < done:
                continue
            batch = pad(self.texts, order[start : start + BATCH], device)
            with mixed(device):
                states = self.teacher.hidden_before(self.layer, batch.ids, batch.mask, batch.types)
            for row, index in enumerate(batch.indices):
                begin, end = self.offsets[index], self.offsets[index + 1]
                self.states[begin:end] = states[row, : end - begin].to("cpu", torch.float16).numpy()
            progress("teacher states", number + 1, len(starts))
            if (number + 1) % KEPT_EVERY == 0 or number + 1 == len(starts):
                self.states.flush()
                write_text(self._mark, json.dumps({"identity": self._identity, "batches": number + 1}))

    def inputs(self, indices: Sequence[int], length: int, device: torch.device) -> torch.Tensor:
        """States float32 [len(indices), length, hidden], zero at padding."""
        states = torch.zeros(len(indices), length, self.states.shape[1])
        for row, index in enumerate(indices):
            begin, end = self.offsets[index], self.offsets[index + 1]
            states[row, : end - begin] = torch.from_numpy(self.states[begin:end].astype(np.float32))
        return states.to(device)

    @torch.no_grad()
    def vectors(self, inputs: torch.Tensor) -> dict[Vectors, torch.Tensor]:
        """The layer's query, key and value vectors [batch, tokens, hidden] from its inputs."""
        layer = self.teacher.layers[self.layer]
        if not isinstance(layer, Layer):
            raise TypeError("a teacher has layers of thex.encoder")
        return {"query": layer.query(inputs), "key": layer.key(inputs), "value": layer.value(inputs)}


def student_vectors(recorder: Recorder, layer: int) -> dict[Vectors, torch.Tensor]:
    """The same of a student's layer, from a recorded forward pass."""
    return {"query": recorder["query", layer], "key": recorder["key", layer], "value": recorder["value", layer]}
