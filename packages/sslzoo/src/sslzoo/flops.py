"""What share of a device's arithmetic a training uses."""

import torch

PEAK_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.4,
    "H200 NVL": 835.5,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.4,
    "H800": 989.4,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L4": 121.0,
    "V100-PCIE": 112.0,
    "V100S": 130.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""TFLOP/s of dense bf16 matrix products (fp16 on V100 and T4) by a part of the device's name; the first that fits.

NVIDIA's data sheets of these products, https://www.nvidia.com/en-us/data-center/; where a sheet gives only the figure
with sparsity, half of it. pytorch/torchtitan@0258167 torchtitan/tools/utils.py has the same for A100, H100, H200, B200
and L40S.
"""


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s that a device could do at most in bf16 (fp16 where it has no bf16); None where that is not known."""
    if device.type != "cuda":
        return None
    return peak_flops_by_name(torch.cuda.get_device_name(device))


def peak_flops_by_name(name: str) -> float | None:
    """The same by the name that torch.cuda.get_device_name gives."""
    words = name.replace("-", " ").split()
    for known, tera in PEAK_TFLOPS.items():
        if set(known.replace("-", " ").split()) <= set(words):
            return tera * 1e12
    return None
