"""Small trees: a folder with images, a table and a cohort.yaml."""

import copy
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tar_shards import to_shards

from equigen.cohort import Cohort
from equigen.errors import InputError

SPEC = {
    "name": "small",
    "table": "metadata.csv",
    "image": {"column": "file", "root": "."},
    "patient": "pid",
    "site": "site",
    "split": {"fractions": {"train": 0.5, "test": 0.5}, "seed": 0},
    "labels": {"dx": {"kind": "multiclass", "column": "dx", "levels": ["nv", "mel"], "high_risk": ["mel"]}},
    "attributes": {
        "sex": {"column": "sex", "levels": {"F": "female", "M": "male"}},
        "age": {"column": "age", "bins": [0, 40, 60, 120], "names": ["under 40", "40 to 59", "60 and over"]},
    },
    "missing": ["", "unknown"],
    "prompt": "A {sex} patient aged {age} with {dx}",
}
HEADER = ["file", "pid", "site", "dx", "sex", "age"]


class Tree:
    """Writes a tree row by row; every image is another noise picture."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows, self.header = root, [], list(HEADER)
        self.spec = copy.deepcopy(SPEC)

    def image(self, name: str, seed: int | None = None, shape=(8, 10, 3)) -> str:
        rng = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed)
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(self.root / name)
        return name

    def add(self, pid="p", site="a", dx="nv", sex="F", age="30", file=None, **more) -> int:
        """Add a row, and return its spreadsheet number."""
        file = self.image(f"images/{len(self.rows)}.png") if file is None else file
        row = {"file": file, "pid": pid, "site": site, "dx": dx, "sex": sex, "age": age, **more}
        self.header += [name for name in row if name not in self.header]
        self.rows.append(row)
        return len(self.rows) + 1

    def fill(self, patients: int = 6) -> "Tree":
        for index in range(patients):
            dx, sex = ["nv", "mel"][index % 2], "FM"[index // 2 % 2]
            self.add(f"p{index}", "ab"[index % 2], dx, sex, str(20 + 10 * index))
        return self

    def write(self) -> Path:
        quote = lambda cell: '"' + cell.replace('"', '""') + '"'  # noqa: E731
        lines = [",".join(self.header)]
        lines += [",".join(quote(row.get(name, "")) for name in self.header) for row in self.rows]
        (self.root / "metadata.csv").write_text("\n".join(lines) + "\n")
        (self.root / "cohort.yaml").write_text(yaml.safe_dump(self.spec, sort_keys=False))
        return self.root / "cohort.yaml"

    def read(self, **options) -> Cohort:
        return Cohort.read(self.write(), show_progress=False, **options)

    def refused(self, **options) -> InputError:
        with pytest.raises(InputError) as caught:
            self.read(**options)
        return caught.value


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def pair(tree, tmp_path):
    """The same cohort as plain files and in shards."""
    plain, other = (type(tree)(tmp_path / name).fill(8) for name in ("plain", "tars"))
    return plain, to_shards(other)
