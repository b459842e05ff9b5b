"""Self-supervised methods that take any views and per-pair weights."""

from sslzoo import losses, methods, schedules
from sslzoo.backbone_file import backbone_hash, backbone_input, load_backbone, open_backbone, save_backbone
from sslzoo.backbones import create_backbone
from sslzoo.batch_norm import SynchronisedBatchNorm, synchronise_batch_norm
from sslzoo.checkpoint import ResumeState, load_resume, save_resume
from sslzoo.feature_tap import FeatureTap, PairTap
from sslzoo.gather import gather
from sslzoo.lars import LARS
from sslzoo.optim import apply_schedule, build_optimizer, clip_gradients, parameter_groups
from sslzoo.process_group import Worker, distribute, start_worker, wait_for_all
from sslzoo.progress import Progress
from sslzoo.run_log import Histogram, RunLog, log_steps, read_log

__all__ = [
    "LARS",
    "FeatureTap",
    "Histogram",
    "PairTap",
    "Progress",
    "ResumeState",
    "RunLog",
    "SynchronisedBatchNorm",
    "Worker",
    "apply_schedule",
    "backbone_hash",
    "backbone_input",
    "build_optimizer",
    "clip_gradients",
    "create_backbone",
    "distribute",
    "gather",
    "load_backbone",
    "load_resume",
    "log_steps",
    "losses",
    "methods",
    "open_backbone",
    "parameter_groups",
    "read_log",
    "save_backbone",
    "save_resume",
    "schedules",
    "start_worker",
    "synchronise_batch_norm",
    "wait_for_all",
]
