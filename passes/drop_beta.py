"""Drop what a second batch norm takes off again: the β of one before it.

    batch_norm(x, γ, β)  =  batch_norm(x, γ, 0) + β

Where only what is linear lies between two batch norms, without padding, β is a bias of the second one. It moves down to
it as biases do, f(x + β, w) = f(x, w) + f(β, w), and the second one's running mean gets f(β, w) back.
"""

from __future__ import annotations

from minigraph.core.builder import Tensor
from minigraph.core.ir import Node
from minigraph.core.pattern import Bound
from minigraph.core.pipeline import Pass
from minigraph.core.rewrite import Condition, Match, Rule, Walk
from minigraph.ops.batch_norm import batch_norm
from minigraph.ops.constant import fill
from minigraph.ops.pointwise import cast
from minigraph.passes import drop_bias
from minigraph.passes.per_channel import meeting
from minigraph.passes.reach import weights
from minigraph.passes.towards_norms import stops


def norm_with_beta(walk: Walk, node: Node) -> Bound | None:
    """For patterns: a batch norm whose β is not 0, where it might go: what reads its result is linear."""
    if not walk.is_frozen(node.inputs[2]):
        return None
    beta = walk.producer.get(node.inputs[2])
    if beta is not None and beta.op is fill and beta.attrs["value"] == 0:
        return None
    readers = [reader for reader in walk.readers(node.outputs[0]) if isinstance(reader, Node)]
    if stops(walk, node.outputs[0], node.attrs["axis"]) and not any(map(weights, readers)):
        return None
    return {"x": node.inputs[0], "gamma": node.inputs[1], "beta": node.inputs[2]}


def apart(match: Match, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    zeros = {"value": 0.0, "shape": beta.shape, "dtype": beta.dtype}
    y, mean, var = match.again(match.node, x, gamma, match.walk.builder.emit(fill, (), zeros)[0])
    return y + cast(meeting(beta, x.rank, match.node.attrs["axis"]), y.dtype), mean, var


def beta_stays(match: Match) -> str:
    return stops(match.walk, match.node.outputs[0], match.node.attrs["axis"])


RULES = (
    Rule(
        "beta-is-a-bias",
        "batch_norm(x, γ, β) = batch_norm(x, γ, 0) + β",
        norm_with_beta,
        apart,
        pays=(Condition("β gets to other batch norms, on all ways", beta_stays),),
        ops=(batch_norm,),
    ),
    *drop_bias.RULES,
)

PASS = Pass("drop-beta", "The β of a batch norm goes where another one takes it off again.", RULES)
