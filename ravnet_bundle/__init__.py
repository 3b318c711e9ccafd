"""RA V-Net for liver segmentation in CT, as a MONAI bundle."""
