"""Random encoders of any shape whose values stay in a sane range: for benchmarks of shapes that nobody has trained, and tests."""

import numpy as np
from numpy.typing import NDArray

from he_runtime.bundle import Architecture, EncoderWeights, LayerWeights, Pooling, Replacements, Softmax


def random_weights(
    layers: int,
    hidden: int,
    heads: int,
    intermediate: int,
    *,
    softmax: Softmax = "quadratic",
    classes: int | None = 2,
    pooling: Pooling = "first",
    seed: int = 0,
) -> EncoderWeights:
    """Weights of the given shape, the same for the same seed. classes: None for a sentence encoder without a head."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float64]:
        return random.normal(size=shape)

    def matrix(rows: int, columns: int) -> NDArray[np.float64]:
        return normal(rows, columns) * 0.6 / np.sqrt(rows)

    def layer() -> LayerWeights:
        attention = np.stack([normal(heads) * 0.1 + 0.3, normal(heads) * 0.2 + 0.5, normal(heads) * 0.1 + 1], axis=1)
        attention[::2, 0] *= -1  # some parabolas open downwards
        if softmax == "linear":
            attention[:, 0] = 0
        activation = np.stack(
            [0.1 + 0.02 * normal(intermediate), 0.5 + 0.05 * normal(intermediate), 0.2 + 0.02 * normal(intermediate)],
            axis=1,
        )
        activation[::3, 0] *= -1
        return LayerWeights(
            query=matrix(hidden, hidden),
            query_bias=normal(hidden) * 0.1,
            key=matrix(hidden, hidden),
            key_bias=normal(hidden) * 0.1,
            value=matrix(hidden, hidden),
            value_bias=normal(hidden) * 0.1,
            attention_output=matrix(hidden, hidden),
            attention_output_bias=normal(hidden) * 0.1,
            up=matrix(hidden, intermediate),
            up_bias=normal(intermediate) * 0.1,
            down=matrix(intermediate, hidden),
            down_bias=normal(hidden) * 0.1,
            attention_coefficients=attention,
            activation_coefficients=activation,
            attention_norm=0.8 + 0.05 * normal(hidden),
            attention_norm_bias=normal(hidden) * 0.1,
            output_norm=0.8 + 0.05 * normal(hidden),
            output_norm_bias=normal(hidden) * 0.1,
        )

    return EncoderWeights(
        Architecture(
            layers=layers,
            hidden=hidden,
            heads=heads,
            intermediate=intermediate,
            vocabulary=16,
            positions=128,
            token_types=2,
            embedding_norm_epsilon=1e-12,
            pooling=pooling,
        ),
        Replacements(softmax=softmax, activation="quadratic", norm="affine_centred", pooler="linear"),
        tuple(layer() for _ in range(layers)),
        normal(hidden, hidden) / np.sqrt(hidden) if pooling == "first" else None,
        normal(hidden) * 0.1,
        normal(hidden, classes) / np.sqrt(hidden) if classes is not None else np.eye(hidden),
        normal(classes) * 0.1 if classes is not None else np.zeros(hidden),
    )


def random_text(tokens: int, hidden: int, seed: int = 1) -> NDArray[np.float64]:
    """Embedded tokens as a LayerNorm leaves them: [tokens, hidden], centred, of unit variance."""
    x = np.random.default_rng(seed).normal(size=(tokens, hidden))
    x -= x.mean(axis=1, keepdims=True)
    return x / x.std(axis=1, keepdims=True)
