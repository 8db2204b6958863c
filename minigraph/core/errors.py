"""The one exception that bad graphs, bad attributes and bad data raise."""


class GraphError(ValueError):
    """What was expected, what came, and (added by the builder or the executor) the node and the user's line."""


def expect(fact: object, message: str, *values: object) -> None:
    """Raise GraphError unless `fact`. The message is formatted with `values` only then: checks stay cheap."""
    if not fact:
        raise GraphError(message.format(*values))
