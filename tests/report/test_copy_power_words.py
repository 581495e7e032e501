"""The power of the copy check in plain sentences."""

import pandas as pd

from equigen.quality.copy_power import AUTOENCODER, CHANGES, POWER_COLUMNS
from equigen.report.study.memorisation import PHRASES, power_sentences


def power(*rows):
    return pd.DataFrame([dict(zip(POWER_COLUMNS, row, strict=True)) for row in rows])


TABLE = power(
    ("blur 1 px", "*", "*", 50, 0.98, 0.9, 0.99, 0.012, ""),
    ("blur 1 px", "sex", "female", 20, 0.95, 0.8, 0.99, 0.02, ""),
    ("90 % crop", "*", "*", 50, 1.0, 0.93, 1.0, 0.012, ""),
    ("autoencoder", "*", "*", 0, None, None, None, None, "not tried: 50 px do not fit the autoencoder"),
)


def test_each_change_has_a_sentence_and_groups_and_untried_changes_none():
    (found,) = power_sentences(TABLE)
    assert found.parts == (
        "Of copies blurred by 1 px, 98 % would have been found.",
        "Of copies cropped to 90 %, 100 % would have been found.",
        "Of held-out images, which are no copies, 1.2 % are called near copies.",
    )
    assert power_sentences(TABLE.iloc[3:]) == [] == power_sentences(TABLE.iloc[:0])


def test_every_change_of_the_check_has_a_phrase():
    assert set(PHRASES) == {*CHANGES, AUTOENCODER}
