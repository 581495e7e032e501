"""One process's share of a store: ``python storing.py <saved cohort> <folder> <rank> <world> <log>``.

The log gets one line for each batch that was encoded: the hashes of its pictures.
"""

import sys
from pathlib import Path

import torch

from equigen.cohort import Cohort, Manifest
from equigen.files import hash_bytes
from equigen.latents import encode_store, load_autoencoder, store


def main(cohort, folder, rank, world, log):
    torch.set_num_threads(1)
    store.PART = 4
    coder = load_autoencoder()
    plain = type(coder).encode

    def noting(self, images):
        with Path(log).open("a") as handle:
            print(*(hash_bytes(image.tobytes()) for image in images), file=handle)
        return plain(self, images)

    type(coder).encode = noting
    opened = Manifest.load(cohort) if int(rank) % 2 else Cohort.load(cohort)
    print(encode_store(opened, coder, folder, 32, batch=3, rank=int(rank), world=int(world), show=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
