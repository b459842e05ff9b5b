from .augment import IMAGENET_MEAN, IMAGENET_STD, Augment
from .batch import InterpolatedViews, PairBatch
from .batch_augment import AugmentDraws
from .crops import center_boxes, crop, sample_crops
from .decode import UnreadableImage, decode_rgb
from .eval_loader import LabeledImages
from .ffcv_loader import FFCVLoader
from .folder_loader import FolderLoader
from .index import ImageIndex, index_images
from .manifest import ViewsIndex
from .packing import Packed, pack_records, verify_records
from .records import Records, is_records
from .sampling import TooFewImages
from .scenes import SCENE_CLASSES, draw_scene, write_scenes
from .statistics import ChannelStatistics, channel_statistics

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SCENE_CLASSES",
    "Augment",
    "AugmentDraws",
    "ChannelStatistics",
    "FFCVLoader",
    "FolderLoader",
    "ImageIndex",
    "InterpolatedViews",
    "LabeledImages",
    "Packed",
    "PairBatch",
    "Records",
    "TooFewImages",
    "UnreadableImage",
    "ViewsIndex",
    "center_boxes",
    "channel_statistics",
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
