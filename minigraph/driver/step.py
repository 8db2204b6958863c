"""Graphs made of a model: the step that trains it, and the graph that answers.

step = training_step(model, loss="loss", optimizer=Adam(1e-3))
answer = inference(model, outputs=["logits"])
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from minigraph.core.autodiff import gradient
from minigraph.core.builder import Builder, Tensor
from minigraph.core.chosen import Patterns, chosen
from minigraph.core.collector import paused
from minigraph.core.dtypes import NARROW
from minigraph.core.errors import expect
from minigraph.core.ir import Graph, needed
from minigraph.core.pipeline import applied
from minigraph.nn import optim
from minigraph.nn.loss_scale import loss_scale, only_if_finite, unscaled
from minigraph.ops.pointwise import cast
from minigraph.passes.freeze import freeze
from minigraph.passes.mixed_precision import in_narrow
from minigraph.passes.pipelines import BEFORE_AUTODIFF, INFERENCE, TURNS
from minigraph.passes.tensor_float import in_tf32

PRECISIONS = (*NARROW, "tf32")
SCALED = {"float16"}  # gradients need a scale where small numbers end before those of float32


@paused()
def training_step(
    model: Graph,
    loss: str,
    optimizer: optim.Optimizer,
    *,
    trainable: Patterns = "*",
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    outputs: Iterable[str] | None = None,
    without: Collection[str] = (),
) -> Graph:
    """The whole step as one graph: forward, loss, backward, running statistics, and the optimizer's updates.

    Biases and βs that a batch norm takes off again have no effect on the loss: they stay as they are, without gradient
    and slot.

    loss: the output that is made smaller, a float scalar.
    trainable: patterns over names of parameters ("*", "head.*"); one that begins with "!" takes out again. The others
        get no gradient and no slot.
    clip_norm: gradients are scaled down together where their joint norm is above it.
    accumulate: so many runs make one step of the optimizer, with the mean of their gradients. A batch norm normalizes
        each of these batches by itself: accumulation does not make its batch larger.
    precision: "float16" or "bfloat16": convolutions, matrix products and what lies between them are computed in it,
        forward and backward (see passes/mixed_precision.py). Parameters, statistics, losses, outputs and what the
        optimizer gets are float32 as before. In float16 gradients are computed with a scale (see nn/loss_scale.py): a
        step in which one is not finite changes nothing but "optimizer.loss_scale". With accumulate, such a run is not
        one of those that count. bfloat16 has the range of float32, and fewer digits.
        "tf32": the factors of convolutions and matrix products, forward and backward, are rounded to 10 bits behind the
        point (see passes/tensor_float.py); all else is float32. None: as the model says.
    outputs: what a step returns; all outputs of the model by default.
    without: names of passes of BEFORE_AUTODIFF to leave out.
    """
    _check(model, loss, optimizer, accumulate, precision)
    expect(not isinstance(outputs, str), "outputs is a list of names, not {!r}", outputs)
    names = list(model.outputs if outputs is None else outputs)
    builder = Builder.extending(model)
    parameters = chosen("parameter", builder.parameters, trainable, lambda parameter: [parameter.name])
    expect(parameters, "nothing is trainable")
    _check_reached(builder, loss, parameters)
    builder, parameters = _ready(model, loss, parameters, without, precision)
    if precision not in SCALED:
        _update(builder, parameters, gradient(builder.tensor(loss), parameters), optimizer, clip_norm, accumulate)
    else:
        scale = loss_scale(builder)
        scaled = gradient(builder.tensor(loss), parameters, cast(scale, builder.tensor(loss).dtype))
        gradients = unscaled(builder, scale, scaled)
        _update(builder, parameters, gradients, optimizer, clip_norm, accumulate)
        only_if_finite(builder, scale, scaled)
    step = builder.build({name: builder.tensor(name) for name in names})
    return in_tf32(step) if precision == "tf32" else step


def _check(model: Graph, loss: str, optimizer: optim.Optimizer, accumulate: int, precision: str | None) -> None:
    """Raise GraphError for arguments that make no step."""
    expect(isinstance(model, Graph), "training_step needs the model, a Graph, not a {}", type(model).__name__)
    expect("optimizer.step" not in model.variables, "{!r} is a training step already", model.name)
    expect(isinstance(optimizer, optim.Optimizer), "the optimizer is one such as optim.Adam(1e-3), not {!r}", optimizer)
    expect(
        loss in model.outputs,
        "there is no output {!r} to be made smaller; there are {}",
        loss,
        ", ".join(model.outputs),
    )
    expect(isinstance(accumulate, int) and accumulate >= 1, "accumulate is a number of 1 or more, not {!r}", accumulate)
    _check_precision(precision)


def _check_reached(builder: Builder, loss: str, parameters: Sequence[Tensor]) -> None:
    """Raise GraphError for parameters that the loss does not depend on."""
    value = builder.tensor(loss).value
    expect(value.type.is_float, "{!r} has no gradient: it is not a float but {}", loss, value.type)
    _, live = needed(builder.nodes, [value])
    idle = [p.name for p in parameters if p.value not in live]
    expect(
        not idle,
        "{!r} does not depend on {}; leave them out with trainable=[{}]",
        loss,
        ", ".join(idle),
        ", ".join(f'"!{name}"' for name in idle),
    )


def _ready(
    model: Graph, loss: str, parameters: Sequence[Tensor], without: Collection[str], precision: str | None
) -> tuple[Builder, list[Tensor]]:
    """The model to be differentiated, after BEFORE_AUTODIFF and in this precision, with all of its state; and those of
    the parameters that still have an effect."""
    lean = applied(BEFORE_AUTODIFF, model, without)
    lean = in_narrow(lean, precision) if precision in NARROW else lean
    builder = Builder.extending(replace(lean.check(), state=model.state))
    _, live = needed(builder.nodes, [builder.tensor(loss).value])
    effective = [builder.tensor(p.name) for p in parameters if p.value in live]
    expect(
        effective,
        "nothing is trainable: a batch norm takes off again what {} add",
        ", ".join(p.name for p in parameters),
    )
    return builder, effective


def _check_precision(precision: str | None) -> None:
    known = " or ".join(f'"{name}"' for name in PRECISIONS)
    expect(
        precision in (None, *PRECISIONS),
        "the precision is {}, or None for that of the model, not {!r}",
        known,
        precision,
    )


def _update(
    builder: Builder,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    optimizer: optim.Optimizer,
    clip_norm: float | None,
    accumulate: int,
) -> None:
    """Add what the gradients do to the parameters."""
    with optim.updating(builder):
        if accumulate > 1:
            gradients, last = optim.accumulate(builder, parameters, gradients, accumulate)
        if clip_norm is not None:
            gradients = optim.clip_by_norm(gradients, clip_norm)
        before = builder.updates
        optimizer.apply(builder, parameters, gradients)
        if accumulate > 1:
            optim.only_if(builder, last, before)


def inference(model: Graph, outputs: Iterable[str] | None = None, *, precision: str | None = None) -> Graph:
    """The graph that answers: batch norm with running statistics, no dropout, no updates, and only what `outputs` need.

    With outputs=["loss"] it is the evaluation loss, which leaves the running statistics alone.
    precision: as in training_step, with weights that are rounded once, after all that is folded into them. For "tf32"
        that is done here.
    """
    expect(isinstance(model, Graph), "inference needs the model, a Graph, not a {}", type(model).__name__)
    _check_precision(precision)
    answering = freeze(model.prune(outputs))
    if precision in NARROW:
        return in_narrow(answering, precision)
    return in_tf32(applied(INFERENCE, answering, turns=TURNS)) if precision == "tf32" else answering
