"""What an evaluation leaves behind for a report."""

import pandas as pd

from equigen.cohort import Cohort, load_images, pack
from equigen.study.evaluation_results import close_pairs


def test_closest_pairs_are_shown_from_files_and_from_shards_and_missing_ones_left_out(phantom_cohort, tmp_path):
    packed = Cohort.read(pack(phantom_cohort, tmp_path / "packed", show=False), show_progress=False)
    files, members = ([str(path) for path in own.frame["path"][:3]] for own in (phantom_cohort, packed))
    assert ".tar/" in members[0]
    gone = str(tmp_path / "gone.png")
    copies = pd.DataFrame({
        "run": "r", "rank": [3, 1, 2], "generated": files, "training": [members[0], gone, members[2]],
        "distance": [3.0, 1.0, 2.0], "ratio": [0.7, 0.8, 0.9], "near_copy": [True, False, False],
    })  # fmt: skip
    (found,) = close_pairs(copies, 32)
    assert found.run == "r" and len(found.captions) == 2
    assert (found.generated == load_images([files[2], files[0]], 32)).all()
    assert (found.training == load_images([members[2], members[0]], 32)).all()
    assert found.captions[1].endswith(": near copy")
