"""Image encoders by name, path or hub id, or any module: features with their identity beside them."""

from equigen.quality.encoders.base import BATCH, Encoder, EncoderOutput, Images, NetworkEncoder, identity
from equigen.quality.encoders.efficientnet import EfficientNetLite0
from equigen.quality.encoders.hub import CLIP, DINOv2
from equigen.quality.encoders.inception import FIDInception, Inception
from equigen.quality.encoders.load import ENCODERS, load_encoder
from equigen.quality.encoders.module import ModuleEncoder
from equigen.quality.encoders.onnx import ONNXEncoder
from equigen.quality.encoders.radimagenet import RadImageNet

__all__ = [
    "BATCH",
    "CLIP",
    "ENCODERS",
    "DINOv2",
    "EfficientNetLite0",
    "Encoder",
    "EncoderOutput",
    "FIDInception",
    "Images",
    "Inception",
    "ModuleEncoder",
    "NetworkEncoder",
    "ONNXEncoder",
    "RadImageNet",
    "identity",
    "load_encoder",
]
