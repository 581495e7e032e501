"""What tests look at in a generator folder."""

import pandas as pd


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def images(pipeline):
    """Two images from two seeds."""
    conditions = pd.DataFrame(
        {"attr.race": ["asian", "white"], "attr.sex": ["male", None], "label.glaucoma": ["glaucoma", "healthy"]}
    )
    return pipeline(conditions, [1, 2], steps=2)


def files(folder):
    """Content of everything that a user gets, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "checkpoint.safetensors"
    }
