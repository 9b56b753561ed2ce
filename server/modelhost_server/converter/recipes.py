"""What each method of quantization does to which operations, as ai-edge-quantizer's recipes."""

from __future__ import annotations

from typing import Any

from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from ai_edge_quantizer.recipe_manager import RecipeManager

DYNAMIC_INT8, FLOAT16, FULL_INT8, WEIGHT_ONLY_INT8 = "dynamic_int8", "float16", "full_int8", "weight_only_int8"
METHODS = (DYNAMIC_INT8, FLOAT16, FULL_INT8, WEIGHT_ONLY_INT8)

_EVERYWHERE = ".*"


def recipe(method: str) -> Any:
    """The recipe of a method."""
    manager = RecipeManager()
    every = TFLOperationName.ALL_SUPPORTED
    if method == FLOAT16:
        manager.add_weight_only_config(_EVERYWHERE, every, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    elif method == WEIGHT_ONLY_INT8:
        manager.add_weight_only_config(_EVERYWHERE, every, 8)
    elif method == DYNAMIC_INT8:
        manager.add_dynamic_config(_EVERYWHERE, every, 8)
        # XNNPACK has no kernel that quantizes a depthwise convolution's input as it runs, and LiteRT's own makes
        # MobileNetV2 four times slower than float32.
        manager.add_weight_only_config(_EVERYWHERE, TFLOperationName.DEPTHWISE_CONV_2D, 8)
    else:
        manager.add_static_config(_EVERYWHERE, every, 8, 8)
        for boundary in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            manager.add_quantization_config(_EVERYWHERE, boundary, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return manager
