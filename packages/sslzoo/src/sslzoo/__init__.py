"""Self-supervised methods that take any views and per-pair weights."""

from genviews_core.backbones import backbone_hash, backbone_input, create_backbone, load_backbone
from genviews_core.progress import Progress
from sslzoo import losses, methods, schedules
from sslzoo.backbone_file import save_backbone
from sslzoo.backbone_source import open_backbone
from sslzoo.batch_norm import SynchronisedBatchNorm, synchronise_batch_norm
from sslzoo.checkpoint import ResumeState, load_resume, save_resume
from sslzoo.collapse import effective_rank, spread
from sslzoo.export import detectron2_settings, to_detectron2, to_timm, to_torchvision
from sslzoo.feature_tap import FeatureTap, PairTap
from sslzoo.finite import all_finite, first_not_finite
from sslzoo.flops import peak_flops
from sslzoo.gather import gather
from sslzoo.lars import LARS
from sslzoo.official import open_classifier, open_official
from sslzoo.optim import apply_schedule, build_optimizer, clip_gradients, parameter_groups
from sslzoo.preemption import Stopped, StopSignal
from sslzoo.process_group import Worker, distribute, least_of_all, start_worker, wait_for_all
from sslzoo.run_log import Curves, Histogram, RunLog, log_steps, read_log

__all__ = [
    "LARS",
    "Curves",
    "FeatureTap",
    "Histogram",
    "PairTap",
    "Progress",
    "ResumeState",
    "RunLog",
    "StopSignal",
    "Stopped",
    "SynchronisedBatchNorm",
    "Worker",
    "all_finite",
    "apply_schedule",
    "backbone_hash",
    "backbone_input",
    "build_optimizer",
    "clip_gradients",
    "create_backbone",
    "detectron2_settings",
    "distribute",
    "effective_rank",
    "first_not_finite",
    "gather",
    "least_of_all",
    "load_backbone",
    "load_resume",
    "log_steps",
    "losses",
    "methods",
    "open_backbone",
    "open_classifier",
    "open_official",
    "parameter_groups",
    "peak_flops",
    "read_log",
    "save_backbone",
    "save_resume",
    "schedules",
    "spread",
    "start_worker",
    "synchronise_batch_norm",
    "to_detectron2",
    "to_timm",
    "to_torchvision",
    "wait_for_all",
]
