"""A BERT-shaped encoder for sequence classification whose parts can be exact, replaced, or in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from approx.blending import Blended
from approx.norm import ExactNorm
from approx.registry import Shape, build
from thex.config import EncoderConfig, Replacements
from thex.recorder import Recorder


@dataclass(frozen=True)
class Ratios:
    """How far each operation has moved from exact (0) to replaced (1)."""

    softmax: float
    activation: float
    norm: float
    pooler: float


EXACT = Ratios(0, 0, 0, 0)
REPLACED = Ratios(1, 1, 1, 1)


def _blended(operation: str, name: str, shape: Shape) -> Blended:
    return Blended(build(operation, "exact", shape), build(operation, name, shape))


class Layer(nn.Module):
    """Self-attention and feed-forward, each followed by the residual and a norm (post-norm, as BERT)."""

    def __init__(self, config: EncoderConfig, replacements: Replacements) -> None:
        super().__init__()
        hidden, inner = config.hidden, config.intermediate
        shape = Shape(hidden, config.heads, inner, config.norm_epsilon)
        self.heads = config.heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.attention_output = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.softmax = _blended("softmax", replacements.softmax, shape)
        self.activation = _blended("activation", replacements.activation, shape)
        self.attention_norm = _blended("norm", replacements.norm, shape)
        self.output_norm = _blended("norm", replacements.norm, shape)

    def forward(
        self, inputs: torch.Tensor, mask: torch.Tensor, ratios: Ratios, recorder: Recorder, index: int
    ) -> torch.Tensor:
        """inputs [batch, tokens, hidden], mask [batch, tokens] -> the same shape as inputs."""
        batch, tokens, hidden = inputs.shape

        def per_head(features: torch.Tensor) -> torch.Tensor:
            return features.view(batch, tokens, self.heads, hidden // self.heads).transpose(1, 2)

        query, key, value = self.query(inputs), self.key(inputs), self.value(inputs)
        score = per_head(query) @ per_head(key).transpose(-1, -2) / math.sqrt(hidden // self.heads)
        attention = self.softmax(ratios.softmax, score, mask)
        context = (attention @ per_head(value)).transpose(1, 2).reshape(batch, tokens, hidden)
        context = recorder.hold("context", index, context)
        attention_output = self.attention_output(context)
        residual = inputs + attention_output
        normed = recorder.hold("normed", index, self.attention_norm(ratios.norm, residual))
        preactivation = self.up(normed)
        activation = self.activation(ratios.activation, preactivation)
        output_residual = normed + self.down(activation)
        output = recorder.hold("output", index, self.output_norm(ratios.norm, output_residual))
        points = {
            "query": query, "key": key, "value": value, "score": score, "attention": attention, "context": context,
            "attention_output": attention_output, "residual": residual, "normed": normed,
            "preactivation": preactivation, "activation": activation, "output_residual": output_residual,
            "output": output,
        }  # fmt: skip
        for point, tensor in points.items():
            recorder.record(point, index, tensor)
        return output


class Encoder(nn.Module):
    """Embeddings, layers, pooler and classifier; parts that an encrypted run replaces are `Blended`."""

    def __init__(self, config: EncoderConfig, replacements: Replacements) -> None:
        super().__init__()
        self.config = config
        self.replacements = replacements
        width = config.embedding or config.hidden
        self.word = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.positions, width)
        self.token_type = nn.Embedding(config.token_types, width)
        self.embedding_norm = ExactNorm(width, config.norm_epsilon)
        self.projection = nn.Linear(width, config.hidden) if config.embedding else None
        self.layers = nn.ModuleList(Layer(config, replacements) for _ in range(config.layers))
        shape = Shape(config.hidden, config.heads, config.intermediate, config.norm_epsilon)
        self.pooler: nn.Linear | None = None
        self.pooler_function: Blended | None = None
        if config.pooling == "first":
            self.pooler = nn.Linear(config.hidden, config.hidden)
            self.pooler_function = _blended("pooler", replacements.pooler, shape)
        self.classifier = nn.Linear(config.hidden, config.labels) if config.head else nn.Identity()

    def embed(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """x0 [batch, tokens, hidden], zero at padding as the client sends it. ids, types int64 [batch, tokens]."""
        tokens = ids.shape[1]
        if tokens > self.config.positions:
            raise ValueError(f"{tokens} tokens, but the model has {self.config.positions} positions: truncate")
        summed = self.word(ids) + self.position.weight[:tokens] + self.token_type(types)
        embedded: torch.Tensor = self.embedding_norm(summed)
        if self.projection is not None:
            embedded = self.projection(embedded)
        return embedded * mask[:, :, None]

    def hidden_before(self, layer: int, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """What reaches layer `layer` (from 0) of the exact encoder: [batch, tokens, hidden]. Later layers do not run."""
        hidden = self.embed(ids, mask, types)
        for index in range(layer):
            hidden = self.layers[index](hidden, mask, EXACT, Recorder(), index)
        return hidden

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        types: torch.Tensor,
        ratios: Ratios = EXACT,
        recorder: Recorder | None = None,
    ) -> torch.Tensor:
        """Logits [batch, labels], of pooling "tokens" [batch, tokens, labels].

        mask: float [batch, tokens], 1 for real tokens, at least one a text.
        """
        recorder = recorder if recorder is not None else Recorder()
        hidden = self.embed(ids, mask, types)
        recorder.record("embedding", -1, hidden)
        hidden = self._dropped(hidden)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, mask, ratios, recorder, index)
        if self.config.pooling == "tokens":
            pooled = hidden
        elif self.pooler is None or self.pooler_function is None:
            pooled = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        else:
            pooled = self.pooler_function(ratios.pooler, self.pooler(hidden[:, 0]))
        recorder.record("pooled", -1, pooled)
        logits: torch.Tensor = self.classifier(self._dropped(pooled))
        recorder.record("logits", -1, logits)
        return logits

    def _dropped(self, tensor: torch.Tensor) -> torch.Tensor:
        return functional.dropout(tensor, self.config.dropout, self.training) if self.config.dropout else tensor
