"""A cohort as table and shards: the same cohort when it is read, samples for WebDataset, whole after interruptions."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest
import webdataset
import yaml
from PIL import Image

from equigen.cohort import Cohort, load_images, pack, packing
from equigen.errors import InputError


def read(spec):
    return Cohort.read(spec, show_progress=False)


def assert_same(one, two):
    names = [name for name in one.frame.columns if name not in {"row", "image", "path"}]
    pd.testing.assert_frame_equal(one.frame[names].reset_index(drop=True), two.frame[names])
    assert (one.labels, one.attributes, one.name, one.phantom) == (two.labels, two.attributes, two.name, two.phantom)
    row = one.frame.iloc[0].to_dict()
    assert one.prompt(row) == two.prompt(row)
    paths = [list(cohort.frame["path"]) for cohort in (one, two)]
    assert np.array_equal(load_images(paths[0], 8), load_images(paths[1], 8))


def test_a_packed_cohort_is_read_as_the_same(tree, tmp_path):
    tree.fill(10)
    tree.rows[3]["sex"], tree.rows[5]["age"], tree.rows[6]["site"] = "unknown", "", ""
    made = tree.read()
    spec = pack(made, tmp_path / "out", images=5, show=False)
    assert spec == tmp_path / "out/cohort.yaml"
    assert sorted(item.name for item in (tmp_path / "out/shards").glob("*.tar")) == ["000000.tar", "000001.tar"]
    again = read(spec)
    assert_same(made, again)
    assert again.frame["image"].iloc[5] == "shards/000001.tar/000000005.png"
    assert list(pd.read_parquet(tmp_path / "out/table.parquet")["source"]) == list(made.frame["image"])


def test_kinds_of_labels_names_and_sites_survive(tree, tmp_path):
    findings = ["edema|mass", "No Finding", "", "mass", "edema", "None of it", "mass", "edema", "mass", "edema"]
    for number, cell in enumerate(findings):
        grade = "12.0"[number % 4 // 2 * 2 :] if number % 3 else "1.0"
        dx, sex = ["nv", "mel"][number % 2], "FM"[number % 2]
        tree.add(f"p{number}", "abc"[number % 3], dx, sex, finding=cell, grade=grade)
    tree.spec["split"] = {"fractions": {"train": 0.5, "test": 0.5}, "seed": 1, "ood": ["c"]}
    tree.spec["labels"]["ill"] = {"kind": "binary", "column": "dx", "levels": {"nv": "no", "mel": "yes"}}
    tree.spec["labels"]["x-ray"] = {
        "kind": "multilabel", "column": "finding", "levels": ["mass", "edema", "No Finding"], "none": ["None of it"],
        "high_risk": ["mass"],
    }  # fmt: skip
    tree.spec["attributes"]["grade"] = {"column": "grade"}
    tree.spec["phantom"] = "true"
    made = tree.read()
    again = read(pack(made, tmp_path / "out", show=False))
    assert_same(made, again)
    assert set(again.frame["domain"]) == {"id", "ood"} and "" in set(again.frame["label.x-ray"])
    assert again.labels["x-ray"].levels == ["mass", "edema", "No Finding"] and None in set(again.frame["label.x-ray"])
    few = made.split("train")  # without the site that split.ood names, and with one level only in some column
    assert_same(few, read(pack(few, tmp_path / "few", show=False)))


def test_prompts_of_each_image_are_packed_with_them(tree, tmp_path):
    made = tree.fill(4).read()
    made.frame["prompt"] = ["one", "two", None, "four"]
    spec = yaml.safe_load(pack(made, tmp_path / "out", show=False).read_text())
    table = pd.read_parquet(tmp_path / "out/table.parquet")
    assert spec["prompt"] == {"column": "prompt"} and list(table["prompt"].fillna("")) == ["one", "two", "", "four"]


def test_every_image_is_its_own_patient(tree, tmp_path):
    tree.fill(6)
    tree.spec |= {"patient": None, "site": None, "labels": {}, "attributes": {}, "prompt": None}
    made = tree.read()
    assert_same(made, read(pack(made, tmp_path / "out", show=False)))


def test_a_packed_cohort_can_be_packed_again(tree, tmp_path):
    made = read(pack(tree.fill(8).read(), tmp_path / "one", images=3, show=False))
    again = read(pack(made, tmp_path / "two", images=4, show=False))
    assert_same(made, again)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_the_samples(tree, tmp_path):
    made = tree.fill(7).read()
    pack(made, tmp_path / "out", images=3, show=False)
    shards = sorted(str(item) for item in (tmp_path / "out/shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in range(7)]
    images = load_images(list(made.frame["path"]), 8)
    for row, sample in enumerate(samples):
        assert np.array_equal(sample["png"][:, 1:-1], images[row])  # 8 x 10 pixels, whose middle is the square
        assert sample["json"] == {
            name: made.frame[name].iloc[row] for name in made.frame if name not in {"row", "image", "path"}
        }


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "npz"])
def test_the_content_decides_the_suffix(tree, tmp_path, suffix):
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        data = io.BytesIO()
        if suffix == "npz":
            np.savez(data, slo_fundus=pixels)
        else:
            Image.fromarray(pixels).save(data, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        (tmp_path / f"scan{number}.img").write_bytes(data.getvalue())
        tree.add(f"p{number}", file=f"scan{number}.img")
    made = tree.read()
    again = read(pack(made, tmp_path / "out", show=False))
    assert set(again.frame["image"].str.rpartition(".")[2]) == {suffix}
    assert_same(made, again)


def test_an_interrupted_packing_goes_on_and_gives_the_same_bytes(tree, tmp_path, monkeypatch):
    made = tree.fill(10).read()
    pack(made, tmp_path / "whole", images=3, show=False)
    plain, written = packing._write_shard, []

    def failing(shard, rows, first):
        if first == 6:
            monkeypatch.setattr(packing, "_add", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        written.append(first)
        plain(shard, rows, first)

    add = packing._add
    monkeypatch.setattr(packing, "_write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        pack(made, tmp_path / "out", images=3, show=False)
    assert not (tmp_path / "out/cohort.yaml").exists() and len(list((tmp_path / "out/shards").glob("*.tar"))) == 2
    monkeypatch.setattr(packing, "_add", add)
    monkeypatch.setattr(packing, "_write_shard", lambda *given: written.append(given[2]) or plain(*given))
    written.clear()
    pack(made, tmp_path / "out", images=3, show=False)
    assert written == [6, 9]
    for name in ("cohort.yaml", "table.parquet", *(f"shards/{n:06d}.tar" for n in range(4))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    pack(made, tmp_path / "out", images=3, show=False)
    assert written == [6, 9]


def test_another_cohort_or_anything_else_in_the_folder_is_refused(tree, tmp_path):
    made = tree.fill(6).read()
    pack(made, tmp_path / "out", show=False)
    for cohort, images in ((made, 5), (made.split("train"), packing.SHARD)):
        with pytest.raises(InputError, match="output folder is taken"):
            pack(cohort, tmp_path / "out", images, show=False)
    with pytest.raises(InputError, match="output folder is taken"):
        pack(made, tmp_path / "images", show=False)
    for cohort, images in ((made, 0), (made.where(np.zeros(6, dtype=bool)), 5)):
        with pytest.raises(InputError, match="nothing to pack"):
            pack(cohort, tmp_path / "new", images, show=False)


def test_images_that_changed_or_went_are_named_and_no_shard_is_left(tree, tmp_path):
    made = tree.fill(6).read()
    (tmp_path / "images/1.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    (tmp_path / "images/4.png").unlink()
    with pytest.raises(InputError) as caught:
        pack(made, tmp_path / "out", show=False)
    text = str(caught.value)
    assert "row 3: the image 'images/1.png' was changed since the cohort was checked" in text
    assert "row 6: the image 'images/4.png' cannot be opened" in text and len(caught.value.problems) == 2
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_shard_with_other_members_is_named(tree, tmp_path):
    made = tree.fill(6).read()
    pack(made, tmp_path / "out", images=3, show=False)
    shard = tmp_path / "out/shards/000001.tar"
    with tarfile.open(shard, "w") as archive:
        archive.addfile(tarfile.TarInfo("000000003.png"))
    with pytest.raises(InputError, match="does not hold the images that belong into it") as caught:
        pack(made, tmp_path / "out", images=3, show=False)
    assert caught.value.problems[0].file == str(shard)


def test_neither_owner_nor_time_nor_place_is_in_a_shard(tree, tmp_path):
    made = tree.fill(4).read()
    spec = pack(made, tmp_path / "out", show=False)
    with tarfile.open(tmp_path / "out/shards/000000.tar") as archive:
        assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in archive} == {(0, 0, "", "", 0)}
    assert str(tmp_path) not in spec.read_text() and yaml.safe_load(spec.read_text())["table"] == "table.parquet"
    assert json.loads((tmp_path / "out/pack.json").read_text()) == {"cohort": made.hash, "images": packing.SHARD}
