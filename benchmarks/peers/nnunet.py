"""nnU-Net itself (nnunetv2), its 3d_fullres configuration for LiTS with random weights, on one CT, without mirroring.

PYTHON benchmarks/peers/nnunet.py CT OUT [--seconds 20] [--report FILE]

PYTHON is the interpreter of an environment of its own, made with `pip install nnunetv2`. CT is a NIfTI file. What runs
is nnU-Net's own predictor from reading to writing, in one process (its -npp 0 -nps 0): so its memory is one number.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, os.devnull)  # it asks for folders that prediction has no use for

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402
from sampled import Sampled, parser  # noqa: E402

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 131,
    "file_ending": ".nii.gz",
}
STAGES = 6


def resampling(order: int, is_seg: bool = False) -> dict:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


# What nnU-Net's planner makes of LiTS's median geometry, 482 x 512 x 512 voxels of 1 x 0.7676 x 0.7676 mm, for 8 GB.
FULLRES = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [128, 128, 128],
    "median_image_size_in_voxels": [482, 512, 512],
    "spacing": [1.0, 0.7676, 0.7676],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": resampling(3),
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": resampling(1, is_seg=True),
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": resampling(1),
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": STAGES,
            "features_per_stage": [32, 64, 128, 256, 320, 320],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * STAGES,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (STAGES - 1),
            "n_conv_per_stage": [2] * STAGES,
            "n_conv_per_stage_decoder": [2] * (STAGES - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
    "batch_dice": True,
}
PLANS = {
    "dataset_name": "Dataset003_Liver",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": FULLRES["spacing"],
    "original_median_shape_after_transp": FULLRES["median_image_size_in_voxels"],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {"3d_fullres": FULLRES},
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 99.40, "std": 39.36, "percentile_00_5": -17.0, "percentile_99_5": 201.0}
    },
}


def predict(ct: Path, folder: Path, seconds: float) -> Sampled:
    """Writes nnU-Net's mask of a CT into a folder; as for all peers, one bias makes everything background."""
    plans = PlansManager(PLANS)
    configuration = plans.get_configuration("3d_fullres")
    network = nnUNetTrainer.build_network_architecture(plans, configuration, 1, 3, enable_deep_supervision=False)
    head = [parameter for parameter in network.parameters() if parameter.shape == (3,)][-1]
    with torch.no_grad():
        head[0] = 100  # it adds up in float16
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    weights = [network.state_dict()]
    predictor.manual_initialization(network, plans, configuration, weights, DATASET, "nnUNetTrainer", None)
    sampled = Sampled(network.forward, seconds)
    network.forward = sampled
    folder.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential([[str(ct)]], [str(folder / "mask")])
    return sampled


def main() -> None:
    arguments = parser(__doc__).parse_args()
    sampled = predict(arguments.ct, arguments.out, arguments.seconds)
    if arguments.report:
        sampled.report(arguments.report)


if __name__ == "__main__":
    main()
