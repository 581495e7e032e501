"""Images in tar shards: read as files are, found by an index, and refused where a shard is not what it seems."""

import json
import os
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from tar_shards import to_shards, write_tar

from equigen.cohort import Cohort, load_images, read_image
from equigen.cohort.checks import check_images
from equigen.cohort.images import sources as opening
from equigen.cohort.images import tar_shards as shards


def test_a_cohort_in_shards_is_the_cohort_of_its_files(pair):
    plain, packed = (tree.read() for tree in pair)
    same = [name for name in plain.frame.columns if name not in {"image", "path"}]
    assert plain.frame[same].equals(packed.frame[same])
    assert list(packed.frame["image"])[2:4] == ["shards/00.tar/s0002.png", "shards/01.tar/s0003.png"]
    paths = [list(cohort.frame["path"]) for cohort in (plain, packed)]
    assert np.array_equal(load_images(paths[0], 8), load_images(paths[1], 8))
    assert np.array_equal(read_image(paths[0][5]), read_image(paths[1][5]))


def test_a_saved_cohort_finds_its_shards_where_they_were_moved(pair, tmp_path):
    made = pair[1].read()
    made.save(tmp_path / "saved")
    (tmp_path / "tars").rename(tmp_path / "elsewhere")
    again = Cohort.load(tmp_path / "saved", root=tmp_path / "elsewhere")
    assert again.hash == made.hash and read_image(again.frame["path"].iloc[7]).shape == (8, 10, 3)


def test_columns_may_stand_in_the_samples_json(pair):
    tree = pair[1]
    tree.spec["attributes"]["sex"]["column"] = "@json:sex"
    tree.spec["attributes"]["age"]["column"] = "@json:age"
    expected = pair[0].read().frame
    for row in tree.rows:
        del row["sex"], row["age"]
    tree.header = ["file", "pid", "site", "dx"]
    made = tree.read().frame
    assert made[["attr.sex", "attr.age"]].equals(expected[["attr.sex", "attr.age"]])


def test_what_is_wrong_with_a_samples_json_is_told_for_each_row(tree):
    tree.fill(5)
    for number, text in enumerate(['{"sex": "F"}', '{"age": 3}', "[1]", '{"sex": ["F"]}']):
        (tree.root / f"images/{number}.json").write_text(text)
    tree.spec["attributes"]["sex"]["column"] = "@json:sex"
    text = str(tree.refused())
    assert "row 3, column '@json:sex': '1.json' has no 'sex' (it has: age)" in text
    assert "row 4, column '@json:sex': '2.json' holds no mapping of keys" in text
    assert "row 5, column '@json:sex': 'sex' in '3.json' is no single plain value" in text
    assert "row 6, column '@json:sex': there is no '4.json' with the image" in text and "row 2" not in text


def test_the_index_agrees_with_webdataset_and_is_kept(pair):
    shard = pair[1].root / "shards/00.tar"
    found = shards.open_shard(shard)
    with shard.open("rb") as handle:
        read = {sample["fname"]: sample["data"] for sample in webdataset.tariterators.tar_file_iterator(handle)}
    assert found.names.to_pylist() == sorted(read)
    for place, name in enumerate(found.names.to_pylist()):
        with found.open(place) as handle:
            assert handle.read() == read[name]
    kept = pq.read_table(shard.with_name(".00.tar.index.parquet"))
    assert kept.column_names == ["name", "offset", "size"] and kept.num_rows == 6


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_with_long_names_folders_and_odd_sizes(tmp_path, format):
    long = "deep/" * 18 + "x" * 90 + ".png"
    content = {f"./a/{size}.bin": os.urandom(size) for size in (0, 1, 511, 512, 513)} | {long: b"long"}
    folder = tarfile.TarInfo("a/")
    folder.type = tarfile.DIRTYPE
    path = write_tar(tmp_path / "t.tar", [folder, *content.items()], format)
    for name, data in content.items():
        with opening.open_image(path / name) as handle:
            assert handle.read() == data


def test_a_member_is_a_file_that_can_be_sought_in(tmp_path):
    path = write_tar(tmp_path / "t.tar", [("a", b"0123456789"), ("b", b"next")])
    with opening.open_image(path / "a") as handle:
        assert handle.read(3) == b"012" and handle.tell() == 3
        assert handle.seek(-2, os.SEEK_END) == 8 and handle.read() == b"89" and handle.read() == b""
        handle.seek(20)
        assert handle.read(1) == b""


def test_the_index_is_read_again_by_another_process_and_built_again_when_the_shard_changed(tmp_path, monkeypatch):
    path, scans, plain = write_tar(tmp_path / "t.tar", [("a", b"one")]), [], shards._scan
    monkeypatch.setattr(shards, "_scan", lambda *given: scans.append(given) or plain(*given))
    for _ in range(2):
        monkeypatch.setattr(shards, "_shards", {})
        assert opening.open_image(path / "a").read() == b"one"
    assert len(scans) == 1
    write_tar(path, [("b", b"other"), ("a", b"two!")])
    assert opening.open_image(path / "a").read() == b"two!" and len(scans) == 2
    path.with_name(".t.tar.index.parquet").write_bytes(b"PAR1 cut")
    monkeypatch.setattr(shards, "_shards", {})
    assert opening.open_image(path / "a").read() == b"two!" and len(scans) == 3


def test_a_shard_that_changes_while_it_is_open_is_told(tmp_path):
    path = write_tar(tmp_path / "t.tar", [("a.png", b"one")])
    found = shards.open_shard(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(shards.ImageFault, match=r"lies in t.tar, which was changed meanwhile"):
        found.open(0)


def test_where_nothing_can_be_written_beside_the_shard_the_index_is_in_the_cache(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "data/t.tar", [("a", b"one")])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = shards.replace_file

    def refusing(file):
        if file.parent == path.parent:
            raise PermissionError
        return plain(file)

    monkeypatch.setattr(shards, "replace_file", refusing)
    assert opening.open_image(path / "a").read() == b"one"
    assert len(list((tmp_path / "cache/equigen/shards").iterdir())) == 1 and list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(shards, "_shards", {})
    monkeypatch.setattr(shards, "_scan", lambda *given: pytest.fail("the kept index was not used"))
    assert opening.open_image(path / "a").read() == b"one"


def test_shards_are_read_from_front_to_back(tree, monkeypatch):
    to_shards(tree.fill(9))
    tree.rows = tree.rows[::-1]
    paths, opened, plain = list(tree.read(check_images=False).frame["path"]), [], shards.Shard.open

    def noting(self, place):
        opened.append((self.path.name, int(self.offsets[place])))
        return plain(self, place)

    monkeypatch.setattr(shards.Shard, "open", noting)
    load_images(paths, 8, threads=1)
    assert opened == sorted(opened) and len(opened) == 9
    opened.clear()
    monkeypatch.setattr("equigen.cohort.checks.cpu_count", lambda: 1)
    monkeypatch.setattr("equigen.cohort.checks._checks", {})
    hashes = [checked.sha256 for checked in check_images(paths, decoded=False, show=False)]
    assert opened == sorted(opened) and hashes == [item.sha256 for item in check_images(paths, show=False)]


def test_a_folder_called_tar_is_a_folder(tree):
    for number in range(4):
        tree.add(f"p{number}", file=tree.image(f"scans.tar/{number}.png"))
    assert json.loads(tree.read().frame["image"].to_json(orient="values"))[0] == "scans.tar/0.png"
