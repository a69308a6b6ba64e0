"""What goes with exported weights: how images become the net's input, and what its outputs mean."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from convnet.evaluation.evaluate import Trained


def facts(trained: Trained) -> dict[str, Any]:
    """The preprocessing and the classes of a trained net, as JSON values.

    x = (crop of the resized image, 0 to 255 - mean) * scale; `mean` is one number for each channel,
    or an image [H, W, C] of float32 in base64, of which the crop is subtracted from the crop.
    """
    cfg, (height, width, channels) = trained.cfg, trained.image_shape
    mean = np.asarray(trained.stats.mean, "<f4")
    per_channel = mean.shape[:2] == (1, 1)
    image = {"shape": list(mean.shape), "float32_base64": base64.b64encode(mean.tobytes()).decode()}
    return {
        "size": [height, width],
        "crop": list(trained.net.in_shape[:2]),
        "channels": "RGB" if channels == 3 else channels,
        "range": [0, 255],
        "mean": mean.reshape(-1).tolist() if per_channel else image,
        "scale": cfg.data.scale,
        "classes": list(trained.classes),
    }


def facts_json(trained: Trained) -> str:
    """The same as text."""
    return json.dumps(facts(trained))
