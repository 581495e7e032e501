"""Rows without their member, images damaged inside a shard, and shards that are not what they seem."""

import tarfile
from pathlib import Path

import pytest
from tar_shards import SHARDS, to_shards, write_tar

from equigen.cohort import read_image
from equigen.cohort.checks import check_images
from equigen.cohort.images import tar_shards as shards
from equigen.errors import InputError


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


def test_a_flipped_bit_in_the_pages_of_an_index_never_gives_another_place(tmp_path):
    path = write_tar(tmp_path / "t.tar", [(f"{number}.png", b"x" * number) for number in range(1, 6)])
    right = shards.open_shard(path)
    index = path.with_name(".t.tar.index.parquet")
    whole = index.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for byte in range(4, end, 3):
        damaged = bytearray(whole)
        damaged[byte] ^= 1
        index.write_bytes(damaged)
        shards._shards.clear()
        found = shards.open_shard(path)
        assert found.names.to_pylist() == right.names.to_pylist()
        assert found.offsets.tolist() == right.offsets.tolist() and found.sizes.tolist() == right.sizes.tolist()
