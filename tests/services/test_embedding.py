"""Embeddings through the client: against the plain model, cached, searched, and never mixed up with classification."""

import asyncio
import json
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from he_runtime.bundle import Bundle
from he_runtime.errors import RangeError
from he_runtime.plain_model import logits as plain_outputs
from services.cli.main import app
from services.client import AsyncClient, Client, EmbeddingCache, OutOfRangeError
from services.client.testing import FakeServer
from services.indexing import expect_indexable, passage_vectors, write_search_bundle
from services.local import LocalServer, local_server
from services.plain_answers import PlainAnswers
from services.search_evaluation import evaluate_search
from tests.bundles import write_small_bundle
from tests.services.tiny import tiny_client, tiny_server

TEXTS = ["the film was good", "bad", "a film a film", "the the the was bad"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("embedding") / "bundle", embedding=True)


def plain(bundle: Path, client: Client, texts: list[str]) -> np.ndarray:
    weights = Bundle.open(bundle).weights()
    rows = np.array([plain_outputs(weights, client.model.embed(*client.tokenise(text))) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("lowering", ["hadamard sums", "token shifts"])
def test_embeddings_are_the_plain_models_and_of_unit_length(bundle: Path, tmp_path: Path, lowering: str) -> None:
    with FakeServer(bundle, lowering=lowering) as server, server.client(tmp_path / "keys") as client:
        found = client.embed(TEXTS)
        assert (found.dtype, found.shape) == (np.float32, (4, 8))
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=1e-6)
        # Noise of 2^-17 or so on features of a vector of length about 1.
        np.testing.assert_allclose(found, plain(bundle, client, TEXTS), rtol=0, atol=1e-3)
        assert client.embed([]).shape == (0, 8)
        one = client.embed_one(TEXTS[0])
        np.testing.assert_array_equal(one.share(4) * 16, np.round(one.share(4) * 16))
        with pytest.raises(ValueError, match="from 1 to 12 may be shared"):
            one.share(20)
        with pytest.raises(ValueError, match="call embed"):
            client.classify(TEXTS[0])


def test_a_classifier_gives_no_vectors_and_a_vector_without_direction_is_none(tmp_path: Path) -> None:
    classifier = write_small_bundle(tmp_path / "classifier")
    with (
        FakeServer(classifier) as server,
        server.client(tmp_path / "keys") as client,
        pytest.raises(ValueError, match="for classification: call classify"),
    ):
        client.embed(TEXTS)
    narrow = write_small_bundle(tmp_path / "narrow", embedding=True, logit_range=1e-3)
    with (
        FakeServer(narrow) as server,
        server.client(tmp_path / "keys") as client,
        pytest.raises(OutOfRangeError, match="outside the calibrated range"),
    ):
        client.embed(TEXTS)


def test_a_vector_beyond_the_calibrated_length_is_refused_by_embedding_and_by_search(
    bundle: Path, tmp_path: Path
) -> None:
    """Whatever its single outputs are: they are all within their own range here."""
    answers = PlainAnswers(Bundle.open(bundle))
    with FakeServer(bundle) as server, server.client(tmp_path / "all") as client:
        lengths = [float(np.linalg.norm(answers.outputs(*client.tokenise(text)))) for text in TEXTS]
    order = np.argsort(lengths)
    shorter, longest = TEXTS[order[-2]], TEXTS[order[-1]]
    assert lengths[order[-1]] > 1.01 * lengths[order[-2]]
    most = (lengths[order[-1]] + lengths[order[-2]]) / 2
    bounded = write_small_bundle(tmp_path / "bounded", embedding=True, length=most)
    vectors = np.eye(3, 8, dtype=np.float32)
    write_search_bundle(Bundle.open(bounded), vectors, tmp_path / "search")
    for directory, call in ((bounded, "embed_one"), (tmp_path / "search", "search")):
        plain_model = PlainAnswers(Bundle.open(directory))
        with FakeServer(directory) as server, server.client(tmp_path / f"keys-{call}") as client:
            getattr(client, call)(shorter)
            plain_model.answer(*client.tokenise(shorter))
            with pytest.raises(OutOfRangeError, match="beyond the calibrated range"):
                getattr(client, call)(longest)
            with pytest.raises(RangeError, match="beyond the calibrated range"):
                plain_model.answer(*client.tokenise(longest))


def test_the_async_twin_embeds_too(bundle: Path, tmp_path: Path) -> None:
    async def ask(server: FakeServer) -> np.ndarray:
        options = {"insecure": True, "allow_insecure_test": True}
        async with AsyncClient(server.target, tmp_path / "keys", **options) as client:
            return await client.embed(TEXTS[:2])

    with FakeServer(bundle) as server:
        assert asyncio.run(ask(server)).shape == (2, 8)


def test_each_text_is_embedded_once_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def embed(text: str) -> np.ndarray:
        if text == "stop":
            raise KeyboardInterrupt
        asked.append(text)
        return np.full(3, len(asked), np.float32)

    path = tmp_path / "cache" / "vectors.sqlite"
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(path, "model").fill(["a", "b", "stop"], embed)
    cache = EmbeddingCache(path, "model")
    assert cache.missing(["c", "b", "c", "a"]) == ["c"]
    with pytest.raises(ValueError, match="1 of 2 texts have not been embedded"):
        cache.vectors(["c", "b"])
    cache.fill(["c", "b", "c", "a"], embed)
    found = cache.vectors(["c", "b", "c", "a"])
    cache.fill(["nowhere"], lambda _text: None)
    assert cache.missing(["nowhere"]) == ["nowhere"]
    with pytest.raises(ValueError, match="holds vectors of another model"):
        EmbeddingCache(path, "another")
    assert asked == ["a", "b", "c"]
    np.testing.assert_array_equal(found[:, 0], [3, 2, 3, 1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"stop" not in path.read_bytes()


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with tiny_server(bundle, tmp_path_factory.mktemp("served")) as running:
        yield running


def test_a_real_server_embeds(bundle: Path, served: LocalServer, tmp_path: Path) -> None:
    with tiny_client(served, tmp_path / "keys") as client:
        np.testing.assert_allclose(client.embed(TEXTS), plain(bundle, client, TEXTS), rtol=0, atol=1e-3)


def test_the_commands_embed_and_search_with_real_parameters(bundle: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([*TEXTS, "", TEXTS[0]]))
    with local_server(bundle, threads=1, directory=tmp_path / "server") as server:
        options = ["--server", server.target, "--keys", str(tmp_path / "keys"), "--authority", str(server.authority)]

        def call(*arguments: str) -> dict:
            result = CliRunner().invoke(app, [*arguments, *options, "--json"])
            assert result.exit_code == 0, result.output
            return json.loads(result.stdout)

        embedded = call("embed", *TEXTS, "--out", str(tmp_path / "vectors.npy"))
        vectors = np.load(tmp_path / "vectors.npy")
        assert embedded["bytes_up"] > embedded["bytes_down"] > 0
        with Client(server.target, tmp_path / "keys", server.authority) as client:
            wanted = plain(bundle, client, TEXTS)
        np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-3)
        cosines = wanted @ wanted[1]
        found = call("search", TEXTS[1], "--corpus", str(corpus), "--top", "3")
        assert [row["passage"] for row in found["passages"]] == [TEXTS[i] for i in (-cosines).argsort()[:3]]
        assert (found["embedded"], found["left_out"]) == (1, 0)  # the query: all passages were embedded before
        corpus.write_text("\n".join([*TEXTS, "the [/b] film", "the " * 500]))
        for embeds in (2, 1):  # at first one passage more
            found = call("search", TEXTS[1], "--corpus", str(corpus))
            assert (found["embedded"], found["left_out"]) == (embeds, 1)  # one is too long
        shown = CliRunner().invoke(app, ["search", "the film", "--corpus", str(corpus), "--top", "9", *options])
        assert shown.exit_code == 0, shown.output
        assert "the [/b] film" in shown.output
        assert "left out: the the" in shown.output
        wrong = CliRunner().invoke(app, ["search", "the film", *options])
        assert wrong.exit_code == 1
        assert "this server's model is for embedding" in wrong.output
        nothing = CliRunner().invoke(app, ["embed", *options])
        assert nothing.exit_code == 1
        assert "nothing to embed" in nothing.output


def test_an_evaluation_of_a_search_sees_a_passage_in_another_place(bundle: Path, tmp_path: Path) -> None:
    passages = ["good", "bad film", "a film was the the", "the the bad"]
    encoder = Bundle.open(bundle)
    write_search_bundle(encoder, passage_vectors(encoder, passages), tmp_path / "search")
    searching = Bundle.open(tmp_path / "search")
    assert searching.config.buckets == encoder.config.buckets
    write_search_bundle(encoder, passage_vectors(encoder, passages), tmp_path / "short", encoder.config.buckets[:1])
    assert Bundle.open(tmp_path / "short").config.buckets == encoder.config.buckets[:1]
    with pytest.raises(ValueError, match="is the encoder itself"):
        expect_indexable(encoder, encoder.directory)
    with pytest.raises(ValueError, match="is no bundle"):
        expect_indexable(encoder, tmp_path)
    with pytest.raises(ValueError, match="has no bucket 7: its buckets are"):
        write_search_bundle(encoder, passage_vectors(encoder, passages), tmp_path / "no", [7])
    kept = tmp_path / f"{searching.digest[:16]}-plain.jsonl"
    first = evaluate_search(tmp_path / "search", ["good"], "plain", top=2, answers=tmp_path)
    assert (first["same_ranking"], first["same_passages"], first["max_cosine_error"]) == (
        1,
        1,
        pytest.approx(0, abs=1e-5),
    )
    line = json.loads(kept.read_text())
    order = np.argsort(line["logits"][:4])[::-1]
    line["logits"][order[0]], line["logits"][order[1]] = line["logits"][order[1]], line["logits"][order[0]]
    kept.write_text(json.dumps(line) + "\n")
    swapped = evaluate_search(tmp_path / "search", ["good"], "plain", top=2, answers=tmp_path)
    assert (swapped["same_ranking"], swapped["same_passages"]) == (0, 1)
    assert swapped["max_cosine_error"] == pytest.approx(first["smallest_gap"], abs=1e-4)
    line["logits"][order[3]] = 100.0
    kept.write_text(json.dumps(line) + "\n")
    assert evaluate_search(tmp_path / "search", ["good"], "plain", top=2, answers=tmp_path)["same_passages"] == 0
    with pytest.raises(ValueError, match="is for embedding: queries are asked of a bundle that `thex index` wrote"):
        evaluate_search(bundle, ["good"], "plain", answers=tmp_path)


def test_the_server_searches_its_own_corpus_and_learns_nothing(bundle: Path, tmp_path: Path) -> None:
    """More passages than a row holds; scores encrypted; the ranking is the plain model's."""
    words = ("good", "bad", "film", "a", "the", "was")
    generator = np.random.default_rng(0)
    passages = list(dict.fromkeys(" ".join(generator.choice(words, 1 + n % 5)) for n in range(60)))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(passages))
    found = CliRunner().invoke(app, ["index", str(bundle), "--corpus", str(corpus), "--out", str(tmp_path / "search")])
    assert found.exit_code == 0, found.output
    assert f"{len(passages)} passages" in found.output
    with (
        tiny_server(tmp_path / "search", tmp_path / "server") as server,
        tiny_client(server, tmp_path / "keys") as client,
    ):
        vectors = plain(bundle, client, passages)
        for text in TEXTS[:2]:
            cosines = vectors @ plain(bundle, client, [text])[0]
            matches = client.search(text, top=5)
            # Equal cosines of different passages (words of one kind in another order) may come in any order.
            np.testing.assert_allclose([match.cosine for match in matches], np.sort(cosines)[::-1][:5], atol=1e-3)
            np.testing.assert_allclose(
                [cosines[match.number] for match in matches], np.sort(cosines)[::-1][:5], atol=1e-3
            )
        with pytest.raises(ValueError, match="for search: call search"):
            client.embed(TEXTS)
        queries = [*TEXTS[:2], "the " * 40]
        for mode in ("plain", "simulate", "encrypted"):
            report = evaluate_search(
                tmp_path / "search", queries, mode, top=1, answers=tmp_path, connect=lambda _: nullcontext(client)
            )
            assert (report["queries"], report["passages"], report["out_of_range"]) == (3, len(passages), 0)
            assert report["max_cosine_error"] < 1e-3
            assert report["worst_cosine"] > 1 - 1e-5
        asked = len((tmp_path / f"{Bundle.open(tmp_path / 'search').digest[:16]}-plain.jsonl").read_text().splitlines())
        assert asked == len(queries)
    again = CliRunner().invoke(
        app, ["index", str(tmp_path / "search"), "--corpus", str(corpus), "--out", str(tmp_path / "no")]
    )
    assert again.exit_code == 1
    assert "a search needs a bundle that embeds" in again.output
