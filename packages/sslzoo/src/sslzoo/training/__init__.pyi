from .config import TrainConfig
from .diagnostics import BackboneFeatureHook, CollapseDetector, NonFiniteMonitor, OnlineProbe, TrainingMonitor
from .metrics import Histogram, LogSink, MetricLogger, MetricWriter, WandbSink, log_steps, read_log
from .signals import StopSignal, TrainingInterrupted, block_signals
from .state import PairWeighter, TrainState, create_state
from .step import ViewBatch, train_step
from .throughput import ThroughputMeter, peak_flops
from .trainer import SeekableBatches, Trainer, as_view_batch, fit, step_generator

__all__ = [
    "BackboneFeatureHook",
    "CollapseDetector",
    "Histogram",
    "LogSink",
    "MetricLogger",
    "MetricWriter",
    "NonFiniteMonitor",
    "OnlineProbe",
    "PairWeighter",
    "SeekableBatches",
    "StopSignal",
    "ThroughputMeter",
    "TrainConfig",
    "TrainState",
    "Trainer",
    "TrainingInterrupted",
    "TrainingMonitor",
    "ViewBatch",
    "WandbSink",
    "as_view_batch",
    "block_signals",
    "create_state",
    "fit",
    "log_steps",
    "peak_flops",
    "read_log",
    "step_generator",
    "train_step",
]
