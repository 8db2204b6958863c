"""minigraph.passes: graph-to-graph transformations, one a file."""

if __name__ != "minigraph.passes":  # under a second name every rule would be there twice
    raise ImportError(
        f"this folder is the package minigraph.passes and was imported as {__name__}: import minigraph.passes"
    )
