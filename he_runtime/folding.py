"""Folding passes: algebra that removes plaintext products, and with them levels, without changing any output.

Only products of ciphertexts and plaintext products that cannot be folded cost levels (TRAINING.md). Each pass is a pure function
Network -> Network; `PASSES` lists them in the order in which they apply.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from he_runtime.errors import PlanError
from he_runtime.network import Affine, Network, replace_layers


def fold_score_scale(network: Network) -> Network:
    """1/sqrt(d) goes into the query matrix."""
    return replace_layers(
        network,
        [
            replace(layer, query=layer.query.scaled(np.full(len(layer.query.bias), layer.score_scale)), score_scale=1.0)
            for layer in network.layers
        ],
    )


def complete_attention_square(network: Network) -> Network:
    """a·S² + b·S + c = s·[(α·S + β)² + γ], s = sign(a), α = sqrt|a|, β = s·b/2α, γ = s·(c − b²/4a).

    α goes into the query matrix and s into the value matrix, so that the polynomial is one squaring and one addition.
    A head without a square (a = 0, linear attention) gets α = b and s = 1 and keeps its degree.
    """
    layers = []
    for layer in network.layers:
        a, b, c = layer.attention.T
        if np.all(a == 0):
            factor, sign, shift = b, np.ones_like(b), np.zeros_like(b)
            polynomial = np.stack([a, np.ones_like(b), c], axis=1)
        elif np.any(a == 0):
            raise PlanError("a layer mixes heads with and without a quadratic term; train all of them alike")
        else:
            factor, sign = np.sqrt(np.abs(a)), np.sign(a)
            shift = sign * b / (2 * factor)
            polynomial = np.stack([np.ones_like(a), np.zeros_like(a), sign * (c - b * b / (4 * a))], axis=1)
        size = len(layer.query.bias) // network.heads
        layers.append(
            replace(
                layer,
                query=layer.query.scaled(np.repeat(factor, size)),
                value=layer.value.scaled(np.repeat(sign, size)),
                score_shift=shift,
                attention=polynomial,
            )
        )
    return replace_layers(network, layers)


def complete_activation_square(network: Network) -> Network:
    """g2·t² + g1·t + g0 = s·(α·t + β)² + γ per neuron: α and β go into the matrix before it, s and γ into the one after."""
    layers = []
    for layer in network.layers:
        g2, g1, g0 = layer.activation.T
        if np.any(g2 == 0):
            raise PlanError("an activation has no quadratic term; a square cannot stand for it")
        factor, sign = np.sqrt(np.abs(g2)), np.sign(g2)
        up = layer.up.scaled(factor)
        (down,) = layer.down.matrices
        layers.append(
            replace(
                layer,
                up=replace(up, bias=up.bias + sign * g1 / (2 * factor)),
                down=Affine((sign[:, None] * down,), layer.down.bias + (g0 - g1**2 / (4 * g2)) @ down),
                activation=np.tile([1.0, 0.0, 0.0], (len(g2), 1)),
            )
        )
    return replace_layers(network, layers)


def fold_norms(network: Network) -> Network:
    """γ, β and the mean subtraction go into the matrices that read the normed value; the state becomes (z, u)."""
    layers = []
    for layer in network.layers:
        if layer.norm is None or layer.output_norm is None:
            raise PlanError("the norms are folded already")
        first, second = layer.norm.as_affine(), layer.output_norm.as_affine()
        layers.append(
            replace(
                layer,
                norm=None,
                up=layer.up.after(first),
                skip=second.after(first),
                down=Affine(second.after(layer.down).matrices, layer.down.bias @ second.matrices[0]),
                output_norm=None,
            )
        )
    # With the state (z, u), whoever reads it applies skip and down: the next layer's stream, or the head.
    streams = [_join(layer.skip, layer.down) for layer in layers]
    layers[1:] = [replace(layer, stream=stream) for layer, stream in zip(layers[1:], streams, strict=False)]
    pooler = network.pooler.after(streams[-1]) if network.pooler is not None else None
    classifier = network.classifier if pooler is not None else network.classifier.after(streams[-1])
    return replace(network, layers=tuple(layers), pooler=pooler, classifier=classifier)


def fold_attention_output_into_up(network: Network) -> Network:
    """t = (x + y·Wo + bo)·W1 + b1 reads y and x at once: Wo·W1 is one matrix, and z no longer lies before t."""
    layers = []
    for layer in network.layers:
        from_context = layer.up.after(layer.context)
        layers.append(
            replace(
                layer,
                up_from_context=Affine((*from_context.matrices, *layer.up.matrices), from_context.bias),
            )
        )
    return replace_layers(network, layers)


def fold_down_into_next_layer(network: Network) -> Network:
    """Query and key of the next layer read the state (z, u) at once, one level earlier than through x.

    So does the value where attention is linear. With a square the value has a level to spare, and in a last layer that works for
    the first token alone, its query takes a level more to be broadcast, so key and value go on reading x, which is cheaper;
    but for a key that is centred, which takes that level too.
    """
    layers = [network.layers[0]]
    for layer in network.layers[1:]:
        if layer.stream is None:
            raise PlanError("fold_norms must come before fold_down_into_next_layer")
        last = layer is network.layers[-1] and network.pooling == "first"
        early_key = not last or layer.keys_centred
        early_value = not last and not layer.attention[:, 0].any()
        layers.append(
            replace(
                layer,
                query=layer.query.after(layer.stream),
                query_reads_state=True,
                key=layer.key.after(layer.stream) if early_key else layer.key,
                key_reads_state=early_key,
                value=layer.value.after(layer.stream) if early_value else layer.value,
                value_reads_state=early_value,
            )
        )
    return replace_layers(network, layers)


def fold_pooler_into_classifier(network: Network) -> Network:
    """The linear pooler and the classifier are one matrix."""
    if network.pooler is None:
        return network
    return replace(network, pooler=None, classifier=network.classifier.after(network.pooler))


PASSES: tuple[Callable[[Network], Network], ...] = (
    fold_score_scale,
    complete_attention_square,
    complete_activation_square,
    fold_norms,
    fold_attention_output_into_up,
    fold_down_into_next_layer,
    fold_pooler_into_classifier,
)


def fold(network: Network) -> Network:
    """All passes, in order."""
    for folding_pass in PASSES:
        network = folding_pass(network)
    return network


def _join(skip: Affine | None, down: Affine) -> Affine:
    if skip is None:
        raise PlanError("the norms are not folded yet")
    return Affine((*skip.matrices, *down.matrices), skip.bias + down.bias)
