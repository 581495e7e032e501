"""Images in tar shards: read as files are, found by an index, and refused where a shard is not what it seems."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from equigen.cohort import Cohort, load_images, opening, read_image, shards
from equigen.cohort.check import check_images
from equigen.errors import InputError

SHARDS = "shards/*.tar"


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    """Members are (name, bytes) or a TarInfo without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def to_shards(tree, per_shard=3, form="shards/{:02d}.tar"):
    """Move the tree's images into shards written by webdataset itself, with a JSON each; the table names them."""
    for low in range(0, len(tree.rows), per_shard):
        place = tree.root / form.format(low // per_shard)
        place.parent.mkdir(parents=True, exist_ok=True)
        with webdataset.TarWriter(str(place)) as sink:
            for number, row in enumerate(tree.rows[low : low + per_shard], start=low):
                image = (tree.root / row["file"]).read_bytes()
                sink.write({"__key__": f"s{number:04d}", "png": image, "json": {"sex": row["sex"], "age": row["age"]}})
                row["file"] = f"s{number:04d}.png"
    shutil.rmtree(tree.root / "images")
    tree.spec["image"] = {"column": "file", "shards": SHARDS}
    return tree


@pytest.fixture
def pair(tree, tmp_path):
    """The same cohort as plain files and in shards."""
    plain, other = (type(tree)(tmp_path / name).fill(8) for name in ("plain", "tars"))
    return plain, to_shards(other)


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
        monkeypatch.setattr(shards, "_opened", {})
        assert opening.open_image(path / "a").read() == b"one"
    assert len(scans) == 1
    write_tar(path, [("b", b"other"), ("a", b"two!")])
    assert opening.open_image(path / "a").read() == b"two!" and len(scans) == 2
    path.with_name(".t.tar.index.parquet").write_bytes(b"PAR1 cut")
    monkeypatch.setattr(shards, "_opened", {})
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
    plain = shards.replacing

    def refusing(file):
        if file.parent == path.parent:
            raise PermissionError
        return plain(file)

    monkeypatch.setattr(shards, "replacing", refusing)
    assert opening.open_image(path / "a").read() == b"one"
    assert len(list((tmp_path / "cache/equigen/shards").iterdir())) == 1 and list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(shards, "_opened", {})
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
    monkeypatch.setattr("equigen.cohort.check.cpu_count", lambda: 1)
    monkeypatch.setattr("equigen.cohort.check._seen", {})
    hashes = [checked.sha256 for checked in check_images(paths, decoded=False, show=False)]
    assert opened == sorted(opened) and hashes == [item.sha256 for item in check_images(paths, show=False)]


def test_members_of_one_name_in_two_shards_are_told_apart_by_their_shard(tree, tmp_path):
    tree.fill(6)
    images = [(tmp_path / row["file"]).read_bytes() for row in tree.rows]
    for shard in range(2):
        write_tar(tmp_path / f"shards/{shard}.tar", [(f"{n}.png", images[3 * shard + n]) for n in range(3)])
    tree.spec["image"] = {"column": "file", "shards": SHARDS, "suffix": ".png"}
    for number, row in enumerate(tree.rows):
        row["file"] = str(number % 3)
    error = tree.refused()
    assert len(error.problems) == 6
    told = "row 2, column 'file': several shards have a member '0.png' (put the shard in front: shards/0.tar/0.png)"
    assert told in str(error)
    for number, row in enumerate(tree.rows):
        row["file"] = f"{number // 3}.tar/{number % 3}" if number % 2 else f"shards/{number // 3}.tar/{number % 3}"
    assert list(tree.read().frame["image"]) == [f"shards/{n // 3}.tar/{n % 3}.png" for n in range(6)]


def test_rows_without_their_member(pair):
    tree = pair[1]
    tree.rows[1]["file"], tree.rows[2]["file"] = "s9999.png", "../x.png"
    tree.rows[3]["file"], tree.rows[4]["file"] = "", tree.rows[0]["file"]
    text = str(tree.refused())
    assert "row 3, column 'file': no shard of 'shards/*.tar' has a member 's9999.png'" in text
    assert "row 4, column 'file': the name '../x.png' leads out of the shards" in text
    assert "row 5, column 'file': the cell is empty" in text
    assert "row 6, column 'file': the image 'shards/00.tar/s0000.png' is already in row 2" in text
    assert len(tree.read(quarantine=True)) == 4


def test_an_image_that_is_damaged_inside_its_shard_is_named_with_its_shard(tree, tmp_path):
    tree.fill(6)
    tree.rows[2]["file"] = tree.image("images/2.png", shape=(40, 40, 3))
    cut = (tmp_path / "images/2.png").read_bytes()[:-900]
    (tmp_path / "images/2.png").write_bytes(cut)
    text = str(to_shards(tree).refused())
    assert "row 4, column 'file': the image 'shards/00.tar/s0002.png' is truncated or damaged" in text
    with pytest.raises(InputError, match=r"shards/00.tar/s0002.png is truncated"):
        read_image(tmp_path / "shards/00.tar/s0002.png")


def test_a_member_or_shard_that_went_is_told(pair):
    path = Path(pair[1].read().frame["path"].iloc[0])
    with pytest.raises(InputError, match=r"is not there: 00.tar has no member 'x.png'"):
        read_image(path.with_name("x.png"))
    path.parent.unlink()
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        read_image(path)
    assert check_images([str(path)], show=False)[0].fault is not None


def link(name, target="a.png", kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


IMAGE = ("a.png", b"x" * 600)
BAD = {
    "symbolic link": ([IMAGE, link("l.png")], "the member 'l.png' is a link"),
    "hard link": ([IMAGE, link("l.png", kind=tarfile.LNKTYPE)], "the member 'l.png' is a link"),
    "device": ([IMAGE, link("l.png", kind=tarfile.CHRTYPE)], "the member 'l.png' is a link, a device"),
    "absolute": ([("/etc/a.png", b"x")], "the member '/etc/a.png' has a name that leads out"),
    "parent": ([("x/../../a.png", b"x")], "has a name that leads out"),
    "twice": ([IMAGE, ("./a.png", b"y")], "the member 'a.png' is there twice"),
    "control": ([("a\n.png", b"x")], "has a name that is no plain text"),
}


@pytest.mark.parametrize("name", BAD)
def test_members_that_cannot_be_trusted_refuse_their_shard(tree, tmp_path, name):
    members, told = BAD[name]
    path = write_tar(tmp_path / "shards/0.tar", members)
    tree.fill(2)
    tree.spec["image"] = {"column": "file", "shards": SHARDS}
    error = tree.refused(quarantine=True)
    assert told in str(error) and error.problems[0].file == str(path)
    assert not path.with_name(".0.tar.index.parquet").exists()


@pytest.mark.parametrize("keep", [0, 100, 700, 1024, 1500, 2048, 2600, 3072])
def test_a_truncated_shard_is_refused(tmp_path, keep):
    path = write_tar(tmp_path / "0.tar", [IMAGE, ("b.png", b"y" * 600)], tarfile.USTAR_FORMAT)
    whole = path.read_bytes()  # a header, two blocks; a header, two blocks; then nothing but zeros
    path.write_bytes(whole[:keep])
    with pytest.raises(InputError, match="truncated"):
        shards.open_shard(path)
    path.write_bytes(whole)
    assert len(shards.open_shard(path).names) == 2


def test_a_damaged_header_is_refused_and_so_is_what_is_no_tar(tmp_path):
    path = write_tar(tmp_path / "0.tar", [IMAGE, ("b.png", b"y")], tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[1536 + 150] ^= 1  # the second header's checksum
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="truncated or damaged at byte 1536"):
        shards.open_shard(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(InputError, match="compressed or no tar"):
        shards.open_shard(path)


def test_a_pattern_without_match_or_out_of_the_root(pair):
    tree = pair[1]
    for pattern, told in {
        "tars/*.tar": "no file matches image.shards 'tars/*.tar' (there are shards in: shards)",
        "../plain/*": "leads out of the image root",
        "": "image.shards '' is no pattern of files",
        "shards/**x.tar": "is no pattern of files",
        "metadata.*": "is no .tar file",
    }.items():
        tree.spec["image"]["shards"] = pattern
        assert told in str(tree.refused())
    (tree.root.parent / "out").mkdir()
    (tree.root / "shards/00.tar").rename(tree.root.parent / "out/00.tar")
    (tree.root / "shards/00.tar").symlink_to(tree.root.parent / "out/00.tar")
    tree.spec["image"]["shards"] = SHARDS
    assert "is a link that leads out of the image root" in str(tree.refused())


def test_what_a_killed_writer_left_is_no_shard(pair):
    (pair[1].root / "shards/.07.0123abcd.part.tar").write_bytes(b"half")
    assert len(pair[1].read()) == 8


def test_a_member_of_negative_size_is_refused_and_not_read_for_ever(tmp_path):
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    (tmp_path / "0.tar").write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(InputError, match="a member of negative size"):
        shards.open_shard(tmp_path / "0.tar")


def test_shards_and_folders_do_not_go_together(pair):
    pair[1].spec["image"]["folders"] = ["shards"]
    assert "give either 'folders' or 'shards'" in str(pair[1].refused())


def test_a_folder_called_tar_is_a_folder(tree):
    for number in range(4):
        tree.add(f"p{number}", file=tree.image(f"scans.tar/{number}.png"))
    assert json.loads(tree.read().frame["image"].to_json(orient="values"))[0] == "scans.tar/0.png"
