"""What the models are: `minidat info`."""

from __future__ import annotations

from typing import Any

from .catalog import FAMILIES, family_of, get_config, list_models
from .models import ModelConfig
from .models.complexity import KINDS

FIGURES = {  # of PublishedWeights, and how a table calls them
    "top1": "top-1 {:.2f}%",
    "top5": "top-5 {:.2f}%",
    "box_ap": "box AP {:.1f}%",
    "mask_ap": "mask AP {:.1f}%",
    "mean_iou": "mIoU {:.1f}%",
}


def describe_model(name: str) -> dict[str, Any]:
    """Figures of one published model, all but the published ones computed by walking it.

    Keys: `name`, `parameters`, `gflops` (multiply-adds / 1e9 for one image, counted as in `models.complexity`),
    `image_size` (height, width), what its authors published (percent, or None: `top1` and `top5` on ImageNet, `box_ap`
    and `mask_ap` on COCO, `mean_iou` on ADE20K), and `parts`: for each part of the network its `name`, `map_size`,
    `dim`, `blocks` (None where there are none), `parameters`, `gflops`, and `gflops_by_kind`.
    Raises ConfigError for an unknown name.
    """
    from .checkpoints.published import PUBLISHED_WEIGHTS

    config, family = get_config(name), FAMILIES[family_of(get_config(name))]
    model = family.network(config)
    backbone = config if isinstance(config, ModelConfig) else config.backbone
    published = PUBLISHED_WEIGHTS.get(name)
    parts = []
    for part, (operations, modules, index) in family.parts(model, config.image_size).items():
        stage = None if index is None else backbone.stages[index]
        parts.append(
            {
                "name": part,
                "map_size": None if index is None else list(backbone.map_size(index, config.image_size)),
                "dim": None if stage is None else stage.dim,
                "blocks": None if stage is None else list(stage.blocks),
                "parameters": sum(module.parameter_count() for module in modules),
                "gflops": sum(operations.values()) / 1e9,
                "gflops_by_kind": {kind: operations[kind] / 1e9 for kind in KINDS if operations[kind]},
            }
        )
    return {
        "name": name,
        "parameters": model.parameter_count(),
        "gflops": sum(part["gflops"] for part in parts),
        "image_size": list(config.image_size),
        **{figure: getattr(published, figure, None) for figure in FIGURES},
        "parts": parts,
    }


def describe_all() -> list[dict[str, Any]]:
    """`describe_model` of every published model."""
    return [describe_model(name) for name in list_models()]


def format_models(models: list[dict[str, Any]]) -> str:
    """A table of models for a terminal, one a line."""
    width = max(16, *(len(model["name"]) + 1 for model in models))
    lines = [f"{'model':{width}}{'parameters':>12}{'GFLOPs':>10}{'image':>12}  published"]
    for model in models:
        size = "x".join(map(str, model["image_size"]))
        figures = ", ".join(text.format(model[name]) for name, text in FIGURES.items() if model[name] is not None)
        line = f"{model['name']:{width}}{model['parameters']:>12,}{model['gflops']:>10.2f}{size:>12}  {figures}"
        lines.append(line.rstrip())
    lines.append(
        "GFLOPs: multiply-adds of one image. Published: what the authors report on ImageNet-1K, COCO and ADE20K."
    )
    return "\n".join(lines)


def format_model(model: dict[str, Any]) -> str:
    """One model for a terminal, part by part."""
    lines = [format_models([model]), "", f"{'part':16}{'map':>9}{'dim':>6}{'parameters':>12}{'GFLOPs':>9}  blocks"]
    for part in model["parts"]:
        size = "x".join(map(str, part["map_size"])) if part["map_size"] else ""
        lines.append(
            f"{part['name']:16}{size:>9}{part['dim'] or '':>6}{part['parameters']:>12,}{part['gflops']:>9.3f}  "
            + _summary(part["blocks"] or [])
        )
    kinds = {kind: sum(part["gflops_by_kind"].get(kind, 0) for part in model["parts"]) for kind in KINDS}
    lines.append("GFLOPs by kind: " + ", ".join(f"{kind} {number:.3f}" for kind, number in kinds.items() if number))
    return "\n".join(lines)


def _summary(blocks: list[str]) -> str:
    """window, deformable, window, deformable -> (window, deformable) x 2."""
    for period in range(1, len(blocks) + 1):
        times, left = divmod(len(blocks), period)
        if left == 0 and blocks == blocks[:period] * times:
            row = ", ".join(blocks[:period])
            return row if times == 1 else f"({row}) x {times}"
    return ""
