"""A MONAI Deploy app: a DICOM CT in, the liver as DICOM SEG out, by the SDK's own operators.

python tests/ecosystem/map --input DICOM --output FOLDER --model MODEL

MODEL is the bundle's folder, a folder that holds it (as in a container), or a `model.ts` of `monai.bundle ckpt_export`
with the bundle on PYTHONPATH, as its config names the bundle's `scripts`.
"""

from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from pydicom.sr.codedict import codes

CT = '{"selections": [{"name": "CT", "conditions": {"Modality": "^CT$"}}]}'


class LiverApp(Application):
    def compose(self) -> None:
        context = Application.init_app_context(self.argv)
        model = Path(context.model_path)
        if model.is_dir():
            model = next(model.glob("**/configs/inference.json")).parents[1]
            context.models = None  # SDK 4.0.0 takes any folder for a network that is loaded, and fails to call it
        liver = SegmentDescription(
            segment_label="Liver",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_name="RA V-Net",
            algorithm_family=codes.DCM.ArtificialIntelligence,
            algorithm_version="0.3.0",
        )
        image = [IOMapping("image", Image, IOType.IN_MEMORY)]
        pred = [IOMapping("pred", Image, IOType.IN_MEMORY)]

        study = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=Path(context.input_path))
        series = DICOMSeriesSelectorOperator(self, rules=CT)
        volume = DICOMSeriesToVolumeOperator(self)
        network = MonaiBundleInferenceOperator(
            self, app_context=context, bundle_path=model, input_mapping=image, output_mapping=pred
        )
        seg = DICOMSegmentationWriterOperator(
            self, segment_descriptions=[liver], output_folder=Path(context.output_path)
        )
        self.add_flow(study, series, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(series, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, network, {("image", "image")})
        self.add_flow(network, seg, {("pred", "seg_image")})
        self.add_flow(series, seg, {("study_selected_series_list", "study_selected_series_list")})


if __name__ == "__main__":
    LiverApp().run()
