"""Sizes of the detection transformers, for where the hub cannot say them: what differs from the library's own defaults.

As their authors publish them. Parameters for COCO's 80 classes, with what only training needs: D-FINE 3.8, 10.3, 19.6 and 31.2 M,
RT-DETRv2 20.2 and 42.9 M, DEIMv2-N 3.6 M, RF-DETR 30.4, 32.1 and 33.7 M.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]


def _stages(*numbers: int) -> Settings:
    """Which stages of the backbone are handed on; the library wants numbers and names to agree."""
    return {"out_indices": list(numbers), "out_features": [f"stage{number}" for number in numbers]}


_HGNET_B0: Settings = {
    "hidden_sizes": [128, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
_HGNET_B2: Settings = {
    "hidden_sizes": [192, 384, 768, 1536],
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4, 4, 4, 4],
    "use_learnable_affine_block": True,
}
_RESNET_18: Settings = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}

DFINE_N: Settings = {
    "backbone_config": _HGNET_B0 | _stages(3, 4),
    "d_model": 128,
    "num_feature_levels": 2,
    "feat_strides": [16, 32],
    "encoder_in_channels": [512, 1024],
    "encoder_hidden_dim": 128,
    "encoder_ffn_dim": 512,
    "encode_proj_layers": [1],
    "hidden_expansion": 0.34,
    "depth_mult": 0.5,
    "decoder_in_channels": [128, 128],
    "decoder_ffn_dim": 512,
    "decoder_layers": 3,
    "decoder_n_points": [6, 6],
}
DFINE_S: Settings = {
    "backbone_config": _HGNET_B0,
    "encoder_in_channels": [256, 512, 1024],
    "hidden_expansion": 0.5,
    "depth_mult": 0.34,
    "decoder_layers": 3,
    "decoder_n_points": [3, 6, 3],
}
DFINE_M: Settings = {
    "backbone_config": _HGNET_B2,
    "encoder_in_channels": [384, 768, 1536],
    "depth_mult": 0.67,
    "decoder_layers": 4,
    "decoder_n_points": [3, 6, 3],
}
DFINE_L: Settings = {"decoder_n_points": [3, 6, 3]}
DEIMV2_N: Settings = DFINE_N

RTDETR_V2_R18: Settings = {
    "backbone_config": _RESNET_18,
    "encoder_in_channels": [128, 256, 512],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
}
RTDETR_V2_R50: Settings = {}

_LW_VIT: Settings = {"model_type": "lw_detr_vit", "hidden_size": 192, "num_attention_heads": 12, "num_windows": 16}
LW_DETR_T: Settings = {
    "backbone_config": _LW_VIT | {"num_hidden_layers": 6, "window_block_indices": [0, 2, 4]} | _stages(2, 4, 6),
    "projector_scale_factors": [1.0],
}
LW_DETR_S: Settings = {
    "backbone_config": _LW_VIT | {"num_hidden_layers": 10, "window_block_indices": [0, 1, 3, 6, 7, 9]} | _stages(3, 5, 6, 10),
    "projector_scale_factors": [1.0],
}


def rf_detr(image_size: int, decoder_layers: int) -> Settings:
    """RF-DETR on DINOv2-small in patches of 16 px and two by two windows."""
    backbone = {"image_size": image_size, "patch_size": 16, "num_windows": 2} | _stages(3, 6, 9, 12)
    return {"backbone_config": backbone, "decoder_layers": decoder_layers, "decoder_n_points": 2}
