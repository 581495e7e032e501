"""Names that settings may choose: networks, predictions and trainable weights. Importing them loads no library."""

from typing import Literal

Preset = Literal["tiny", "small", "base"]
Prediction = Literal["v_prediction", "epsilon"]
TrainableWeights = Literal["unet", "unet+text", "lora", "lora+text"]
MINILM = "minilm"  # the text encoder of this package
