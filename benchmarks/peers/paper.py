"""The paper's own network on one CT: width 64, at the CT's own pixels, random weights, through `inference.json`.

It sees every slice: where random weights find a liver says nothing of how many slices could be left out.

python benchmarks/peers/paper.py CT OUT [--float32] [--seconds 20] [--report FILE]
"""

from __future__ import annotations

import os
from pathlib import Path

from monai.bundle import ConfigWorkflow
from sampled import Sampled, parser

BUNDLE = Path(__file__).resolve().parents[2] / "ravnet_bundle"
PAPER = {"pixel_size": -1, "network_def#width": 64, "network_def#lstm_ratio": 1.0, "load_pretrain": False}
PAPER["inferer"] = {
    "_target_": "scripts.inference.axial.AxialInferer",
    "_requires_": "@code_path",
    "batch_size": "@slices_per_batch",
    "amp": "@amp",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--float32", action="store_true", help="no bfloat16, even where the CPU is faster with it")
    arguments = options.parse_args()
    paths = {"dataset_dir": str(arguments.ct.resolve()), "output_dir": str(arguments.out.resolve())}
    report = arguments.report and arguments.report.resolve()
    os.chdir(BUNDLE)
    workflow = ConfigWorkflow(
        "configs/inference.json", workflow_type="inference", amp=not arguments.float32, **PAPER, **paths
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("network")
    network.forward = sampled = Sampled(network.forward, arguments.seconds)
    workflow.run()
    if report:
        sampled.report(report)


if __name__ == "__main__":
    main()
