"""A cache of prompt embeddings on disk, by the hashes of the text and of the encoders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from equigen.diffusion.pretrained import MappedTable, MemoryTable, Pretrained, PromptTable
from equigen.diffusion.pretrained.family import Tensors
from equigen.errors import InputError, Problem
from equigen.files import hash_bytes, hash_value, replace_file
from equigen.progress import progress_bar

Precision = Literal["half", "single"]
SHARD_BYTES = 64 * 2**20  # of embeddings in one file, and in memory while encoding
CHUNK = 4096  # texts tokenised at once


class PromptCache:
    """A folder of safetensors files for one way to turn texts into embeddings (``Pretrained.text_hash``).

    A file holds the rows of some texts, one tensor for each thing that the network gets, and in its header the SHA-256
    of each text. Files are only ever added, each under a name made of what is in it: so an interrupted encoding goes on
    where it stopped, and several processes may add at once.
    """

    def __init__(self, folder: str | Path, encoder: str, precision: Precision = "half") -> None:
        self.folder, self.precision = Path(folder) / f"{encoder}-{precision}", precision
        self.locations: dict[str, tuple[Path, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Index the files that other processes have added. Raises InputError for a damaged file."""
        files = {file for file, _ in self.locations.values()}
        for file in sorted(self.folder.glob("prompts-*.safetensors")):
            if file not in files:
                self._add_file(file)

    def _add_file(self, file: Path) -> None:
        """Add the texts of a file to the index. Raises InputError for a damaged file, since its texts would be lost."""
        try:
            with safe_open(str(file), framework="pt") as handle:
                hashes = json.loads((handle.metadata() or {})["texts"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            mend = "delete it; its prompts are then encoded again"
            problem = Problem("is not a whole file of prompt embeddings", mend, file=str(file))
            raise InputError("A cached file of prompt embeddings is damaged.", [problem]) from error
        self.locations.update({name: (file, row) for row, name in enumerate(hashes)})

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts, each once, that are not in the cache."""
        return [text for text in dict.fromkeys(texts) if _text_hash(text) not in self.locations]

    def add(self, texts: Sequence[str], rows: Tensors) -> None:
        """Write a new file with a row for each text. InputError where a value does not fit the cache's precision."""
        dtype = torch.float16 if self.precision == "half" else torch.float32
        tensors = {
            name: (value.to(dtype) if value.is_floating_point() else value).cpu().contiguous()
            for name, value in rows.items()
        }
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            problem = Problem("a prompt's embedding is beyond half precision", "keep the cache in single precision")
            raise InputError("The text encoder does not fit the cache.", [problem])
        hashes = [_text_hash(text) for text in texts]
        file = self.folder / f"prompts-{hash_value(hashes)[:24]}.safetensors"
        with replace_file(file) as temporary:
            save_file(tensors, temporary, metadata={"texts": json.dumps(hashes)})
        self._add_file(file)

    def table(self, texts: Sequence[str]) -> MappedTable:
        """Return the rows of texts in this order, read from disk as needed; KeyError for a missing text."""
        return MappedTable([self.locations[_text_hash(text)] for text in texts])


def encode_prompts(
    pretrained: Pretrained,
    texts: Sequence[str],
    folder: str | Path,
    precision: Precision = "half",
    share: tuple[int, int] = (0, 1),
    show: bool = True,
) -> PromptCache:
    """Encode those texts that the cache lacks; at most one file's rows are in memory at a time.

    ``share``: (process, processes): each process takes every n-th text; once all are done, ``PromptCache.refresh``
    finds the others'. Encoders that are trained change, so they have no cache: InputError.
    """
    if pretrained.trains_text:
        problem = Problem("a text encoder is trained", "use its token numbers: prompt_table chooses them")
        raise InputError("There are no lasting embeddings.", [problem])
    cache = PromptCache(folder, pretrained.text_hash, precision)
    missing = cache.missing(list(dict.fromkeys(texts))[share[0] :: share[1]])
    with progress_bar("prompts", len(missing), show=show and bool(missing)) as bar:
        for low in range(0, len(missing), size := _texts_a_file(pretrained) if missing else 1):
            chunk = missing[low : low + size]
            cache.add(chunk, pretrained.encode(chunk))
            bar.advance(len(chunk))
    return cache


def _texts_a_file(pretrained: Pretrained) -> int:
    """Return the number of texts whose rows fill one file."""
    return max(1, SHARD_BYTES // sum(value.nbytes for value in pretrained.encode([""]).values()))


def prompt_table(
    pretrained: Pretrained,
    texts: Sequence[str],
    folder: str | Path,
    precision: Precision = "half",
    show: bool = True,
) -> PromptTable:
    """Return a row for each text: cached embeddings, or token numbers where a text encoder is trained."""
    if not pretrained.trains_text:
        return encode_prompts(pretrained, texts, folder, precision, show=show).table(texts)
    parts = [pretrained.family.tokenize(texts[low : low + CHUNK]) for low in range(0, len(texts), CHUNK)]
    return MemoryTable({name: torch.cat([chunk[name] for chunk in parts]).int() for name in parts[0]}, "tokens")


def _text_hash(text: str) -> str:
    return hash_bytes(text.encode())
