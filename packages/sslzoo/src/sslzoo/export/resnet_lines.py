"""Python code that builds a ResNet as `network` in torchvision or timm."""

from genviews_core.backbones import Architecture
from genviews_core.backbones.names import TORCHVISION_RESNETS, WIDENED
from genviews_core.backbones.widened_resnet import BLOCKS

NO_CLASSIFIER = "network.fc = torch.nn.Identity()"
NO_POOLING = "network.maxpool = torch.nn.Identity()"


def torchvision_lines(architecture: Architecture) -> str:
    """Return code for torchvision; other widths are built with torchvision's own `_make_layer`.

    Raises:
        ValueError: torchvision cannot build this network.
    """
    if architecture["name"] in TORCHVISION_RESNETS:
        lines = [f"network = torchvision.models.{architecture['name']}()", NO_CLASSIFIER]
        return "\n".join(lines + _cifar_stem(architecture, 64))
    block, width, blocks = _stages(architecture, "torchvision")
    lines = [
        f"Block = torchvision.models.resnet.{block}",
        f"network = torchvision.models.ResNet(Block, {blocks})",
        NO_CLASSIFIER,
        *_stem(architecture, width),
        f"network.inplanes = {width}",
        f"for stage, blocks in enumerate({blocks}):",
        f"    layer = network._make_layer(Block, {width} * 2**stage, blocks, stride=2 if stage else 1)",
        '    setattr(network, f"layer{stage + 1}", layer)',
    ]
    return "\n".join(lines)


def timm_lines(architecture: Architecture) -> str:
    """Return code for timm; other widths are built with timm's own `make_blocks`.

    Raises:
        ValueError: timm cannot build this network.
    """
    if architecture["name"] in TORCHVISION_RESNETS:
        lines = [f'network = timm.create_model("{architecture["name"]}", num_classes=0)']
        return "\n".join(lines + _cifar_stem(architecture, 64))
    block, width, blocks = _stages(architecture, "timm")
    channels = [width * 2**stage for stage in range(4)]
    lines = [
        f"Block, channels = timm.models.resnet.{block}, {channels}",
        f"network = timm.models.resnet.ResNet(Block, {blocks}, num_classes=0, channels=channels)",
        *_stem(architecture, width),
        f"for name, stage in timm.models.resnet.make_blocks([Block] * 4, channels, {blocks}, {width})[0]:",
        "    setattr(network, name, stage)",
    ]
    return "\n".join(lines)


def _stages(architecture: Architecture, library: str) -> tuple[str, int, list[int]]:
    """Return the block class, the stem channels and the number of blocks per stage."""
    name = architecture["name"]
    if name == "resnet10":
        return "BasicBlock", architecture["width"], [1, 1, 1, 1]
    if name == WIDENED and not architecture.get("same_padding"):
        return "Bottleneck", 64 * architecture["widen"], list(BLOCKS[architecture["depth"]])
    raise ValueError(f"{library} has no {name}; keep the backbone folder.")


def _stem(architecture: Architecture, width: int) -> list[str]:
    norm = f"network.bn1 = torch.nn.BatchNorm2d({width})"
    plain = f"network.conv1 = torch.nn.Conv2d(3, {width}, 7, 2, 3, bias=False)"
    return [*(_cifar_stem(architecture, width) or [plain]), norm]


def _cifar_stem(architecture: Architecture, width: int) -> list[str]:
    """Return the code for `cifar_stem`; empty without it."""
    if not architecture.get("cifar_stem"):
        return []
    stride, padding = architecture.get("stem_stride", 1), architecture.get("stem_padding", 1)
    return [f"network.conv1 = torch.nn.Conv2d(3, {width}, 3, {stride}, {padding}, bias=False)", NO_POOLING]
