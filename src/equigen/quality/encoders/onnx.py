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
from equigen.quality.encoders.base import BATCH, BATCH_ON_GPU, Bicubic, EncoderOutput, Images, encode_batches
from equigen.quality.encoders.weights import weights_error


class ONNXEncoder:
    """A network in an ONNX file: input [N, 3, R, R] float32, output features [N, D].

    Args:
        file: the ``.onnx`` file; external weights beside it (``<file>.data``, ``<file>_data``) are part of the hash.
        resolution: width R in pixels; None takes that of the file's input.
        mean: of each channel, on the scale 0 to 1.
        std: likewise.
        output: name of the output with the features; None where there is one output.
        batch: images at once; None takes that of the file's input, else 16, on a GPU 128.

    Raises:
        InputError: onnxruntime is not installed (extra ``onnx``), the file is missing or damaged, its input or
            output has another shape, or resolution, mean or std are missing.

    """

    def __init__(
        self,
        file: str | Path,
        resolution: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output: str | None = None,
        batch: int | None = None,
    ) -> None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise weights_error("onnx", "the file is not there", "give the path of a file that you have", path)
        self._session = _session(path)
        entry = self._session.get_inputs()[0]
        fixed = _fixed_shape(entry, len(self._session.get_inputs()), path)
        self._prepare = _preparation(path, resolution, mean, std, fixed[1])
        self._input, self._output = entry.name, _output_name(self._session.get_outputs(), output, path)
        self.batch = fixed[0] or batch or (BATCH_ON_GPU if best_device() == "cuda" else BATCH)
        self.name = f"onnx:{path.name}@{self._prepare.resolution}"
        parts = [path, *(p for p in (path.with_name(f"{path.name}{end}") for end in (".data", "_data")) if p.is_file())]
        self.weight_hash = hash_value([*map(hash_file, parts), self._output])
        self.preprocessing = self._prepare.description
        self._empty = self._empty_output(path)
        self.dimension = int(self._empty[0].shape[1])

    def __call__(self, images: Images) -> EncoderOutput:
        """Encode uint8 [N, H, W, 3]; see ``Encoder`` and ``encode_batches``. There are no probabilities."""
        return encode_batches(images, self.batch, self._encode_batch, lambda: self._empty)

    def _encode_batch(self, images: Images) -> EncoderOutput:
        pixels = self._prepare(torch.from_numpy(np.ascontiguousarray(images))).contiguous().numpy()
        return np.asarray(self._session.run([self._output], {self._input: pixels})[0], np.float32), None

    def _empty_output(self, path: Path) -> EncoderOutput:
        """Return features of no rows and the right width, from encoding grey images; InputError where that fails."""
        resolution = self._prepare.resolution
        grey = np.full((self.batch, resolution, resolution, 3), 128, np.uint8)
        try:
            values = self._encode_batch(grey)[0]
        except Exception as error:  # onnxruntime's errors have no base class of their own
            reason = str(error).strip().partition("\n")[0]
            raise weights_error(
                "onnx",
                f"it fails on [{self.batch}, 3, {resolution}, {resolution}]: {reason}",
                "correct the resolution or export it again",
                path,
            ) from error
        if values.ndim != 2 or len(values) != self.batch:
            raise weights_error(
                "onnx",
                f"it gives {values.shape} for {self.batch} images",
                "pool and flatten: features must be [N, D]",
                path,
            )
        return values[:0], None


def _session(path: Path) -> Any:
    """Return onnxruntime's session of a file, on the GPU where there is one."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise weights_error("onnx", "onnxruntime is not installed", "install equigen[onnx]", path)
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    available = runtime.get_available_providers() if best_device() == "cuda" else []
    providers = [name for name in ("CUDAExecutionProvider",) if name in available] + ["CPUExecutionProvider"]
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        reason = str(error).strip().partition("\n")[0]
        raise weights_error("onnx", f"it cannot be opened: {reason}", "export it again", path) from error


def _fixed_shape(entry: Any, inputs: int, path: Path) -> tuple[int | None, int | None]:
    """Return the fixed batch and width of the file's input, None where they are dynamic."""
    shape = list(entry.shape)
    if inputs != 1 or len(shape) != 4 or entry.type != "tensor(float)" or shape[1] not in {3, "C", "channels", None}:
        raise weights_error(
            "onnx",
            f"{inputs} inputs, the first {entry.type} {shape}",
            "export it with one input, [N, 3, H, W] float32",
            path,
        )
    batch, height, width = (value if isinstance(value, int) else None for value in (shape[0], shape[2], shape[3]))
    if height != width:
        raise weights_error("onnx", f"its input is {shape}", "export it for square images", path)
    return batch, height


def _preparation(
    path: Path, resolution: int | None, mean: Sequence[float] | None, std: Sequence[float] | None, fixed: int | None
) -> Bicubic:
    """Return the preprocessing; InputError where values are missing or the resolution does not fit."""
    width = resolution or fixed
    options: Mapping[str, object] = {"resolution": width, "mean": mean, "std": std}
    lacking = [name for name, value in options.items() if value is None]
    if width is None or mean is None or std is None:
        example = f"onnx:{path.name},resolution=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"
        mend = f"say it: {example}, or in {path.name}.json"
        problem = Problem(f"no {' and no '.join(lacking)}", mend, file=str(path))
        raise InputError("What an ONNX file expects cannot be read from it.", [problem])
    if fixed is not None and width != fixed:
        problem = Problem(f"resolution {width}", f"the file takes {fixed} only", file=str(path))
        raise InputError("The encoder cannot work at this resolution.", [problem])
    three = [tuple(float(v) for v in values) * (3 if len(values) == 1 else 1) for values in (mean, std)]
    return Bicubic(width, three[0], three[1])


def _output_name(outputs: Sequence[Any], requested: str | None, path: Path) -> str:
    """Return the name of the output with the features; InputError where it is unknown or ambiguous."""
    names = [str(output.name) for output in outputs]
    if requested is None and len(names) == 1:
        return names[0]
    if requested not in names:
        message = "several outputs" if requested is None else f"no output '{requested}'"
        raise weights_error("onnx", message, f"say output= one of {', '.join(names)}", path)
    return str(requested)
