"""The graph, its ops, rewriting and differentiation: what every other room stands on."""
