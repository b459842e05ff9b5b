"""Pairs of real and synthetic images on disk, as augmented batches on the device."""

from pairdata.augment import IMAGENET_MEAN, IMAGENET_STD, Augment, AugmentDraws
from pairdata.batch import MixedViews, PairBatch
from pairdata.crops import center_boxes, crop, sample_crops
from pairdata.decode import UnreadableImage, decode_rgb
from pairdata.ffcv_loader import FFCVLoader
from pairdata.folder_loader import FolderLoader
from pairdata.index import ImageIndex, index_images
from pairdata.labelled import LabelledImages
from pairdata.manifest import ViewsIndex
from pairdata.packing import Packed, pack_records, verify_records
from pairdata.records import Records, is_records
from pairdata.sampling import TooFewImages
from pairdata.scenes import SCENE_CLASSES, draw_scene, write_scenes

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SCENE_CLASSES",
    "Augment",
    "AugmentDraws",
    "FFCVLoader",
    "FolderLoader",
    "ImageIndex",
    "LabelledImages",
    "MixedViews",
    "Packed",
    "PairBatch",
    "Records",
    "TooFewImages",
    "UnreadableImage",
    "ViewsIndex",
    "center_boxes",
    "crop",
    "decode_rgb",
    "draw_scene",
    "index_images",
    "is_records",
    "pack_records",
    "sample_crops",
    "verify_records",
    "write_scenes",
]
