"""Train the autoencoder that ships with equigen, and write its model card.

    python tools/train_shipped_autoencoder.py --data DIR --work DIR

DIR holds the folders `nih_cxr14`, `padufes20` (training and held-out patients) and `ham10000` (measured only: the
network never sees it). Each has `metadata.csv` with a column `file`. Phantoms are rendered on the spot. The run goes
on where an interrupted one stopped. Weights are stored in half precision; the card's figures are of these.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from equigen.cohort import square
from equigen.cohort.phantom import PhantomSettings, render, sample_parameters
from equigen.files import read_json, write_json, write_text
from equigen.latents.autoencoder import Autoencoder, load_autoencoder, shipped_folder
from equigen.latents.fitting import AutoencoderSettings, fit_autoencoder, psnr
from equigen.seeds import derive_seed

UNITS = {"nih_cxr14": "patient_id", "padufes20": "patient_id", "ham10000": "lesion_id"}
SEEN = ("nih_cxr14", "padufes20")
HELD_OUT = 0.2
SEED = 0


def read(folder: Path, unit: str) -> pd.DataFrame:
    """The table with a column `held_out`, decided by each patient's name alone, and absolute paths."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    table["path"] = [str(folder / name) for name in table["file"]]
    table["held_out"] = [derive_seed(SEED, f"held-out/{name}") % 1000 < 1000 * HELD_OUT for name in table[unit]]
    return table


def pictures(paths: pd.Series) -> list[NDArray[np.uint8]]:
    """RGB images at their own size."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def training_sources(data: Path, phantoms: int) -> list[list[NDArray[np.uint8]]]:
    """Photographs count twice: they are the most varied, and stand for every colour image to come."""
    folders = {name: pictures(read(data / name, UNITS[name]).query("not held_out")["path"]) for name in SEEN}
    made: list[NDArray[np.uint8]] = []
    for size in (64, 128):
        made += list(render(sample_parameters(phantoms, SEED, PhantomSettings()), size))
    return [folders["padufes20"], folders["padufes20"], folders["nih_cxr14"], folders["nih_cxr14"], made]


def held_out_images(data: Path, phantoms: int, size: int) -> dict[str, NDArray[np.uint8]]:
    """Square test images [N, size, size, 3] a data set; for the data set never seen, all units count."""
    images = {}
    for name, unit in UNITS.items():
        table = read(data / name, unit)
        table = table.query("held_out") if name in SEEN else table.sample(1000, random_state=SEED)
        images[name] = np.stack([square(image, size) for image in pictures(table["path"])])
    images["phantom"] = render(sample_parameters(phantoms, SEED + 1, PhantomSettings()), size)
    return images


def reconstruction(autoencoder: Autoencoder, images: NDArray[np.uint8]) -> dict[str, float]:
    """Mean, lowest-tenth and pooled PSNR in dB."""
    decoded = np.concatenate(
        [autoencoder.decode(autoencoder.encode(images[i : i + 64])) for i in range(0, len(images), 64)]
    )
    each = psnr(images, decoded)
    pooled = 10 * np.log10(255**2 / np.mean((images.astype(float) - decoded.astype(float)) ** 2))
    return {
        "images": len(images),
        "mean": round(float(each.mean()), 2),
        "tenth": round(float(np.quantile(each, 0.1)), 2),
        "pooled": round(float(pooled), 2),
    }


def card(figures: dict[str, dict[str, float]], settings: AutoencoderSettings, size_mb: float, identity: str) -> str:
    """The model card, figures included."""
    notes = {
        "nih_cxr14": "held-out patients of a training set",
        "padufes20": "held-out patients of a training set",
        "ham10000": "never seen in training",
        "phantom": "other phantoms than those trained on",
    }
    rows = "\n".join(
        f"| {name} | {notes[name]} | {f['images']} | {f['mean']} | {f['tenth']} | {f['pooled']} |"
        for name, f in figures.items()
    )
    return f"""# The autoencoder that ships with equigen

A diffusers `AutoencoderTiny` over blocks of {settings.factor} x {settings.factor} pixels (its input is the image \
after `pixel_unshuffle`, which
`equigen.load_autoencoder` does), {settings.latent_channels} latent channels, {size_mb:.1f} MB in half precision, \
weight hash `{identity}`. Images of
64 pixels become latents of {64 // settings.factor} x {64 // settings.factor}, small enough to train a diffusion \
model on two CPU cores.
Its training starts from principal components of the blocks and goes on from there with noise on the latents.
It is no perceptual autoencoder: it was trained on squared error (plus a little absolute error), so fine texture is \
smoothed.

Trained by `tools/train_shipped_autoencoder.py` on {settings.patches} patches of {settings.patch} pixels of
* NIH ChestX-ray (Wang et al., CVPR 2017; free with acknowledgement of the NIH Clinical Center),
* PAD-UFES-20 (Pacheco et al., Data in Brief 32:106221, 2020; CC BY 4.0),
* equigen's fundus phantoms,

80 % of the patients of each real set; all figures below are of other patients. No image can be read out of the \
weights by their design,
but they are small-data weights: for images unlike these, measure first (`equigen encode` prints the error), or fit \
your own
(`equigen autoencoder train`).

## Reconstruction error at 64 px (PSNR in dB)
| data set | | images | mean over images | tenth percentile | of the pooled squared error |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    """Train, store in half precision, measure what was stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the checkpoint lies")
    parser.add_argument("--settings", type=Path, help="JSON with other AutoencoderSettings")
    parser.add_argument("--out", type=Path, default=shipped_folder())
    parser.add_argument("--phantoms", type=int, default=1500)
    arguments = parser.parse_args()
    settings = AutoencoderSettings(**(read_json(arguments.settings) if arguments.settings else {}))
    sources = training_sources(arguments.data, arguments.phantoms)
    fitted = fit_autoencoder(sources, arguments.work / "autoencoder.safetensors", settings, SEED)
    fitted.network.to(torch.float16).save_pretrained(str(arguments.out), safe_serialization=True)
    stored = load_autoencoder(arguments.out)
    figures = {
        name: reconstruction(stored, images) for name, images in held_out_images(arguments.data, 300, 64).items()
    }
    size = sum(path.stat().st_size for path in arguments.out.glob("*.safetensors")) / 1e6
    write_json(
        arguments.out / "reconstruction.json",
        {"psnr": figures, "settings": settings.model_dump(mode="json"), "hash": stored.hash},
    )
    write_text(arguments.out / "MODEL_CARD.md", card(figures, settings, size, stored.hash))
    print(card(figures, settings, size, stored.hash))


if __name__ == "__main__":
    main()
