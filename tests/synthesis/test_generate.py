"""Images from plans: the same whatever the way, whole or absent, and never of two plans in one folder."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from equigen.diagnosis.training_images import read_source
from equigen.errors import InputError
from equigen.quality.image_sets import load_image_set
from equigen.synthesis import SyntheticSet, generate, plan
from equigen.synthesis import generate as make  # the name of the function hides that of its file
from equigen.synthesis.chunks import chunks

module = sys.modules["equigen.synthesis.generation"]
ROWS = 40  # more than one chunk of 32, the second one short


@pytest.fixture(scope="module")
def rows(phantom_cohort):
    return plan(phantom_cohort, "match", ROWS, seed=1, steps=2)


@pytest.fixture(scope="module")
def whole(pipeline, rows, tmp_path_factory):
    """The set as it comes without any interruption."""
    return generate(pipeline, rows, tmp_path_factory.mktemp("whole") / "set", show=False)


def pictures(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").glob("[!.]*.png"))}


def same(made, whole) -> None:
    assert len(pictures(whole.folder)) == ROWS
    assert pictures(made.folder) == pictures(whole.folder)
    pd.testing.assert_frame_equal(
        pd.read_parquet(made.folder / "synthetic.parquet"), pd.read_parquet(whole.folder / "synthetic.parquet")
    )


def test_the_table_has_the_contracts_columns_and_says_what_was_asked(whole, rows, pipeline):
    table = pd.read_parquet(whole.folder / "synthetic.parquet")
    assert list(table) == [
        *("image", "seed", "generator", "label.glaucoma", "attr.race", "attr.sex"),
        *("prompt", "guidance", "steps", "accepted", "reason", "sha256"),
    ]
    assert list(table["image"]) == [f"images/{index:07d}.png" for index in range(ROWS)]
    for name in ("seed", "label.glaucoma", "attr.race", "attr.sex", "prompt", "guidance", "steps"):
        assert list(table[name]) == list(rows[name])
    assert set(table["generator"]) == {pipeline.hash} and table["accepted"].all() and set(table["reason"]) == {""}
    assert [os.path.relpath(path, whole.folder) for path in whole.frame["path"]] == list(table["image"])
    assert len(whole) == ROWS
    assert list(table["sha256"]) == [hashlib.sha256(data).hexdigest() for data in pictures(whole.folder).values()]


def test_images_are_lossless_and_differ(whole, pipeline, rows):
    """What the network made is on disk to the last bit."""
    made = module.render(pipeline, rows, list(range(ROWS)))
    kept = np.stack([np.asarray(Image.open(path)) for path in whole.frame["path"]])
    assert kept.dtype == np.uint8 and kept.shape == (ROWS, 32, 32, 3)
    np.testing.assert_array_equal(kept, made)
    assert len({image.tobytes() for image in kept}) == ROWS


@pytest.mark.parametrize("batch", [1, 64])
def test_the_batch_changes_no_image(pipeline, rows, whole, tmp_path, batch):
    same(generate(pipeline, rows, tmp_path / "set", batch=batch, show=False), whole)


def test_the_order_of_work_changes_no_image(pipeline, rows, whole):
    table = whole.frame
    for order in ([39], [33, 0, 5], [7, 38, 6]):
        for row, image in zip(order, module.render(pipeline, rows, order), strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(table["path"][row])))


def test_a_folder_or_a_run_is_as_good_as_an_open_pipeline(generator, rows, whole, tmp_path):
    same(generate(generator, rows, tmp_path / "run", show=False), whole)
    same(generate(generator.folder, rows, tmp_path / "folder", show=False), whole)


def test_guidance_and_steps_of_other_rows_change_no_image(pipeline, rows):
    """Beside a guided row an unguided one would be u + 1 (c - u), which rounds differently from c."""
    mixed = rows.head(8).assign(guidance=[1.0, 2.0] * 4, steps=[2, 2, 3, 3] * 2)
    made = module.render(pipeline, mixed, list(range(8)))
    for guidance, steps in ((1.0, 2), (2.0, 2), (1.0, 3), (2.0, 3)):
        chosen = np.flatnonzero((mixed["guidance"] == guidance) & (mixed["steps"] == steps))
        alone = module.render(pipeline, mixed.iloc[chosen].reset_index(drop=True), list(range(len(chosen))))
        np.testing.assert_array_equal(made[chosen], alone)
    parts = [part.tolist() for part in chunks(mixed, 32, mixed=True)]
    assert parts == [[0, 4], [1, 5], [2, 6], [3, 7]]  # by steps, and by being guided or not
    every = [module.render(pipeline, rows.head(8).assign(guidance=g, steps=s), [0])[0] for g, s in ((1, 2), (2, 2))]
    assert (every[0] != every[1]).any()


def test_a_part_of_a_plan_is_a_plan(pipeline, rows, tmp_path):
    """Rows are found by place, whatever the table's index says."""
    part = rows[rows["attr.sex"] == "male"].tail(5)
    table = generate(pipeline, part, tmp_path / "set", show=False).frame
    assert list(table["seed"]) == list(part["seed"]) and set(table["attr.sex"]) == {"male"}


def test_lost_images_and_a_lost_table_are_made_again(pipeline, rows, whole, tmp_path):
    made = generate(pipeline, rows, tmp_path / "set", show=False)
    for name in ("images/0000003.png", "images/0000035.png", "synthetic.parquet"):
        (made.folder / name).unlink()
    kept = (made.folder / "images/0000004.png").stat().st_mtime_ns
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)
    assert (made.folder / "images/0000004.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("content", [b"", b"no image", "cut", "small"])
def test_an_image_that_is_not_whole_is_made_again(pipeline, rows, whole, tmp_path, content):
    made = generate(pipeline, rows, tmp_path / "set", show=False)
    victim = made.folder / "images/0000002.png"
    if content == "small":
        Image.new("RGB", (8, 8)).save(victim)
    else:
        victim.write_bytes(victim.read_bytes()[:-40] if content == "cut" else content)
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)


@pytest.mark.parametrize("shards", [[None], [(0, 2), (1, 2)], [(1, 2), (0, 2)]])
def test_a_valid_image_of_other_content_is_made_again(pipeline, rows, whole, tmp_path, capsys, shards):
    """Rows 2 and 35 lie in the chunks of different jobs: none of them may take the other's damage for the original."""
    folder = shutil.copytree(whole.folder, tmp_path / "set")
    for row in (2, 35):
        Image.new("RGB", (32, 32)).save(folder / f"images/{row:07d}.png")
    for shard in shards:
        made = generate(pipeline, rows, folder, shard=shard, show=False)
    same(made, whole)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 images are not those of" in said and "0000002.png" in said


def test_a_table_that_cannot_be_read_is_made_again(pipeline, rows, whole, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "set")
    (folder / "synthetic.parquet").write_bytes(b"")
    same(generate(pipeline, rows, folder, show=False), whole)


@pytest.mark.parametrize(("read", "title"), [
    (lambda folder: load_image_set(folder, "generated"), "The generated images cannot be evaluated"),
    (lambda folder: load_image_set(SyntheticSet(folder).frame, "generated"),
     "The generated images cannot be evaluated"),
    (lambda folder: read_source(folder, ["glaucoma"]), "The synthetic set is damaged"),
])  # fmt: skip
def test_a_changed_image_is_named_where_the_set_is_used(whole, tmp_path, read, title):
    folder = shutil.copytree(whole.folder, tmp_path / "set")
    read(folder)
    names = [f"images/{row:07d}.png" for row in (3, 5, 7, 9)]
    for name in names:
        Image.new("RGB", (32, 32)).save(folder / name)
    with pytest.raises(InputError, match=title) as caught:
        read(folder)
    (problem,) = caught.value.problems
    assert problem.message.startswith("4 images are not the ones that were generated")
    assert all(name in problem.message for name in names[:3]) and names[3] not in problem.message
    table = pd.read_parquet(folder / "synthetic.parquet").drop(columns="sha256")
    table.to_parquet(folder / "synthetic.parquet", index=False)
    read(folder)  # of another program: nothing is known of its images


def test_a_missing_image_is_named_where_the_set_is_used(whole, tmp_path):
    folder = shutil.copytree(whole.folder, tmp_path / "set")
    (folder / "images/0000003.png").unlink()
    for read in (lambda: load_image_set(folder, "generated"), lambda: read_source(folder, ["glaucoma"])):
        with pytest.raises(InputError, match=r"1 images are missing: .*0000003\.png(.|\n)*generate"):
            read()


def test_done_means_nothing_is_made_or_written_again(pipeline, rows, tmp_path, monkeypatch):
    made = generate(pipeline, rows.head(4), tmp_path / "set", show=False)
    table = made.folder / "synthetic.parquet"
    judged = pd.read_parquet(table).assign(accepted=[True, False, True, True])
    judged.to_parquet(table, index=False)
    monkeypatch.setattr(module, "render", lambda *_: pytest.fail("an image was made again"))
    again = generate(pipeline, rows.head(4), tmp_path / "set", show=False)
    assert list(again.frame["accepted"]) == [True, False, True, True]  # a screening's verdicts are kept


def test_an_exception_in_the_middle_leaves_whole_images_and_no_table(pipeline, rows, whole, tmp_path, monkeypatch):
    real, calls = module.write_png, []

    def failing(path, image):
        calls.append(path)
        if len(calls) == 20:
            raise RuntimeError("power cut")
        real(path, image)

    monkeypatch.setattr(module, "write_png", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        generate(pipeline, rows, tmp_path / "set", show=False)
    assert len(pictures(tmp_path / "set")) == 19
    assert not (tmp_path / "set" / "synthetic.parquet").exists()
    monkeypatch.setattr(module, "write_png", real)
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(pipeline, rows, whole, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr("equigen.files.os.fsync", full)
    with pytest.raises(InputError, match=r"disk is full(.|\n)*images/\d+.png(.|\n)*free some space"):
        generate(pipeline, rows, tmp_path / "set", show=False)
    left = [path.name for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert not [name for name in left if ".part" in name] and "synthetic.parquet" not in left
    monkeypatch.undo()
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)


def test_a_half_written_image_of_a_killed_process_is_ignored_and_swept_up(pipeline, rows, whole, tmp_path):
    left = tmp_path / "set" / "images" / ".0000001.1a2b3c4d.part.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"\x89PNG half")
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)
    assert not left.exists()


SCRIPT = """
import os, signal, sys
from equigen.synthesis import generate, plan
from equigen.cohort import Cohort
module, real, calls = sys.modules["equigen.synthesis.generation"], None, []
real = module.write_png
def write(path, image):
    calls.append(path)
    if len(calls) == 34:
        path.with_name(".0000099.dead.part.png").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, image)
module.write_png = write
cohort = Cohort.read(sys.argv[1], check_images=False, show_progress=False)
generate(sys.argv[2], plan(cohort, "match", 40, seed=1, steps=2), sys.argv[3], show=False)
"""


def test_a_killed_process_goes_on_to_the_same_images(phantom_folder, generator, pipeline, rows, whole, tmp_path):
    command = [sys.executable, "-c", SCRIPT, phantom_folder / "cohort.yaml", generator.folder, tmp_path / "set"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(pictures(tmp_path / "set")) == 33 and not (tmp_path / "set" / "synthetic.parquet").exists()
    same(generate(pipeline, rows, tmp_path / "set", show=False), whole)


def test_another_plan_or_generator_in_the_same_folder_is_refused(pipeline, rows, whole, tmp_path, monkeypatch):
    made = generate(pipeline, rows.head(3), tmp_path / "set", show=False)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    for other in (rows.head(4), rows.head(3).assign(guidance=3.0), rows.head(3).assign(seed=[1, 2, 3])):
        with pytest.raises(InputError, match="another plan or generator") as caught:
            generate(pipeline, other, made.folder, show=False)
        assert str(made.folder) in str(caught.value)
    monkeypatch.setattr(type(pipeline), "hash", "another")
    with pytest.raises(InputError, match="another plan or generator"):
        generate(pipeline, rows.head(3), made.folder, show=False)
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before


def test_what_the_generator_does_not_know_is_refused_with_row_and_column(pipeline, rows, tmp_path):
    strange = rows.head(3).copy()
    strange.loc[1, "attr.race"] = "martian"
    with pytest.raises(InputError, match="'martian' is unknown to this generator") as caught:
        generate(pipeline, strange, tmp_path / "set", show=False)
    problem = caught.value.problems[0]
    assert (problem.row, problem.column) == (3, "attr.race") and "asian, black, white" in problem.mend
    with pytest.raises(InputError, match=r"column 'attr\.sex': is missing"):
        generate(pipeline, rows.drop(columns="attr.sex"), tmp_path / "set", show=False)
    assert not (tmp_path / "set").exists()


def test_unknown_values_are_a_condition_of_their_own(pipeline, rows, tmp_path):
    some = rows.head(2).assign(**{"attr.race": pd.Series([None, "asian"], dtype=object), "seed": 7})
    made = make(pipeline, some, tmp_path / "set", show=False)
    table = made.frame
    assert table["attr.race"].isna().tolist() == [True, False]
    first, second = (np.asarray(Image.open(path)) for path in table["path"])
    assert (first != second).any()  # the seed is the same, so the condition made the difference


def test_a_plan_that_cannot_be_carried_out_is_refused(pipeline, rows, tmp_path):
    with pytest.raises(InputError, match="column 'steps': is missing"):
        generate(pipeline, rows.drop(columns="steps"), tmp_path / "set", show=False)
    with pytest.raises(InputError, match="the plan has no rows"):
        generate(pipeline, rows.head(0), tmp_path / "set", show=False)
    with pytest.raises(InputError, match="batch 0"):
        generate(pipeline, rows, tmp_path / "set", batch=0, show=False)
    with pytest.raises(InputError, match="no generator here"):
        generate(tmp_path / "nowhere", rows, tmp_path / "set", show=False)
    assert not (tmp_path / "set").exists()


def test_without_a_folder_the_set_is_named_after_its_generator(generator, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert generate(generator, rows.head(1), show=False).folder.as_posix() == f"synthetic/{generator.name}"
