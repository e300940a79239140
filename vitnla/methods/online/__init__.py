"""The slide deck's methods, which decompose activations inside `forward`."""
