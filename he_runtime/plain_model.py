"""The replaced model in numpy, float64, straight from its formulas: what the encrypted program is compared with."""

import math

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import EncoderWeights, LayerWeights

Array = NDArray[np.float64]


def logits(weights: EncoderWeights, embedded: Array) -> Array:
    """Outputs float64 of one text: [classes], or [hidden] of a sentence encoder. embedded: [tokens, hidden], without padding."""
    hidden = embedded
    centred = weights.replacements.softmax == "quadratic_centred"
    for layer in weights.layers:
        hidden = _encoder_layer(layer, weights.architecture.heads, hidden, centred=centred)
    pooled = hidden[0] if weights.architecture.pooling == "first" else hidden.mean(axis=0)
    if weights.pooler is not None:
        pooled = pooled @ weights.pooler + weights.pooler_bias
    return np.asarray(pooled @ weights.classifier + weights.classifier_bias, np.float64)


def _encoder_layer(layer: LayerWeights, heads: int, x: Array, *, centred: bool) -> Array:
    tokens, width = x.shape
    size = width // heads

    def split(y: Array) -> Array:  # [tokens, hidden] -> [heads, tokens, head size]
        return y.reshape(tokens, heads, size).transpose(1, 0, 2)

    query = split(x @ layer.query + layer.query_bias)
    key = split(x @ layer.key + layer.key_bias)
    value = split(x @ layer.value + layer.value_bias)
    score = query @ key.transpose(0, 2, 1) / math.sqrt(size)
    if centred:
        score = score - score.mean(axis=2, keepdims=True)
    a, b, c = (layer.attention_coefficients[:, i, None, None] for i in range(3))
    attention = (a * score**2 + b * score + c) / tokens
    context = (attention @ value).transpose(1, 0, 2).reshape(tokens, width)
    residual = x + context @ layer.attention_output + layer.attention_output_bias
    normed = _affine_centred(residual, layer.attention_norm, layer.attention_norm_bias)
    pre = normed @ layer.up + layer.up_bias
    g2, g1, g0 = layer.activation_coefficients.T
    active = g2 * pre**2 + g1 * pre + g0
    return _affine_centred(normed + active @ layer.down + layer.down_bias, layer.output_norm, layer.output_norm_bias)


def _affine_centred(x: Array, gamma: Array, beta: Array) -> Array:
    return np.asarray((x - x.mean(axis=1, keepdims=True)) * gamma + beta, np.float64)
