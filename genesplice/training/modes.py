"""How much of the model learns while fine-tuning.

=========  ====================================================================================
`probe`    nothing but linear maps on the frozen encoder's vectors: no graph, no kernel
`head`     readout, graph and heads; the encoder stands still
`last_n`   these, then the last transformer blocks of the encoder (`finetune.last_n`) with them
`lora`     these, then low-rank additions to the encoder's matrices (`finetune.adapter_rank`)
`ia3`      these, then factors on its keys, values and hidden layers
`full`     these, then everything
=========  ====================================================================================

"then": in the passes of `finetune.epochs`, after `finetune.head_steps`.
"""

import dataclasses

from genesplice.config import Config
from genesplice.model.adapters import add_adapters, transformer_blocks
from genesplice.model.genesplice import GeneSplice

__all__ = ["choose_learners", "settle"]


def settle(config: Config) -> Config:
    """The settings with what the mode decides: a probe is linear, without graph and kernel."""
    if config.finetune.mode != "probe":
        return config
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, is_linear=True, graph_layers=0),
        finetune=dataclasses.replace(config.finetune, kernel=False),
    )


def choose_learners(model: GeneSplice, config: Config) -> None:
    """Freeze what the mode leaves alone, and add adapters where it has some.

    Raises
    ------
    InputError
        If the mode needs transformer blocks and the encoder has too few.
    """
    settings = config.finetune
    if settings.mode == "full":
        return
    model.encoder.requires_grad_(False)
    if settings.mode == "last_n":
        for block in transformer_blocks(model.encoder)[-settings.last_n :]:
            block.requires_grad_(True)
    elif settings.mode in ("lora", "ia3"):
        add_adapters(model.encoder, settings.mode, settings.adapter_rank)
