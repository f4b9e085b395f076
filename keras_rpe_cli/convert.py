"""`keras-rpe convert`: a preset with the backbone of another framework's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_rpe_cli.report import import_keras_rpe


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A .mat of MatConvNet, .pth of torch, .safetensors or .weights.h5."),
    ],
    to: Annotated[Path, typer.Option(help="Folder of the new preset.", show_default=False)],
    backbone: Annotated[
        str, typer.Option(help="Network that the weights are of, such as resnet50 or digits.")
    ],
    embedding_dim: Annotated[int, typer.Option(min=2, help="Dimension of the embedding.")] = 24,
    num_classes: Annotated[int, typer.Option(min=1, help="Classes beside the background.")] = 1,
    batch_statistics: Annotated[
        bool,
        typer.Option(
            "--batch-statistics",
            help="Normalise by the statistics of each batch when predicting, as the paper's "
            "reference does with its networks.",
        ),
    ] = False,
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched", help="Leave weights random that the checkpoint does not have."
        ),
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="License of the weights, for the card.")
    ] = None,
) -> None:
    """Put the weights of a checkpoint into a preset, to train it further.

    Prints every weight that was matched, and every name that was not. The
    checkpoint is read without running anything in it; the heads are random.
    """
    import_keras_rpe()
    from keras_rpe.checkpoints import CheckpointError
    from keras_rpe.models import InstanceSegmenter
    from keras_rpe.models.backbones import (
        load_backbone_weights,
        make_backbone,
        use_batch_statistics,
    )

    network = make_backbone(backbone)
    report = load_backbone_weights(network, checkpoint)
    typer.echo(str(report))
    if report.unmatched_weights and not allow_unmatched:
        name, shape = report.unmatched_weights[0]
        raise CheckpointError(
            f"{checkpoint} has no weights for {len(report.unmatched_weights)} of {backbone}, such "
            f"as {name} {shape}; --allow-unmatched leaves them random."
        )
    model = InstanceSegmenter(
        use_batch_statistics(network) if batch_statistics else backbone,
        embedding_dim=embedding_dim,
        num_classes=num_classes,
    )
    if not batch_statistics:
        own: Any = model.backbone
        own.set_weights(network.get_weights())
    notes = {
        "task": "instance segmentation",
        "backbone": backbone,
        "initialised_from": checkpoint.name,
        "trained_on": "not trained here: the backbone is that of the checkpoint, the heads random",
        "licence": licence,
        "conversion": report.summary(),
        "limits": ["Its heads are random: it segments nothing before it is trained further."],
    }
    model.save_to_preset(to, {key: value for key, value in notes.items() if value})
    typer.echo(f"preset: {to}")
