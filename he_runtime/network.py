"""The replaced encoder as affine maps and squares: the form that folding passes rewrite and that lowering reads.

A layer reads the *state* of the layer before it, a tuple of arrays whose last axis is features. Before folding the state is
(x,); after `fold_down_into_next_layer` it is (z, u), the residual stream and the squared pre-activations.
`evaluate` runs any stage of folding in float64, which is how every pass is tested to leave the outputs unchanged.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import EncoderWeights, LayerWeights, Pooling

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """y = sum_i state[i]·matrices[i] + bias, on row vectors."""

    matrices: tuple[Array, ...]
    bias: Array

    def __call__(self, state: tuple[Array, ...]) -> Array:
        """Apply to the last axis."""
        return np.asarray(
            sum(part @ matrix for part, matrix in zip(state, self.matrices, strict=True)) + self.bias, np.float64
        )

    def after(self, first: "Affine") -> "Affine":
        """The map that applies `first`, then this one (which must read a single array)."""
        (matrix,) = self.matrices
        return Affine(tuple(before @ matrix for before in first.matrices), first.bias @ matrix + self.bias)

    def scaled(self, factors: Array) -> "Affine":
        """Every output feature times its factor."""
        return Affine(tuple(matrix * factors for matrix in self.matrices), self.bias * factors)


@dataclass(frozen=True)
class CentredNorm:
    """γ∘(x − mean(x)) + β."""

    gamma: Array
    beta: Array

    def as_affine(self) -> Affine:
        """The same map as one matrix: (I − 11ᵀ/H)·diag(γ)."""
        size = len(self.gamma)
        return Affine(((np.eye(size) - 1.0 / size) * self.gamma,), self.beta)


@dataclass(frozen=True)
class Layer:
    """One encoder layer. The fields named first are what the formulas of the model say; a pass replaces them."""

    stream: Affine | None
    """state -> x, the layer's input; None while the state is x itself."""
    query: Affine
    key: Affine
    value: Affine
    query_reads_state: bool
    """Whether the query reads the state rather than x, as it does after folding; and so for key and value."""
    key_reads_state: bool
    value_reads_state: bool
    keys_centred: bool
    """Whether the text's mean key is subtracted from every key, so that a row's scores have mean zero."""
    score_scale: float
    score_shift: Array  # [heads], added to the score before the polynomial
    attention: Array  # [heads, 3], highest degree first
    context: Affine  # y -> its share of z
    norm: CentredNorm | None
    up: Affine
    up_from_context: Affine | None
    """After folding, the pre-activation reads y and x at once: t = y·.. + x·.. + bias."""
    activation: Array  # [intermediate, 3], highest degree first
    skip: Affine | None
    """z -> its share of the output; None before folding, when the normed z is carried."""
    down: Affine
    output_norm: CentredNorm | None


@dataclass(frozen=True)
class Network:
    """Layers and the head that reads the first token, or the mean over all."""

    heads: int
    layers: tuple[Layer, ...]
    pooler: Affine | None
    classifier: Affine
    """Of a sentence encoder without a head, the identity."""
    pooling: Pooling


def network_of(weights: EncoderWeights) -> Network:
    """The unfolded network, straight from the bundle."""
    heads, centred = weights.architecture.heads, weights.replacements.softmax == "quadratic_centred"
    return Network(
        heads,
        tuple(_layer(layer, heads, centred=centred) for layer in weights.layers),
        Affine((weights.pooler,), weights.pooler_bias) if weights.pooler is not None else None,
        Affine((weights.classifier,), weights.classifier_bias),
        weights.architecture.pooling,
    )


def _layer(layer: LayerWeights, heads: int, *, centred: bool) -> Layer:
    return Layer(
        stream=None,
        query=Affine((layer.query,), layer.query_bias),
        key=Affine((layer.key,), layer.key_bias),
        value=Affine((layer.value,), layer.value_bias),
        query_reads_state=False,
        key_reads_state=False,
        value_reads_state=False,
        keys_centred=centred,
        score_scale=1 / math.sqrt(layer.query.shape[1] // heads),
        score_shift=np.zeros(heads),
        attention=layer.attention_coefficients,
        context=Affine((layer.attention_output,), layer.attention_output_bias),
        norm=CentredNorm(layer.attention_norm, layer.attention_norm_bias),
        up=Affine((layer.up,), layer.up_bias),
        up_from_context=None,
        activation=layer.activation_coefficients,
        skip=None,
        down=Affine((layer.down,), layer.down_bias),
        output_norm=CentredNorm(layer.output_norm, layer.output_norm_bias),
    )


def evaluate(network: Network, embedded: Array) -> Array:
    """Outputs float64 [classes or features] of one text, embedded [tokens, hidden] without padding."""
    state: tuple[Array, ...] = (embedded,)
    for layer in network.layers:
        state = _evaluate_layer(layer, network.heads, state)
    if network.pooling == "first":
        pooled = tuple(part[:1] for part in state)
    else:
        pooled = tuple(part.mean(axis=0, keepdims=True) for part in state)
    if network.pooler is not None:
        pooled = (network.pooler(pooled),)
    return np.asarray(network.classifier(pooled)[0], np.float64)


def _evaluate_layer(layer: Layer, heads: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
    x = layer.stream(state) if layer.stream is not None else state[0]
    tokens = len(x)

    def split(y: Array) -> Array:
        return y.reshape(tokens, heads, -1).transpose(1, 0, 2)

    query = split(layer.query(state if layer.query_reads_state else (x,)))
    key = split(layer.key(state if layer.key_reads_state else (x,)))
    value = split(layer.value(state if layer.value_reads_state else (x,)))
    if layer.keys_centred:
        key = key - key.mean(axis=1, keepdims=True)
    score = query @ key.transpose(0, 2, 1) * layer.score_scale + layer.score_shift[:, None, None]
    a, b, c = (layer.attention[:, i, None, None] for i in range(3))
    y = ((a * score**2 + b * score + c) / tokens @ value).transpose(1, 0, 2).reshape(tokens, -1)
    z = x + layer.context((y,))
    h = layer.norm.as_affine()((z,)) if layer.norm is not None else z
    t = layer.up_from_context((y, x)) if layer.up_from_context is not None else layer.up((h,))
    a2, a1, a0 = layer.activation.T
    u = a2 * t**2 + a1 * t + a0
    if layer.skip is None:
        out = h + layer.down((u,))
        return (layer.output_norm.as_affine()((out,)) if layer.output_norm is not None else out,)
    return (z, u)


def replace_layers(network: Network, layers: list[Layer]) -> Network:
    """The network with other layers."""
    return replace(network, layers=tuple(layers))
