"""What a person composes: layers, initializers, optimizers."""
