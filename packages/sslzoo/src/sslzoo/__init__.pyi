from . import losses, methods, schedules, training
from .backbones import (
    backbone_hash,
    backbone_input,
    create_backbone,
    load_backbone,
    resolve_backbone,
    save_backbone,
)
from .batch_norm import CPUSyncBatchNorm, convert_sync_batchnorm
from .checkpoint import ResumeState, load_resume, save_resume
from .distributed import DistContext, all_reduce_min, barrier, gather, init_distributed, wrap_ddp
from .export import detectron2_settings, to_detectron2, to_timm, to_torchvision
from .feature_hook import FeatureHook, PairFeatureHook
from .official import load_classifier, load_official_checkpoint
from .optim import LARS, apply_schedule, build_optimizer, clip_grad_per_param, parameter_groups
from .statistics import all_finite, effective_rank, embedding_std, first_nonfinite
from .training.metrics import Histogram, LogSink, MetricWriter, log_steps, read_log
from .training.signals import StopSignal, TrainingInterrupted, block_signals
from .training.throughput import peak_flops
from .training.trainer import fit

__all__ = [
    "LARS",
    "CPUSyncBatchNorm",
    "DistContext",
    "FeatureHook",
    "Histogram",
    "LogSink",
    "MetricWriter",
    "PairFeatureHook",
    "ResumeState",
    "StopSignal",
    "TrainingInterrupted",
    "all_finite",
    "all_reduce_min",
    "apply_schedule",
    "backbone_hash",
    "backbone_input",
    "barrier",
    "block_signals",
    "build_optimizer",
    "clip_grad_per_param",
    "convert_sync_batchnorm",
    "create_backbone",
    "detectron2_settings",
    "effective_rank",
    "embedding_std",
    "first_nonfinite",
    "fit",
    "gather",
    "init_distributed",
    "load_backbone",
    "load_classifier",
    "load_official_checkpoint",
    "load_resume",
    "log_steps",
    "losses",
    "methods",
    "parameter_groups",
    "peak_flops",
    "read_log",
    "resolve_backbone",
    "save_backbone",
    "save_resume",
    "schedules",
    "to_detectron2",
    "to_timm",
    "to_torchvision",
    "training",
    "wrap_ddp",
]
