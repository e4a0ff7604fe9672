"""Text: spam among messages, kinds of questions, and what each serving form loses.

sms-spam: five folds; n-grams and states settled on four of them without their labels,
a logistic regression on the vectors; the transformer stays as it is. trec6: a tenth
held back, the transformer tuned with a linear head, a line on n-grams beside it.
forms: gain, cosine and drift of each form on the messages, and the macro-F1 of sms-spam
with it.

  python -m benchmarks.texts --seeds 0 1 2
  python -m benchmarks.texts --part trec --seeds 0 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from encoders.classify import fit_classes
from encoders.text import TextConfig, TextEncoder

DATA = Path("../shared/data")
PARTS = ("sms", "trec", "forms")
SMS, TREC = "sms-spam/messages.parquet", "trec6/train.parquet"
FOLDS = 5
#: Inverse strength of the penalty of the logistic regression.
FREEDOM = 10.0
QUESTION_KINDS = 6
EPOCHS, BATCH_TEXTS = 3, 32
CHUNK_TEXTS = 512
#: What n-grams count for beside the tuned transformer, and a floor to probabilities.
NGRAM_SHARE, LEAST_LIKELY = 0.4, 1e-6

Labels = NDArray[np.int64]


def read(path: Path, label: str) -> tuple[list[str], Labels]:
    """Texts and labels of one Parquet file."""
    table = pq.read_table(path, columns=["text", label])
    labels = table.column(label).to_numpy().astype(np.int64)
    return table.column("text").to_pylist(), labels


class Spam:
    """The messages, prepared once per serving form."""

    def __init__(self, data: Path) -> None:
        self.texts, self.labels = read(data / SMS, "spam")
        self._prepared: dict[str, NDArray[np.float32]] = {}

    def prepared(self, form: str) -> NDArray[np.float32]:
        """What the network reads of every message, with states in this form."""
        if form not in self._prepared:
            encoder = TextEncoder(TextConfig(serve=form))
            starts = range(0, len(self.texts), CHUNK_TEXTS)
            parts = [self.texts[at : at + CHUNK_TEXTS] for at in starts]
            rows = [encoder.prepare(part).numpy() for part in parts]
            self._prepared[form] = np.concatenate(rows)
        return self._prepared[form]

    def cross_validate(self, seed: int, form: str, learn_form: str) -> dict[str, float]:
        """Macro-F1 at one half and AUC of all messages, each told by other folds.

        Args:
            seed: of the folds.
            form: in which the held-out messages are read.
            learn_form: in which the others are read.
        """
        rows, learn_rows = self.prepared(form), self.prepared(learn_form)
        told = np.zeros(len(self.labels))
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        for learn, held in folds.split(self.texts, self.labels):
            encoder = TextEncoder(TextConfig())
            encoder.fit_items(_tensor(encoder, learn_rows[learn]))
            line = LogisticRegression(C=FREEDOM, max_iter=500)
            known = encoder.encode_prepared(_tensor(encoder, learn_rows[learn]))
            line.fit(known, self.labels[learn])
            unseen = encoder.encode_prepared(_tensor(encoder, rows[held]))
            told[held] = line.predict_proba(unseen)[:, 1]
        return {
            "macro_f1": float(f1_score(self.labels, told > 0.5, average="macro")),
            "auc": float(roc_auc_score(self.labels, told)),
        }


def _tensor(encoder: TextEncoder, rows: NDArray[np.float32]) -> Any:
    """The rows as what `prepare` gives."""
    return encoder.network.line.weight.new_tensor(rows)


def questions(data: Path, seed: int, tune: str) -> dict[str, float]:
    """Accuracy on a tenth of the questions, learnt from the others.

    Of the tuned transformer, of a line on n-grams, and of both opinions together: they
    go wrong at different questions.
    """
    texts, labels = read(data / TREC, "label")
    learn, held = train_test_split(
        np.arange(len(texts)), test_size=0.1, random_state=seed, stratify=labels
    )
    encoder = TextEncoder(TextConfig(tune=tune, max_tokens=64, seed=seed))
    known = [texts[row] for row in learn]
    rows = encoder.prepare(known)
    encoder.fit_items(rows)
    head = fit_classes(
        encoder,
        rows,
        labels[learn],
        classes=QUESTION_KINDS,
        seed=seed,
        epochs=EPOCHS,
        batch=BATCH_TEXTS,
        progress=lambda share, line: print(line, file=sys.stderr, flush=True),
    )
    unseen = [texts[row] for row in held]
    tuned = np.log(head.predict(encoder.encode(unseen)) + LEAST_LIKELY)
    line = ngram_line().fit(known, labels[learn])
    spelt = np.log(line.predict_proba(unseen) + LEAST_LIKELY)
    opinions = {
        "accuracy": tuned + NGRAM_SHARE * spelt,
        "transformer": tuned,
        "ngrams": spelt,
    }
    return {
        name: float((told.argmax(axis=1) == labels[held]).mean())
        for name, told in opinions.items()
    }


def ngram_line() -> Pipeline:
    """Logistic regression on words, their neighbours, and parts of words."""
    words = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, token_pattern=r"\S+")
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    line = LogisticRegression(C=2 * FREEDOM, max_iter=1000)
    return make_pipeline(make_union(words, parts), line)


def forms(spam: Spam, seed: int) -> dict[str, float]:
    """Per form: gain, cosine, drift, and how much macro-F1 and AUC it loses."""
    encoder = TextEncoder(TextConfig())
    chosen = encoder.choose_form(spam.texts)
    plain = spam.cross_validate(seed, "torch", "torch")
    found = {}
    for form, about in chosen["measured"].items():
        served = spam.cross_validate(seed, form, "torch")
        loss = {f"{name}_loss": plain[name] - served[name] for name in plain}
        for name, value in {**about, **loss}.items():
            found[f"{form}_{name}"] = float(value)
    print(f"chosen here: {chosen['form']}", file=sys.stderr)
    return found


def measure(
    data: Path, seeds: Sequence[int], parts: Sequence[str], tune: str
) -> dict[str, list[dict[str, float]]]:
    """Figures by part, one entry per seed."""
    spam = Spam(data)
    found: dict[str, list[dict[str, float]]] = {part: [] for part in parts}
    for seed in seeds:
        for part in parts:
            began = time.process_time()
            if part == "sms":
                figures = spam.cross_validate(seed, "torch", "torch")
            elif part == "trec":
                figures = questions(data, seed, tune)
            else:
                figures = forms(spam, seed)
            figures["cpu_s"] = time.process_time() - began
            found[part].append(figures)
            line = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
            print(f"seed {seed} {part}: {line}", file=sys.stderr, flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0 when done, 1 when the data is not there."""
    parser = argparse.ArgumentParser(
        prog="texts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--part", choices=PARTS, action="append", dest="parts")
    parser.add_argument("--tune", default="full", help="of trec: full or adapter")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    given = parser.parse_args(argv)
    missing = [name for name in (SMS, TREC) if not (given.data / name).is_file()]
    if missing:
        print(f"texts: {given.data / missing[0]} is not there", file=sys.stderr)
        return 1
    found = measure(given.data, given.seeds, given.parts or list(PARTS), given.tune)
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    for part, seeds in found.items():
        for name in seeds[0]:
            each = np.array([figures[name] for figures in seeds])
            print(f"{part:6} {name:24} {each.mean():.5f} +- {each.std():.5f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
