"""Tar shards for tests: any members, and a tree's images as webdataset itself writes them."""

import io
import shutil
import tarfile

import webdataset

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
