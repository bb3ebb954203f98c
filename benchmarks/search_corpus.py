"""Passages and queries of STS-B, for measuring a search: `python -m benchmarks.search_corpus BUNDLE DATA OUT`.

Then `thex index BUNDLE --corpus OUT/corpus.txt --bucket 16 --out SEARCH` and
`thex evaluate SEARCH --queries OUT/queries.txt --mode encrypted --json`.
"""

import sys
from pathlib import Path

from he_runtime.bundle import Bundle
from services.truncation import truncating_tokenizer
from thex.tasks import find_task, read_split

PASSAGES, QUERIES, MOST_QUERY_TOKENS = 10_000, 20, 16


def write_corpus(bundle: Path, data: Path, out: Path) -> None:
    """Write corpus.txt, the first sentences of train, and queries.txt, short ones of test at even distances, none in train.

    Sentences are told apart by their tokens: what is alike to the model would be a tie. data: GLUE's root.
    """
    tokenizer, task = truncating_tokenizer(Bundle.open(bundle)), find_task("STS-B")
    seen: set[tuple[int, ...]] = set()

    def new_sentences(split: str) -> list[tuple[str, int]]:
        found = []
        for example in read_split(task, data / task.name, split):
            for text in (example.first, example.second or ""):
                ids = tuple(tokenizer.encode(text).ids)
                if ids not in seen:
                    seen.add(ids)
                    found.append((text, len(ids)))
        return found

    passages = [text for text, _ in new_sentences("train")][:PASSAGES]
    short = [text for text, tokens in new_sentences("test") if tokens <= MOST_QUERY_TOKENS]
    queries = [short[place * len(short) // QUERIES] for place in range(QUERIES)]
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus.txt", passages), ("queries.txt", queries)):
        (out / name).write_text("".join(text + "\n" for text in texts), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    write_corpus(*map(Path, sys.argv[1:]))
