"""The forms of encoders' names and what each encoder is, without the libraries that encoders need."""

from __future__ import annotations

ENCODER_FORMS: dict[str, tuple[str, str]] = {
    "efficientnet-lite0": (
        "efficientnet-lite0[@RESOLUTION]",
        "ImageNet features that need no file and no network (default, at 128 px)",
    ),
    "inception": ("inception:FILE", "the network of FID, with your file of its weights (pt_inception-2015-12-05)"),
    "dinov2": ("dinov2:FOLDER_OR_ID", "DINOv2 from a local folder, or by hub id"),
    "clip": ("clip:FOLDER_OR_ID", "CLIP's image embedding from a local folder, or by hub id"),
    "radimagenet": ("radimagenet:FILE", "ResNet-50 trained on radiology, with your file of its weights"),
    "onnx": (
        "onnx:FILE,resolution=R,mean=A/B/C,std=A/B/C",
        "any ONNX file, [N, 3, R, R] -> [N, D] (extra onnx)",
    ),
}
"""Name -> (form, description)."""
