"""Any ONNX file as an encoder, through onnxruntime."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equigen.devices import best_device
from equigen.errors import InputError, Problem
from equigen.files import hash_file, hash_value
from equigen.quality.encoders.base import BATCH, BATCH_ON_GPU, Bicubic, Encoded, Images, in_batches
from equigen.quality.encoders.weights import unusable


class ONNXEncoder:
    """A network in an ONNX file: input [N, 3, R, R] float32, output features [N, D].

    Args:
        file: the ``.onnx`` file; weights kept beside it (``<file>.data``, ``<file>_data``) belong to the hash.
        resolution: side R in pixels; None takes the one that the file fixes.
        mean: of each channel, on the scale 0 to 1.
        std: likewise.
        output: name of the output with the features; may be left out where there is one output.
        batch: images at once; None takes the file's own, else 16, on a GPU 128.

    Raises:
        InputError: onnxruntime is not installed (extra ``onnx``), the file is missing or damaged, its input or
            output has another form, or resolution, mean or std are not given.

    """

    def __init__(
        self, file: str | Path, resolution: int | None = None, mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None, output: str | None = None, batch: int | None = None,
    ) -> None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise unusable("onnx", "the file is not there", "give the path of a file that you have", path)
        self._session = _session(path)
        entry = self._session.get_inputs()[0]
        fixed = _fixed(entry, len(self._session.get_inputs()), path)
        self._prepare = _preparation(path, resolution, mean, std, fixed[1])
        self._input, self._output = entry.name, _chosen(self._session.get_outputs(), output, path)
        self.batch = fixed[0] or batch or (BATCH_ON_GPU if best_device() == "cuda" else BATCH)
        self.name = f"onnx:{path.name}@{self._prepare.resolution}"
        parts = [path, *(p for p in (path.with_name(f"{path.name}{end}") for end in (".data", "_data")) if p.is_file())]
        self.weight_hash = hash_value([*map(hash_file, parts), self._output])
        self.preprocessing = self._prepare.words
        self._empty = self._probe(path)
        self.dimension = int(self._empty[0].shape[1])

    def __call__(self, images: Images) -> Encoded:
        """Encode uint8 [N, H, W, 3]; see ``Encoder`` and ``in_batches``. There are no probabilities."""
        return in_batches(images, self.batch, self._run, lambda: self._empty)

    def _run(self, images: Images) -> Encoded:
        pixels = self._prepare(torch.from_numpy(np.ascontiguousarray(images))).contiguous().numpy()
        return np.asarray(self._session.run([self._output], {self._input: pixels})[0], np.float32), None

    def _probe(self, path: Path) -> Encoded:
        side = self._prepare.resolution
        grey = np.full((self.batch, side, side, 3), 128, np.uint8)
        try:
            values = self._run(grey)[0]
        except Exception as error:  # onnxruntime's errors have no base class of their own
            reason = str(error).strip().partition("\n")[0]
            raise unusable("onnx", f"it fails on [{self.batch}, 3, {side}, {side}]: {reason}",
                           "correct the resolution or export it again", path) from error
        if values.ndim != 2 or len(values) != self.batch:
            raise unusable("onnx", f"it gives {values.shape} for {self.batch} images",
                           "pool and flatten: features must be [N, D]", path)
        return values[:0], None


def _session(path: Path) -> Any:
    if importlib.util.find_spec("onnxruntime") is None:
        raise unusable("onnx", "onnxruntime is not installed", "install equigen[onnx]", path)
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    here = runtime.get_available_providers() if best_device() == "cuda" else []
    wanted = [name for name in ("CUDAExecutionProvider",) if name in here] + ["CPUExecutionProvider"]
    try:
        return runtime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        reason = str(error).strip().partition("\n")[0]
        raise unusable("onnx", f"it cannot be opened: {reason}", "export it again", path) from error


def _fixed(entry: Any, inputs: int, path: Path) -> tuple[int | None, int | None]:
    """Batch and side that the file fixes, None where it leaves them open."""
    shape = list(entry.shape)
    if inputs != 1 or len(shape) != 4 or entry.type != "tensor(float)" or shape[1] not in {3, "C", "channels", None}:
        raise unusable("onnx", f"{inputs} inputs, the first {entry.type} {shape}",
                       "export it with one input, [N, 3, H, W] float32", path)
    batch, height, width = (value if isinstance(value, int) else None for value in (shape[0], shape[2], shape[3]))
    if height != width:
        raise unusable("onnx", f"its input is {shape}", "export it for square images", path)
    return batch, height


def _preparation(
    path: Path, resolution: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, fixed: int | None
) -> Bicubic:
    side = resolution or fixed
    given: Mapping[str, object] = {"resolution": side, "mean": mean, "std": std}
    lacking = [name for name, value in given.items() if value is None]
    if side is None or mean is None or std is None:
        example = f"onnx:{path.name},resolution=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
        mend = f"say it: {example}, or in {path.name}.json"
        problem = Problem(f"no {' and no '.join(lacking)}", mend, file=str(path))
        raise InputError("What an ONNX file expects cannot be read from it.", [problem])
    if fixed is not None and side != fixed:
        problem = Problem(f"resolution {side}", f"the file takes {fixed} only", file=str(path))
        raise InputError("The encoder cannot work at this resolution.", [problem])
    three = [tuple(float(v) for v in values) * (3 if len(values) == 1 else 1) for values in (mean, std)]
    return Bicubic(side, three[0], three[1])


def _chosen(outputs: Sequence[Any], wanted: str | None, path: Path) -> str:
    names = [str(output.name) for output in outputs]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        message = "several outputs" if wanted is None else f"no output '{wanted}'"
        raise unusable("onnx", message, f"say output= one of {', '.join(names)}", path)
    return str(wanted)
